"""Fusion, spatial cross-attention of BEV queries. In: queries, where they are, levels and rig. Out: what the images show there.

Two readers with one contract: `look(cells_m, state)` once for all layers, `forward(query, cells_m, state, look)` in each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.encodings.spatial_attention import SeenQueries, SpatialCrossAttention
from projects.geometry.projection import MIN_DEPTH_M

from .fusion_state import FusionState, shown_cells
from .pillar_sampling import Pairs, PillarSampling

KINDS = ('pillar', 'deformable')
_NOWHERE = -100.0  # parts of a level: beyond any offset


class PillarReader(PillarSampling):
    """FuTr++'s sampler: one softmax over cameras, levels, heights and points, none of which leaves its image."""

    def look(self, cells_m: Tensor, state: FusionState) -> Pairs:
        """Which camera sees which query; the host waits once."""
        return self.pairs(cells_m, state)

    def read(self, query: Tensor, cells_m: Tensor, state: FusionState, look: Pairs) -> Tensor:
        """What the queries (V, Q, D) read; 0 where no camera sees them."""
        reading = self(query, cells_m, state, look)
        return reading.features * reading.trust


class DeformableReader(SpatialCrossAttention):
    """BEVFormer's: a softmax of each camera for itself, the mean over those that see the query.

    Args:
        dim, img_channels, num_heads, num_points, published_quirks: as in SpatialCrossAttention.
        strides: of the levels.
        heights_m: of a pillar's anchors.
    """

    heights_m: Tensor

    def __init__(self, dim: int, img_channels: int, strides: Sequence[int], heights_m: Sequence[float], num_heads: int,
                 num_points: int, published_quirks: bool | Sequence[str]) -> None:
        super().__init__(dim, img_channels, len(strides), num_heads, num_points, len(heights_m), published_quirks)
        self.strides = tuple(strides)
        self.register_buffer('heights_m', torch.tensor(heights_m, dtype=torch.float32), persistent=False)

    def look(self, cells_m: Tensor, state: FusionState) -> SeenQueries:
        """Which camera sees which query; the host waits once."""
        return self.seen(*self.anchors(cells_m, state))

    def anchors(self, cells_m: Tensor, state: FusionState) -> tuple[Tensor, Tensor]:
        """places (V, N, Q, Z, L, 2) of the pillars' anchors in parts of what each level covers, and visible (V, N, Q, Z)."""
        frames, cells = cells_m.shape[:2]
        heights = self.heights_m.view(1, 1, -1, 1).expand(frames, cells, -1, 1)
        pillars = torch.cat([cells_m[:, :, None].expand(-1, -1, heights.shape[2], -1), heights], dim=-1)
        uv_px, depth_m, visible = state.calibration.project(pillars.flatten(1, 2))
        in_front = (depth_m > MIN_DEPTH_M) & state.calibration.cam_valid[..., None]
        covered = torch.stack([uv_px.new_full((), size * stride) for level, stride in zip(state.maps, self.strides)
                               for size in (level.shape[-1], level.shape[-2])]).view(-1, 2)
        places = (uv_px[..., None, :] + 0.5) / covered
        places = torch.where(in_front[..., None, None], places, _NOWHERE)
        return places.unflatten(2, (cells, -1)), visible.unflatten(2, (cells, -1))

    def read(self, query: Tensor, cells_m: Tensor, state: FusionState, look: SeenQueries) -> Tensor:
        """What the queries (V, Q, D) read; 0 where no camera sees them."""
        del cells_m  # `look` knows where they are
        shown = [shown_cells(state.calibration, level.shape, stride) for level, stride in zip(state.maps, self.strides)]
        return self(query, state.maps, look, shown)


def build_reader(dim: int, img_channels: int, strides: Sequence[int], num_heads: int, kind: str = 'pillar',
                 num_points: int = 8, heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5), radius_px: float = 64.0,
                 published_quirks: bool | Sequence[str] = False) -> PillarReader | DeformableReader:
    """The reader of a kind: num_points per head, level and height of 'pillar', per head and level of 'deformable'."""
    if kind not in KINDS:
        raise ValueError(f'fusion_layer.cross_attention.kind must be one of {", ".join(KINDS)}, got {kind!r}')
    if kind == 'deformable':
        return DeformableReader(dim, img_channels, strides, heights_m, num_heads, num_points, published_quirks)
    if published_quirks:
        raise ValueError("fusion_layer.cross_attention.published_quirks are those of kind='deformable'")
    return PillarReader(dim, img_channels, strides, heights_m, num_heads, num_points, radius_px)
