"""FuTr++, stage select, cells that no feature chooses. In: BEV shape (H, W), rig. Out: an even order; what cameras see."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from projects.geometry import cell_positions
from projects.memfusion.structures import Calibration


@functools.lru_cache(maxsize=16)
def even_ranks(shape: tuple[int, int]) -> Tensor:
    """(H * W,) float32 places 0, 1, ... of the cells in an order whose first K are spread evenly over the map, for every K:
    ordered dither (Bayer, ICC 1973). On the CPU; the same tensor each time, so do not change it."""
    height, width = shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    order = torch.zeros_like(row)
    for bit in range(max(height, width).bit_length()):
        order = order * 4 + ((row ^ column) >> bit & 1) * 2 + (row >> bit & 1)
    return order.flatten().argsort().argsort().float()


def seen_cells(shape: Sequence[int], heights_m: Sequence[float], point_cloud_range: Sequence[float],
               calibration: Calibration) -> Tensor:
    """(V, H * W) bool: cells of which some camera that is there sees the centre, at any of the heights."""
    device = calibration.bev_aug.device
    cells = cell_positions(shape, point_cloud_range, device).float().flatten(0, 1)
    points = torch.cat([torch.cat([cells, torch.full_like(cells[:, :1], height)], dim=1) for height in heights_m])
    _, _, valid = calibration.project(points.expand(len(calibration.bev_aug), -1, -1))
    return valid.any(1).unflatten(1, (len(heights_m), -1)).any(1)
