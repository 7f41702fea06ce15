"""FastBEV fusion, the table. In: voxel centres in the augmented LiDAR frame, the rig. Out: the feature cell each one reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import cell_positions, full_precision
from projects.memfusion.structures import Calibration

OVERLAPS = ('mean', 'first')


@dataclass(frozen=True)
class VoxelTable:
    """What P voxels of V frames read of one image level; nothing in it depends on features, so a rig that does not change has
    one table.

    Attributes:
        rows: (V * P, M) int64 positions in V * N * h * w feature cells, of at most M cameras; V * N * h * w is none.
        share: (V * P, 1) one over the number of cameras that see the voxel; 0 where none does.
        seen: (V, P) bool, whether any does.
    """

    rows: Tensor
    share: Tensor
    seen: Tensor

    def read(self, features: Tensor) -> Tensor:
        """(V, N, C, h, w) -> (V, P, C) float32: the mean over the cameras that see each voxel, 0 where none does."""
        cells = features.float().permute(0, 1, 3, 4, 2).flatten(0, 3)  # a pixel's channels lie side by side
        nothing = len(cells)
        summed = F.embedding_bag(self.rows, F.pad(cells, (0, 0, 0, 1)), mode='sum', padding_idx=nothing)
        return (summed * self.share).unflatten(0, self.seen.shape)


def voxel_centres(bev_shape: Sequence[int], heights_m: Sequence[float], point_cloud_range: Sequence[float],
                  device: torch.device | None = None) -> Tensor:
    """(H * W * Z, 3) centres of the voxels above each BEV cell, height fastest, metres, augmented LiDAR frame."""
    cells = cell_positions(bev_shape, point_cloud_range, device).float()[:, :, None]
    heights = torch.tensor(heights_m, dtype=torch.float32).to(cells.device, non_blocking=True)
    shape = (*cells.shape[:2], len(heights), 1)
    return torch.cat([cells.expand(*shape[:3], 2), heights.view(1, 1, -1, 1).expand(shape)], dim=-1).flatten(0, 2)


@full_precision
def voxel_table(points_m: Tensor, calibration: Calibration, level_shape: Sequence[int], stride: int,
                overlap: str = 'mean') -> VoxelTable:
    """Which feature cell holds the pixel that a voxel's centre projects to (Fast-BEV, Li et al., TPAMI 2024).

    Args:
        points_m: (P, 3) in the augmented LiDAR frame.
        calibration: of V frames and N cameras.
        level_shape: (..., h, w) of the image level.
        stride: network pixels per feature cell.
        overlap: where several cameras see a voxel: 'mean' reads all of them, 'first' the one that stands first in the rig.

    Raises:
        ValueError: for another overlap.
    """
    check_overlap(overlap)
    height, width = level_shape[-2:]
    frames, cameras = calibration.cam_valid.shape
    uv_px, _, valid = calibration.project(points_m.expand(frames, -1, -1))  # (V, N, P, 2), (V, N, P)
    column, row = (((pixel + 0.5) / stride).floor().long().clamp(0, count - 1)
                   for pixel, count in zip(uv_px.unbind(-1), (width, height)))
    image = torch.arange(frames * cameras, device=points_m.device).view(frames, cameras, 1)
    nothing = frames * cameras * height * width
    rows = ((image * height + row) * width + column).masked_fill(~valid, nothing).transpose(1, 2)  # (V, P, N)
    if overlap == 'first':
        rows = rows.amin(-1, keepdim=True)  # cells are counted camera after camera
    count = (rows != nothing).sum(-1)
    share = torch.where(count > 0, 1 / count.clamp(min=1), 0.0)
    return VoxelTable(rows.flatten(0, 1).contiguous(), share.view(-1, 1), count > 0)


def check_overlap(overlap: str) -> None:
    """Raises ValueError where there is no such rule for voxels that several cameras see."""
    if overlap not in OVERLAPS:
        raise ValueError(f'fusion_layer.overlap must be one of {", ".join(OVERLAPS)}, got {overlap!r}')
