"""Heads, what CenterHead should say. In: true boxes of a batch, augmented LiDAR frame. Out: heatmaps, box codes, their cells.

mmdet3d's get_targets for all frames, tasks and boxes at once; mmdet3d's own loops over boxes and asks the device about each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projects.geometry import centerpoint_radius, draw_gaussians

UNUSED = torch.iinfo(torch.int64).max
"""Label of padding, which sorts behind all others."""


@dataclass(frozen=True)
class CenterGrid:
    """What `train_cfg` says about targets; all on the host.

    Attributes:
        low_m: x and y where the map begins, metres.
        voxel_m: size of a voxel along x and y, metres.
        stride: voxels per cell.
        shape: (H, W) cells.
        min_overlap, min_radius: of the Gaussians.
        max_objs: slots for boxes of a task.
        log_size: regress logarithms of sizes.
    """

    low_m: tuple[float, float]
    voxel_m: tuple[float, float]
    stride: int
    shape: tuple[int, int]
    min_overlap: float
    min_radius: int
    max_objs: int
    log_size: bool

    @classmethod
    def from_train_cfg(cls, cfg: Mapping[str, Any], log_size: bool) -> CenterGrid:
        """From mmdet3d's keys."""
        stride = int(cfg['out_size_factor'])
        low, voxel, cells = cfg['point_cloud_range'], cfg['voxel_size'], cfg['grid_size']
        return cls(low_m=(float(low[0]), float(low[1])), voxel_m=(float(voxel[0]), float(voxel[1])), stride=stride,
                   shape=(int(cells[1]) // stride, int(cells[0]) // stride), min_overlap=float(cfg['gaussian_overlap']),
                   min_radius=int(cfg['min_radius']), max_objs=int(cfg['max_objs'] * cfg['dense_reg']), log_size=log_size)


@dataclass(frozen=True)
class CenterTargets:
    """Targets of B frames for T tasks with M slots each.

    Attributes:
        heatmap: (B, K, H, W) float32 over all classes, in the order of the tasks.
        codes: (B, T, M, 10) offset in the cell, z of the centre, size, sin and cos of yaw, velocity; 0 in empty slots.
        cells: (B, T, M) int64, row * W + column; 0 in empty slots.
        filled: (B, T, M) bool.
        boxes: (B, T, M) int64, which of the n boxes lies in the slot; anything in empty slots.
    """

    heatmap: Tensor
    codes: Tensor
    cells: Tensor
    filled: Tensor
    boxes: Tensor


@torch.no_grad()
def center_targets(boxes: Tensor, labels: Tensor, classes_of: Sequence[int], grid: CenterGrid) -> CenterTargets:
    """Boxes go into their task's slots class by class, in their order within a class; those too many are left out.

    A slot stays empty where its box has no area from above, or its centre lies outside the map.

    Args:
        boxes: (B, n, 9) float32 with their centre's z, and velocity.
        labels: (B, n) int64; what is no class of a task (padding is `UNUSED`) counts nowhere.
        classes_of: classes of each task; labels count through the tasks.
        grid: settings.
    """
    batch, count = labels.shape
    num_classes = sum(classes_of)
    labels, order = labels.masked_fill((labels < 0) | (labels >= num_classes), UNUSED).sort(dim=1, stable=True)
    boxes = boxes.gather(1, order[..., None].expand_as(boxes))
    center, size = _in_cells(boxes, grid)
    cell = center.int()  # towards 0, so that what is less than a cell outside counts as the first: as mmdet3d
    height, width = grid.shape
    inside = (cell >= 0).all(-1) & (cell[..., 0] < width) & (cell[..., 1] < height) & (size > 0).all(-1)
    counts = torch.stack([(labels == label).sum(dim=1) for label in range(num_classes)], dim=1)  # (B, K)
    counts = torch.stack([part.sum(dim=1) for part in counts.split(list(classes_of), dim=1)], dim=1)  # (B, T)
    first = counts.cumsum(dim=1) - counts
    slot = torch.arange(grid.max_objs, device=boxes.device)
    source = (first[..., None] + slot).clamp(max=max(count - 1, 0)).flatten(1)  # (B, T x M) positions among the sorted boxes
    used = slot < counts[..., None]
    shape = (batch, len(classes_of), grid.max_objs)
    if not count:
        return CenterTargets(boxes.new_zeros(batch, num_classes, height, width), boxes.new_zeros(*shape, 10),
                             labels.new_zeros(shape), used, labels.new_zeros(shape))
    filled = used & inside.gather(1, source).view(shape)
    codes = _codes(boxes, center, cell, grid).gather(1, source[..., None].expand(-1, -1, 10)).view(*shape, 10)
    cells = (cell[..., 1].long() * width + cell[..., 0]).gather(1, source).view(shape)
    return CenterTargets(_heatmap(labels, size, cell, inside, first, classes_of, grid),
                         torch.where(filled[..., None], codes, 0.0), cells.masked_fill(~filled, 0), filled,
                         order.gather(1, source).view(shape))


def _heatmap(labels: Tensor, size: Tensor, cell: Tensor, inside: Tensor, first: Tensor, classes_of: Sequence[int],
             grid: CenterGrid) -> Tensor:
    """(B, K, H, W) of sorted boxes; those beyond a task's slots are not drawn."""
    drawn, begin = torch.zeros_like(inside), 0
    position = torch.arange(labels.shape[1], device=labels.device)
    for task, classes in enumerate(classes_of):
        mine = (labels >= begin) & (labels < begin + classes)
        drawn |= mine & (position - first[:, task, None] < grid.max_objs)
        begin += classes
    radius = centerpoint_radius(size[..., 0], size[..., 1], grid.min_overlap).int().clamp(min=grid.min_radius)
    return draw_gaussians(cell.long(), radius.long(), drawn & inside, (begin, *grid.shape), labels.clamp(max=begin - 1))


def _in_cells(boxes: Tensor, grid: CenterGrid) -> tuple[Tensor, Tensor]:
    """(B, n, 9) -> centres and sizes (B, n, 2) in cells along x and y; divided in mmdet3d's order."""
    center = [(boxes[..., axis] - grid.low_m[axis]) / grid.voxel_m[axis] / grid.stride for axis in (0, 1)]
    size = [boxes[..., 3 + axis] / grid.voxel_m[axis] / grid.stride for axis in (0, 1)]
    return torch.stack(center, dim=-1), torch.stack(size, dim=-1)


def _codes(boxes: Tensor, center: Tensor, cell: Tensor, grid: CenterGrid) -> Tensor:
    """(B, n, 10) numbers that the head regresses."""
    size, yaw = boxes[..., 3:6], boxes[..., 6:7]
    return torch.cat([center - cell, boxes[..., 2:3], size.log() if grid.log_size else size, yaw.sin(), yaw.cos(),
                      boxes[..., 7:9]], dim=-1)
