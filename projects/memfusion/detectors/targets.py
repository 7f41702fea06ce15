"""Detector. In: the frames' true boxes (augmented LiDAR frame). Out: maps of where their centres are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.geometry import BEVGrid, centerpoint_radius, draw_gaussians, pad_rows

MIN_OVERLAP, MIN_RADIUS = 0.1, 2
"""As CenterHead's own targets: gaussian_overlap and min_radius, in cells."""


def center_heatmaps(boxes: Sequence[Tensor], grid: BEVGrid, device: torch.device | str) -> Tensor:
    """V frames of (G, 7 or more) boxes of any class -> (V, H, W) on the device: 1 at their centres, falling off as
    CenterPoint's targets do.

    Source: CenterPoint (Yin et al., CVPR 2021), with mmdet3d's Gaussians.
    """
    height, width = grid.bev_shape
    if not any(len(frame) for frame in boxes):
        return torch.zeros(len(boxes), height, width, device=device)
    rows = [frame.detach().float()[:, :5] for frame in boxes]
    padded, there = (part.to(device, non_blocking=True) for part in pad_rows(rows))
    size_x, size_y = (torch.tensor(grid.voxel_size[:2]) * grid.out_size_factor).tolist()  # as float32 has them
    x, y, _, length_m, width_m = padded.unbind(-1)
    column = ((x - grid.point_cloud_range[0]) / size_x).int()
    row = ((y - grid.point_cloud_range[1]) / size_y).int()
    length, across = length_m / size_x, width_m / size_y
    drawn = there & (column >= 0) & (column < width) & (row >= 0) & (row < height) & (length > 0) & (across > 0)
    radius = centerpoint_radius(length, across, MIN_OVERLAP).where(drawn, 0).int().clamp(min=MIN_RADIUS)
    return draw_gaussians(torch.stack([column, row], dim=-1).long(), radius.long(), drawn, (1, height, width))[:, 0]
