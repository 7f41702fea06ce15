"""Geometry, pure functions. In: boxes, metres, (augmented) LiDAR frame. Out: the BEV cells that they cover."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .bev_grid import BEVGrid

CHUNK_CELLS = 1 << 22
"""Cells of all boxes' own masks that are held at once, which bounds memory."""


def pad_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """V tensors (n_v, ...) -> (V, n, ...) padded with zeros to the longest, and (V, n) bool, what is not padding; V above 0."""
    there = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    return pad_sequence(list(rows), batch_first=True), pad_sequence(there, batch_first=True)


def rasterize_boxes(boxes: Tensor, grid: BEVGrid) -> Tensor:
    """Union of rotated boxes as a BEV mask; see `rasterize_box_batch`.

    Args:
        boxes: (N, 5) x, y, length, width in metres and yaw in radians (counter-clockwise, 0 along +x), or (N, 7+)
            in mmdet3d's order x, y, z, length, width, height, yaw.
        grid: the cells.

    Returns:
        (H, W) bool.
    """
    return rasterize_box_batch(boxes[None], torch.ones(1, len(boxes), dtype=torch.bool, device=boxes.device), grid)[0]


def rasterize_box_batch(boxes: Tensor, valid: Tensor, grid: BEVGrid) -> Tensor:
    """Unions of rotated boxes as BEV masks.

    A cell belongs to a box when its centre lies inside the box. So that no box falls between centres, one thinner than a
    cell counts as one cell thick, and the cell that holds a box's centre always belongs to it.

    Args:
        boxes: (B, n, 5 or 7+) of B frames, padded; numbers as in `rasterize_boxes`.
        valid: (B, n) bool, which boxes count; or (B, K, n), which of them belong to each of K masks.
        grid: the cells.

    Returns:
        (B, H, W) bool, or (B, K, H, W).
    """
    members = valid if valid.dim() == 3 else valid[:, None]
    height, width = grid.bev_shape
    mask = torch.zeros(*members.shape[:2], height, width, dtype=torch.bool, device=boxes.device)
    chunk = max(1, CHUNK_CELLS // max(1, len(boxes) * members.shape[1] * height * width))
    for part, belongs in zip(boxes.split(chunk, dim=1), members.split(chunk, dim=2)):
        mask |= (_covered(part, grid)[:, None] & belongs[..., None, None]).any(dim=2)
    return mask if valid.dim() == 3 else mask[:, 0]


def _covered(boxes: Tensor, grid: BEVGrid) -> Tensor:
    """(B, n, 5 or 7+) -> (B, n, H, W) bool, the cells of every box by itself."""
    columns = [0, 1, 2, 3, 4] if boxes.shape[2] == 5 else [0, 1, 3, 4, 6]
    x, y, length, width, yaw = (boxes[..., column].float()[..., None, None] for column in columns)
    centers = grid.cell_centers_m(boxes.device)
    offset_x, offset_y = centers[..., 0] - x, centers[..., 1] - y
    cos, sin, cell = yaw.cos(), yaw.sin(), max(grid.cell_m)
    along, across = (offset_x * cos + offset_y * sin).abs(), (offset_y * cos - offset_x * sin).abs()
    inside = (along <= length.clamp(min=cell) / 2) & (across <= width.clamp(min=cell) / 2)
    own_column, own_row = (((boxes[..., axis] - grid.point_cloud_range[axis]) / grid.cell_m[axis]).floor()[..., None, None]
                           for axis in (0, 1))
    rows = torch.arange(inside.shape[-2], device=boxes.device)[:, None]
    return inside | ((own_row == rows) & (own_column == torch.arange(inside.shape[-1], device=boxes.device)))
