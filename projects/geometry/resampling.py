"""Geometry, pure functions. In: maps (N, C, H, W). Out: the maps sampled or pooled, summed in one order where that is wanted.

torch's own functions, except on a GPU where only deterministic algorithms are allowed: the gradients of torch's add up in an
order that differs from run to run there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision


def sample_bilinear(maps: Tensor, grid: Tensor, padding_mode: str = 'zeros') -> Tensor:
    """torch's grid_sample with align_corners=False: maps (N, C, H, W), grid (N, h, w, 2) in -1..1 -> (N, C, h, w).

    Args:
        padding_mode: 'zeros' or 'border'.
    """
    if _wants_order(maps):
        return _sample_in_order(maps, grid, padding_mode)
    return F.grid_sample(maps, grid, padding_mode=padding_mode, align_corners=False)


def pool_adaptive(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """torch's adaptive_avg_pool2d: (N, C, H, W) -> (N, C, *shape)."""
    rows, columns = shape
    return _pool_in_order(maps, shape) if _wants_order(maps) else F.adaptive_avg_pool2d(maps, (rows, columns))


def window_bounds(cells: Tensor, windows: int) -> tuple[Tensor, Tensor]:
    """First and one past the last of `cells` (...) cells in each window of an adaptive pooling: (..., windows) int64."""
    window = torch.arange(windows, device=cells.device)
    first = (window * cells[..., None]).div(windows, rounding_mode='floor')
    last = ((window + 1) * cells[..., None] + windows - 1).div(windows, rounding_mode='floor')
    return first, last


def window_shares(first: Tensor, last: Tensor, size: int) -> Tensor:
    """(..., windows, size) float32: how much each of `size` cells counts in the mean of each window."""
    cell = torch.arange(size, device=first.device)
    inside = (cell >= first[..., None]) & (cell < last[..., None])
    return inside / (last - first)[..., None]


def _wants_order(maps: Tensor) -> bool:
    return maps.is_cuda and torch.are_deterministic_algorithms_enabled()


def _sample_in_order(maps: Tensor, grid: Tensor, padding_mode: str) -> Tensor:
    """By looking up rows, whose gradient torch sorts before it adds up."""
    batch, channels, height, width = maps.shape
    size = grid.new_tensor([width, height])
    at = ((grid + 1) * size - 1) / 2
    if padding_mode == 'border':
        at = at.minimum(size - 1).clamp(min=0)
    low = at.detach().floor()
    share = at - low
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    offset = (torch.arange(batch, device=maps.device) * (height * width)).view(-1, 1, 1)
    total = torch.zeros((), dtype=maps.dtype, device=maps.device)
    for right in (0, 1):
        for below in (0, 1):
            column, row = (low + low.new_tensor([right, below])).unbind(-1)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = offset + row.long().clamp(0, height - 1) * width + column.long().clamp(0, width - 1)
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if below else 1 - share[..., 1])
            total = total + rows[index] * torch.where(inside, weight, torch.zeros_like(weight))[..., None]
    return total.permute(0, 3, 1, 2)


@full_precision
def _pool_in_order(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """By two products with the windows' shares."""
    rows, columns = (window_shares(*window_bounds(torch.tensor(size, device=maps.device), windows), size)
                     for size, windows in zip(maps.shape[-2:], shape))
    return torch.einsum('ih,nchw,jw->ncij', rows, maps.float(), columns).to(maps.dtype)
