"""Queries. In: one image level (B, N, C, h, w), its rig. Out: tokens that know the cone they see (StreamPETR, Focal-PETR).

Source: StreamPETR (Wang et al., ICCV 2023) with the spatial alignment of Focal-PETR (Wang et al., 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projects.encodings.depths import make_depths
from projects.encodings.frustum import FeatureGate, FrustumEncoder, frustum_points, inverse_sigmoid, normalised
from projects.encodings.rig_cache import RigCache
from projects.geometry.precision import full_precision
from projects.geometry.views import cell_pixels
from projects.memfusion.structures import Calibration, TokenPlaces

from .conditioned_norm import ConditionedNorm, Shift
from .decoder import Tokens
from .image_tokens import flat_tokens, shown_cells

QUIRKS = ('tiled_focal', 'half_pixel', 'cone_depth', 'float32_inverse', 'unmasked_padding')
_CONE_DEPTH = 30
"""How many depths before the end the published cone has its second point."""


@dataclass(frozen=True)
class ConeSettings:
    """What image tokens are made of.

    Attributes:
        in_channels: C.
        position_range: what points at all depths are normalised by, metres.
        level: position of the image level that is read.
        num_depths: D.
        depth_start_m: of the first depth; the last ends at position_range[3].
        depths: 'lid' or 'linear', see encodings.depths.
    """

    in_channels: int
    position_range: Sequence[float]
    level: int = 0
    num_depths: int = 64
    depth_start_m: float = 1.0
    depths: str = 'lid'

    def __post_init__(self) -> None:
        self.depths_m()

    def depths_m(self) -> Tensor:
        """(D,) float64; ValueError for settings that give none."""
        return make_depths(self.depths, self.num_depths, self.depth_start_m, self.position_range[3])


class ConeTokens(nn.Module):
    """Image tokens with the frustum embedding of PETR, and features normed by the cone that a cell sees.

    Args:
        dim: E.
        settings: see ConeSettings.
        quirks: those of QUIRKS that are on.
    """

    depths_m: Tensor

    def __init__(self, dim: int, settings: ConeSettings, quirks: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.settings, self.quirks = settings, quirks
        depths = settings.depths_m()
        if 'cone_depth' in quirks and len(depths) < _CONE_DEPTH:
            raise ValueError(f'image_tokens.num_depths={len(depths)}: the published cone_depth needs at least {_CONE_DEPTH}')
        self.register_buffer('depths_m', depths, persistent=False)
        self.memory_embed = nn.Sequential(nn.Linear(settings.in_channels, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.position_encoder = FrustumEncoder(len(depths), dim)
        self.spatial_alignment = ConditionedNorm(8, dim)
        self.gate = FeatureGate(dim)
        self._cache = RigCache()

    def forward(self, level: Tensor, calibration: Calibration) -> Tokens:
        """(B, N, C, h, w) -> N h w tokens a frame: camera, row, column."""
        shape = level.shape[-2:]
        known = self._cache.get(calibration.views(), lambda: self._of_rig(calibration, shape), self, (*shape, self.quirks))
        positions, *shift = known.unbind(0)
        features = Shift(*shift).of(self.memory_embed(flat_tokens(level)))
        places = TokenPlaces((level.shape[1], *shape))
        return Tokens(features + self.gate(positions, features), features, self._kept(calibration, shape), (places,))

    def _of_rig(self, calibration: Calibration, shape: Sequence[int]) -> Tensor:
        """(3, B, T, E): what of the tokens depends on the rig alone, positions, and scale and offset of the features."""
        points = self.points(calibration, shape)
        positions = self.position_encoder(inverse_sigmoid(points)).flatten(1, 3)
        return torch.stack([positions, *self.spatial_alignment.shift(self.cones(points, calibration))])

    @full_precision
    def points(self, calibration: Calibration, shape: Sequence[int]) -> Tensor:
        """(B, N, h, w, D, 3) points on the cells' rays, in 0..1 of position_range, not clamped."""
        shift_px = 0.5 if 'half_pixel' in self.quirks else 0.0
        if 'float32_inverse' not in self.quirks:
            points = frustum_points(calibration.views(), shape, self.depths_m, shift_px=shift_px)
        else:
            views = calibration.views()
            uv = cell_pixels((shape[0], shape[1]), views.padded_hw, device=self.depths_m.device).float() + shift_px
            depths = self.depths_m.float()
            rays = torch.cat([uv[:, :, None] * depths[:, None], depths[:, None].expand(*uv.shape[:2], -1, -1),
                              torch.ones_like(depths[:, None]).expand(*uv.shape[:2], -1, -1)], dim=-1)
            inverse = torch.linalg.inv(calibration.img_from_lidar)[:, :, None, None, None]
            points = (inverse @ rays[..., None])[..., :3, 0]
        return normalised(points, self.settings.position_range)

    @full_precision
    def cones(self, points: Tensor, calibration: Calibration) -> Tensor:
        """(B, N h w, 8): focal lengths / 1000, the points at the last depth and at a middle one."""
        batch, cameras, height, width = points.shape[:4]
        focal = calibration.views().img_from_cam[..., :2, :2].norm(dim=-2).float() / 1000  # the image may be turned
        if 'tiled_focal' in self.quirks:
            focal = focal.repeat(1, height * width, 1)
        else:
            focal = focal[:, :, None].expand(-1, -1, height * width, -1).flatten(1, 2)
        middle = -_CONE_DEPTH if 'cone_depth' in self.quirks else len(self.depths_m) // 2
        return torch.cat([focal, points[..., -1, :].flatten(1, 3), points[..., middle, :].flatten(1, 3)], dim=-1)

    def _kept(self, calibration: Calibration, shape: Sequence[int]) -> Tensor | None:
        if 'unmasked_padding' not in self.quirks:
            shown = shown_cells(calibration, shape)
        elif all(all(row) for row in calibration.facts.cam_valid):
            return None
        else:
            shown = calibration.cam_valid[..., None, None].expand(-1, -1, *shape)
        return None if shown is None else shown.flatten(1)
