"""BEVFormer-Lite. In: BEV or none, image features and the rig. Out: BEV whose every cell asked the cameras, LiDAR frame.

    queries           one for each BEV cell, from the LiDAR BEV or learned
    self_attention    each looks at the cells around it, deformably       \\
    cross_attention   each reads the images around its pillar             |  num_layers times, each part added and normalised
    feed_forward                                                          /
    output            added to the LiDAR BEV, or the BEV itself

What came before is read in the slot `temporal` (BEVFormerTemporal), after this layer, since frames are encoded side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.common.settings import build_part
from projects.encodings.temporal_attention import TemporalSelfAttention
from projects.memfusion.structures import Calibration

from .bev_queries import BEVQueries, check_bev_shape
from .bev_readers import build_reader
from .fusion_layer import FusionLayer, FusionOutput
from .fusion_state import FusionState

SELF_KINDS = ('deformable', 'none')


class BEVFormerLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each added to the queries and normalised after it, as published.

    Args:
        dim: D.
        self_attention: TemporalSelfAttention of one entry; None leaves it out.
        reader: of bev_readers.
        ffn_channels: hidden channels of the feed-forward part.
    """

    def __init__(self, dim: int, self_attention: nn.Module | None, reader: nn.Module, ffn_channels: int) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = self_attention, reader
        self.feed_forward = nn.Sequential(nn.Linear(dim, ffn_channels), nn.ReLU(), nn.Linear(ffn_channels, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 + (self_attention is not None)))

    def forward(self, query: Tensor, position: Tensor, cells_m: Tensor, state: FusionState, look: Any,
                bev_shape: tuple[int, int]) -> Tensor:
        """query (V, Q, D), position (1, Q, D), cells_m (V, Q, 2) -> (V, Q, D); `look` is what the reader's look gave."""
        *first, middle, last = self.norms
        if self.self_attention is not None:
            query = first[0](query + self.self_attention(query, position, bev_shape))
        reader: Any = self.cross_attention
        query = middle(query + reader.read(query, cells_m, state, look).to(query.dtype))
        return last(query + self.feed_forward(query))


def layer_settings(num_layers: int = 3, dim: int = 128, num_heads: int = 8,
                   ffn_channels: int = 256) -> tuple[int, int, int, int]:
    """The settings `layers`; ValueError where they do not fit."""
    if num_layers < 1 or dim % num_heads:
        raise ValueError(f'fusion_layer.layers: num_layers={num_layers} must be at least 1, and num_heads={num_heads} divide '
                         f'dim={dim}')
    return num_layers, dim, num_heads, ffn_channels


def build_self_attention(dim: int, num_heads: int, kind: str = 'deformable', num_points: int = 4) -> nn.Module | None:
    """What the settings `self_attention` say; None of 'none'.

    There is no encoding: deformable attention reads at places that the queries choose, so no query is compared with a key
    whose pose could count. Attention among cells that can know poses: FuTr++'s sample.self_attn, PETRv2Fusion's self_attention.
    """
    if kind not in SELF_KINDS:
        raise ValueError(f'fusion_layer.self_attention.kind must be one of {", ".join(SELF_KINDS)}, got {kind!r}')
    return TemporalSelfAttention(dim, num_heads, num_points, entries=1) if kind == 'deformable' else None


@MODELS.register_module()
class BEVFormerLiteFusion(FusionLayer):
    """Dense BEV queries that read the cameras (BEVFormer, Li et al., ECCV 2022). With a LiDAR BEV it starts as the identity,
    and is the identity for a frame without any camera.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer.
        bev_shape: (H, W) of the BEV; the detector fills it in.
        query_init: 'lidar', queries from the LiDAR's BEV; 'learned', a vector for each cell, for cameras alone.
        layers: dict(num_layers=3, dim=128, num_heads=8, ffn_channels=256).
        self_attention: dict(kind='deformable' | 'none', num_points=4).
        cross_attention: dict(kind='pillar' | 'deformable', num_points=8, heights_m, radius_px, published_quirks): FuTr++'s
            sampler, or BEVFormer's own. heights_m are in the LiDAR's frame; radius_px is that of 'pillar'; published_quirks
            are those of 'deformable' ('visibility_of_sample_0', 'all_anchors', 'bias_of_unseen', see SpatialCrossAttention).

    Raises:
        ValueError: naming the key, where a setting does not fit.
    """

    grid_keys = dict(point_cloud_range='point_cloud_range', bev_shape='bev_shape')

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        bev_shape: Sequence[int],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        query_init: str = 'lidar',
        layers: Mapping[str, Any] | None = None,
        self_attention: Mapping[str, Any] | None = None,
        cross_attention: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        num_layers, dim, heads, hidden = build_part(layer_settings, layers, 'model.fusion_layer.layers')
        self.queries = BEVQueries(bev_channels, dim, bev_shape, self.point_cloud_range, query_init)
        self.makes_bev = query_init == 'learned'
        self.layers = nn.ModuleList(
            BEVFormerLayer(
                dim, build_part(build_self_attention, self_attention, 'model.fusion_layer.self_attention', dim, heads),
                build_part(build_reader, cross_attention, 'model.fusion_layer.cross_attention', dim, img_channels, self.strides,
                           heads), hidden)
            for _ in range(num_layers))
        self.output = nn.Linear(dim, bev_channels)
        if not self.makes_bev:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def fuse_levels(self, bev_lidar: Tensor | None, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels."""
        shape, there = self.queries.grid, calibration.cam_valid
        check_bev_shape(bev_lidar, shape)
        query, position, cells_m = self.queries(bev_lidar, len(there))
        state = FusionState(query, query, maps, None, calibration, there.float())  # readers look at the images alone
        look = self._reader.look(cells_m, state)
        for layer in self.layers:
            query = layer(query, position, cells_m, state, look, shape)
        update = self.output(query).transpose(1, 2).unflatten(2, shape)
        if bev_lidar is None:
            return FusionOutput(update, {})
        return FusionOutput(bev_lidar + (update * there.any(1)[:, None, None, None]).to(bev_lidar.dtype), {})

    @property
    def _reader(self) -> Any:
        """The first layer's; where queries look does not depend on weights."""
        return self.layers[0].cross_attention

    typed_parts = dict(layers=layer_settings, self_attention=build_self_attention, cross_attention=build_reader)
    """What is built of the settings that are parts of the config without a type."""
