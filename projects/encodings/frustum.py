"""Encodings. In: views, depths. Out: the points that a feature cell may show, and position embeddings made of them (PETR)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from projects.geometry.precision import full_precision
from projects.geometry.views import Views, cell_pixels


@full_precision
def frustum_points(views: Views, level_shape: Sequence[int], depths_m: Tensor, offset: float = 0.5,
                   shift_px: float = 0.0) -> Tensor:
    """Points at D depths on the viewing ray of every cell (PETR, Liu et al., ECCV 2022).

    Args:
        views: of B frames and N cameras.
        level_shape: (..., h, w).
        depths_m: (D,), z in the camera frame.
        offset: where in a cell, in cells: 0.5 is its centre, 0 its upper left corner.
        shift_px: added to the pixels. Ours are integers at centres; 0.5 is for matrices that count from the image's corner.

    Returns:
        (B, N, h, w, D, 3) float32, augmented LiDAR frame, metres.
    """
    height, width = level_shape[-2:]
    pixels = cell_pixels((height, width), views.padded_hw, offset, views.cam_from_img.device).flatten(0, 1) + shift_px
    origins, directions = views.rays_at(pixels.expand(*views.cam_from_img.shape[:2], -1, -1))
    depths = depths_m.to(origins)[:, None]
    points = origins[:, :, None, None] + depths * directions[:, :, :, None]
    return points.unflatten(2, (height, width))


def normalised(points_m: Tensor, around: Sequence[float]) -> Tensor:
    """(..., 3) metres -> (..., 3), 0..1 within `around` (x_min, y_min, z_min, x_max, y_max, z_max); not clamped."""
    low, size = _low_and_size(points_m, around)
    return (points_m - low) / size


def in_metres(points: Tensor, around: Sequence[float]) -> Tensor:
    """The inverse of `normalised`."""
    low, size = _low_and_size(points, around)
    return points * size + low


def _low_and_size(like: Tensor, around: Sequence[float]) -> tuple[Tensor, Tensor]:
    bounds = torch.tensor([around[:3], around[3:]], dtype=like.dtype).to(like.device, non_blocking=True)
    return bounds[0], bounds[1] - bounds[0]


def inverse_sigmoid(values: Tensor, eps: float = 1e-5) -> Tensor:
    """Of numbers that are first clamped to 0..1; finite."""
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=eps) / (1 - values).clamp(min=eps))


class FrustumEncoder(nn.Module):
    """The 3-D position embedding of PETR: D points of a cell through two layers.

    Args:
        num_depths: D.
        dim: E.
        hidden: width between the layers; None is 4 E.
    """

    def __init__(self, num_depths: int, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = 4 * dim if hidden is None else hidden
        self.layers = nn.Sequential(nn.Linear(3 * num_depths, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, points: Tensor) -> Tensor:
        """(..., D, 3) -> (..., E)."""
        return self.layers(points.flatten(-2))


class FeatureGate(nn.Module):
    """The feature-guided position encoding of PETRv2 (Liu et al., ICCV 2023): what is seen weighs the embedding.

    Args:
        dim: E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, embedding: Tensor, features: Tensor) -> Tensor:
        """(..., E) and (..., E) -> (..., E)."""
        return embedding * self.expand(self.reduce(features).relu()).sigmoid()
