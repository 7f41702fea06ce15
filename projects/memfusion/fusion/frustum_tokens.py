"""PETRv2Fusion, tokens. In: one image level (V, N, Ci, h, w) and the rig. Out: tokens that know what points they may show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from projects.encodings.depths import make_depths
from projects.encodings.frustum import FeatureGate, FrustumEncoder, frustum_points, inverse_sigmoid, normalised
from projects.encodings.rig_cache import RigCache
from projects.geometry.views import Views
from projects.memfusion.structures import Calibration

from .fusion_state import shown_cells

_REACH_M, _HEIGHT_M = 10.0, 10.0
"""How far the points' range reaches beyond the BEV's, and how high and low, as published."""


@dataclass(frozen=True)
class ImageTokens:
    """T tokens of V frames: keys (V, T, D), features that know where they look; values (V, T, D), features; keep (V, T) bool,
    those that show an image, None for all."""

    keys: Tensor
    values: Tensor
    keep: Tensor | None


class FrustumTokens(nn.Module):
    """Every feature cell is a token; the points at many depths on its viewing ray say where it looks (PETR, Liu et al., ECCV
    2022), weighed by what it shows (PETRv2, Liu et al., ICCV 2023).

    Args:
        img_channels: Ci.
        dim: D.
        stride: network pixels per feature cell.
        point_cloud_range: of the BEV, metres.
        depths: number of points.
        depth_kind: 'lid', nearer ones closer together, or 'linear'.
        start_m: depth of the first point; the one after the last lies at the range's largest x.
        position_range: x, y, z low and then high, metres, what the points are shares of; None is the BEV's and 10 m more, and
            from 10 m below to 10 m above.
        gate: whether what a cell shows weighs its embedding.
    """

    depths_m: Tensor

    def __init__(self, img_channels: int, dim: int, stride: int, point_cloud_range: Sequence[float], depths: int = 64,
                 depth_kind: str = 'lid', start_m: float = 1.0, position_range: Sequence[float] | None = None,
                 gate: bool = True) -> None:
        super().__init__()
        if position_range is None:
            x_min, y_min, _, x_max, y_max, _ = point_cloud_range
            position_range = (x_min - _REACH_M, y_min - _REACH_M, -_HEIGHT_M, x_max + _REACH_M, y_max + _REACH_M, _HEIGHT_M)
        self.position_range, self.stride = tuple(float(value) for value in position_range), stride
        if len(self.position_range) != 6 or any(low >= high for low, high in zip(self.position_range, self.position_range[3:])):
            raise ValueError('fusion_layer.embedding.position_range must be x, y, z low and then high, got '
                             f'{list(self.position_range)}')
        depths_m = make_depths(depth_kind, depths, start_m, self.position_range[3])
        self.register_buffer('depths_m', depths_m.float(), persistent=False)
        self.project = nn.Linear(img_channels, dim)
        self.frustum = FrustumEncoder(depths, dim)
        self.gate = FeatureGate(dim) if gate else None
        self._looks = RigCache()

    def forward(self, feature_map: Tensor, calibration: Calibration) -> ImageTokens:
        """feature_map (V, N, Ci, h, w); the embedding of a rig that does not change is computed once in eval mode."""
        height, width = feature_map.shape[-2:]
        values = self.project(feature_map.flatten(3).transpose(2, 3).flatten(1, 2))
        # The map's cells are `stride` pixels wide, whatever pads it.
        views = replace(calibration.views(), padded_hw=(height * self.stride, width * self.stride))
        looks = self._looks.get(views, lambda: self.looks(views, (height, width)), self.frustum)
        looks = looks if self.gate is None else self.gate(looks, values)
        shown = shown_cells(calibration, feature_map.shape, self.stride)
        return ImageTokens(values + looks.to(values.dtype), values, None if shown is None else shown.flatten(1))

    def looks(self, views: Views, level_shape: tuple[int, int]) -> Tensor:
        """(V, T, D): where the cells look, of the rig alone; T is camera, row, column."""
        points = normalised(frustum_points(views, level_shape, self.depths_m), self.position_range)
        there = views.cam_valid[..., None, None, None, None]
        return self.frustum(inverse_sigmoid(torch.where(there, points, 0.5)).flatten(1, 3))
