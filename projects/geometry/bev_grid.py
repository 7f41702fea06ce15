"""Geometry, pure functions. In: metres, (augmented) LiDAR frame. Out: BEV cells, x along W, y along H, as mmdet3d.

`cur_from_prev` maps points of the previous frame to the current one, so sampling the previous map needs its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import full_precision
from .resampling import sample_bilinear
from .rigid import invert_affine


@dataclass(frozen=True)
class BEVGrid:
    """The one place where range, voxel size and stride meet.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres.
        voxel_size: (x, y, z) in metres.
        out_size_factor: stride of the BEV features relative to the voxels.

    Raises:
        ValueError: naming the key, where the range is not a whole number of voxels or of BEV cells.
    """

    point_cloud_range: tuple[float, ...]
    voxel_size: tuple[float, ...]
    out_size_factor: int

    @classmethod
    def of_shape(cls, point_cloud_range: Sequence[float], shape: Sequence[int]) -> BEVGrid:
        """The cells of a map (H, W) over the range, one voxel each."""
        x_min, y_min, z_min, x_max, y_max, z_max = point_cloud_range
        cell = ((x_max - x_min) / shape[1], (y_max - y_min) / shape[0], z_max - z_min)
        return cls(tuple(point_cloud_range), cell, out_size_factor=1)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'point_cloud_range', tuple(float(v) for v in self.point_cloud_range))
        object.__setattr__(self, 'voxel_size', tuple(float(v) for v in self.voxel_size))
        if len(self.point_cloud_range) != 6 or len(self.voxel_size) != 3:
            raise ValueError('grid.point_cloud_range needs 6 numbers and grid.voxel_size 3, got '
                             f'{self.point_cloud_range} and {self.voxel_size}')
        if not all(map(math.isfinite, self.point_cloud_range)) or not all(0 < size < math.inf for size in self.voxel_size):
            raise ValueError('grid.point_cloud_range must be finite and grid.voxel_size above 0, got '
                             f'{self.point_cloud_range} and {self.voxel_size}')
        if self.out_size_factor < 1:
            raise ValueError(f'grid.out_size_factor must be at least 1, got {self.out_size_factor}')
        for axis, name in enumerate('xyz'):
            low, high, step = self.point_cloud_range[axis], self.point_cloud_range[axis + 3], self.voxel_size[axis]
            if high <= low:
                raise ValueError(f'grid.point_cloud_range goes from {low} to {high} m along {name}: its first three numbers '
                                 'are the lowest x, y, z, the others the highest')
            count = (high - low) / step
            if abs(count - round(count)) > 1e-4:
                raise ValueError(f'grid.point_cloud_range: {low}..{high} m along {name} is not a whole number of {step} m '
                                 'voxels (grid.voxel_size)')
            if name != 'z' and round(count) % self.out_size_factor:
                raise ValueError(f'grid.out_size_factor={self.out_size_factor}: {round(count)} voxels along {name} do not '
                                 'divide by it')

    @property
    def num_voxels(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        x, y, z = (round((h - lo) / s) for lo, h, s in zip(low, high, self.voxel_size))
        return x, y, z

    @property
    def bev_shape(self) -> tuple[int, int]:
        """(H, W) of the BEV features: cells along y, cells along x."""
        x, y, _ = self.num_voxels
        return y // self.out_size_factor, x // self.out_size_factor

    @property
    def cell_m(self) -> tuple[float, float]:
        """Size of a BEV cell along x and y, metres."""
        return self.voxel_size[0] * self.out_size_factor, self.voxel_size[1] * self.out_size_factor

    def cell_centers_m(self, device: torch.device | None = None) -> Tensor:
        """(H, W, 2) x and y of every cell's centre, metres."""
        return cell_positions(self.bev_shape, self.point_cloud_range, device).float()


def cell_positions(shape: Sequence[int], point_cloud_range: Sequence[float], device: torch.device | None = None) -> Tensor:
    """(H, W, 2) float64, x and y of every cell's centre in metres, for a map of `shape` (H, W) over the range."""
    x, y = _cell_centers(shape, point_cloud_range, device)
    grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([grid_x, grid_y], dim=-1)


def _cell_centers(shape: Sequence[int], point_cloud_range: Sequence[float],
                  device: torch.device | None) -> tuple[Tensor, Tensor]:
    """(W,) x and (H,) y of the cells' centres, float64, metres."""
    height, width = shape
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    x = x_min + (torch.arange(width, device=device, dtype=torch.float64) + 0.5) * (x_max - x_min) / width
    y = y_min + (torch.arange(height, device=device, dtype=torch.float64) + 0.5) * (y_max - y_min) / height
    return x, y


@full_precision
def move_positions(positions: Tensor, dst_from_src: Tensor) -> Tensor:
    """Moves ground positions (..., H, W, 2) at height 0 by (..., 4, 4); returns (..., H, W, 2) in the destination frame."""
    turned = positions.flatten(-3, -2) @ dst_from_src[..., :2, :2].transpose(-1, -2)
    return turned.unflatten(-2, positions.shape[-3:-1]) + dst_from_src[..., None, None, :2, 3]


@full_precision
def warp_bev(bev: Tensor, cur_from_prev: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """Moves BEV maps of the previous frame into the current one, bilinearly; cells that were not seen are 0.

    Args:
        bev: (B, C, H, W) map in the previous frame, x along W and y along H.
        cur_from_prev: (B, 4, 4) previous to current frame, metres; rigid, or with an augmentation's flip.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) that the map covers, metres.

    Returns:
        (B, C, H, W) in bev's dtype.

    Raises:
        ValueError: where cur_from_prev is not (B, 4, 4).
    """
    if cur_from_prev.shape != (bev.shape[0], 4, 4):
        raise ValueError(f'cur_from_prev must be ({bev.shape[0]}, 4, 4) for this batch, got {tuple(cur_from_prev.shape)}')
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    prev_from_cur = invert_affine(cur_from_prev.double())
    x, y = _cell_centers(bev.shape[-2:], point_cloud_range, bev.device)
    sides = []
    for row, low, high in zip(prev_from_cur[:, :2].unbind(1), (x_min, y_min), (x_max, y_max)):
        along, across, shift = row[:, 0, None, None], row[:, 1, None, None], row[:, 3, None, None]
        of_column = along * x * (2 / (high - low))  # what a cell's column and its row have to say, in float64
        of_row = (across * y[:, None] + (shift - low)) * (2 / (high - low)) - 1
        sides.append((of_column + of_row).float())
    return sample_bilinear(bev.float(), torch.stack(sides, dim=-1)).to(bev.dtype)
