"""Detector. In: a frame's true boxes (augmented LiDAR frame). Out: a map of where their centres are."""

from __future__ import annotations

import torch
from mmdet3d.models.utils import draw_heatmap_gaussian, gaussian_radius
from torch import Tensor

from projects.geometry import BEVGrid

MIN_OVERLAP, MIN_RADIUS = 0.1, 2
"""As CenterHead's own targets: gaussian_overlap and min_radius, in cells."""


def center_heatmap(boxes: Tensor, grid: BEVGrid) -> Tensor:
    """(G, 7 or more) boxes of any class -> (H, W): 1 at their centres, falling off as CenterPoint's targets do.

    Source: CenterPoint (Yin et al., CVPR 2021), with mmdet3d's Gaussians.
    """
    height, width = grid.bev_shape
    heatmap = torch.zeros(height, width)
    low, size = torch.tensor(grid.point_cloud_range[:2]), torch.tensor(grid.voxel_size[:2]) * grid.out_size_factor
    boxes = boxes.detach().cpu().float()
    for center, extent in zip(((boxes[:, :2] - low) / size).int(), boxes[:, 3:5] / size):
        if 0 <= center[0] < width and 0 <= center[1] < height and (extent > 0).all():
            radius = max(MIN_RADIUS, int(gaussian_radius((extent[1], extent[0]), MIN_OVERLAP)))
            draw_heatmap_gaussian(heatmap, center, radius)
    return heatmap
