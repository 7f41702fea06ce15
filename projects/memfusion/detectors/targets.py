"""Detector. In: the frames' true boxes (augmented LiDAR frame). Out: maps of where their centres are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from projects.geometry import BEVGrid

MIN_OVERLAP, MIN_RADIUS = 0.1, 2
"""As CenterHead's own targets: gaussian_overlap and min_radius, in cells."""
_MOST_CELLS = 1 << 24
"""Cells of boxes that are drawn at once: bounds memory."""


def center_heatmaps(boxes: Sequence[Tensor], grid: BEVGrid, device: torch.device | str) -> Tensor:
    """V frames of (G, 7 or more) boxes of any class -> (V, H, W) on the device: 1 at their centres, falling off as
    CenterPoint's targets do.

    Source: CenterPoint (Yin et al., CVPR 2021), with mmdet3d's Gaussians.
    """
    height, width = grid.bev_shape
    heatmaps = torch.zeros(len(boxes), height, width, device=device)
    if not any(len(frame) for frame in boxes):
        return heatmaps
    # What pads a frame to the one with the most boxes has no extent, and is not drawn.
    padded = pad_sequence([frame.detach().float()[:, :5] for frame in boxes], batch_first=True).to(device, non_blocking=True)
    size_x, size_y = (torch.tensor(grid.voxel_size[:2]) * grid.out_size_factor).tolist()  # as float32 has them
    x, y, _, length, width_m = padded.unbind(-1)
    column = ((x - grid.point_cloud_range[0]) / size_x).int()
    row = ((y - grid.point_cloud_range[1]) / size_y).int()
    length, across = length / size_x, width_m / size_y
    drawn = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (length > 0) & (across > 0)
    radius = gaussian_radii(across, length, MIN_OVERLAP).where(drawn, 0).int().clamp(min=MIN_RADIUS)
    parts = (_profiles(center, count, radius, drawn) for center, count in ((row, height), (column, width)))
    chunk = max(1, _MOST_CELLS // heatmaps.numel())
    for down, right in zip(*(part.split(chunk, dim=1) for part in parts)):
        heatmaps = heatmaps.maximum((down[..., None] * right[..., None, :]).amax(1))
    return heatmaps


def gaussian_radii(height: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """mmdet3d's gaussian_radius of many boxes at once: (...) sizes in cells -> (...) radii."""
    around, area = height + width, width * height
    shares = ((1.0, 1.0, (1 - min_overlap) / (1 + min_overlap)), (4.0, 2.0, 1 - min_overlap),
              (4 * min_overlap, -2 * min_overlap, min_overlap - 1))
    radii = [(b * around + ((b * around).square() - 4 * a * (c * area)).sqrt()) / 2 for a, b, c in shares]
    return radii[0].minimum(radii[1]).minimum(radii[2])


def _profiles(center: Tensor, count: int, radius: Tensor, drawn: Tensor) -> Tensor:
    """(V, G) centres and radii in cells -> (V, G, count), each box's Gaussian along one axis; 0 beyond the radius."""
    offset = torch.arange(count, device=center.device) - center[..., None]
    sigma = (2 * radius[..., None] + 1) / 6
    inside = (offset.abs() <= radius[..., None]) & drawn[..., None]
    return torch.where(inside, torch.exp(-offset.square() / (2 * sigma * sigma)), 0.0)
