"""FastBEV fusion, the table. In: voxels above the BEV cells, the rig. Out: the feature cells that these read."""

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
    """What Q BEV cells of V frames, with Z voxels each, read of one image level of h x w. Nothing in it depends on features, so
    a rig that does not change has one table.

    Attributes:
        rows: (V * Q, Z * M) int64, for each voxel and at most M cameras, positions in V * N * h * w * Z rows of features: those
            of a feature cell are one for each height; V * N * h * w * Z is none.
        shares: (V * Q, Z * M) one over the number of cameras that see the voxel; 0 where none does.
        seen: (V, Q) bool, whether any camera sees any of a cell's voxels.
        heights: Z.
    """

    rows: Tensor
    shares: Tensor
    seen: Tensor
    heights: int

    def read(self, features: Tensor) -> Tensor:
        """(V, N, Z * C, h, w) -> (V, Q, C) float32.

        Each voxel reads the C channels of its height, their mean over the cameras that see it; a cell adds its voxels up. With
        features that went through a matrix for each height, this is a 1x1 convolution of the voxels stacked into channels.
        """
        rows = features.float().unflatten(2, (self.heights, -1)).permute(0, 1, 4, 5, 2, 3).flatten(0, 4)
        summed = F.embedding_bag(self.rows, F.pad(rows, (0, 0, 0, 1)), mode='sum', padding_idx=len(rows),
                                 per_sample_weights=self.shares)
        return summed.unflatten(0, self.seen.shape)


@full_precision
def voxel_table(calibration: Calibration, bev_shape: Sequence[int], heights_m: Sequence[float],
                point_cloud_range: Sequence[float], level_shape: Sequence[int], stride: int, overlap: str) -> VoxelTable:
    """Which feature cell holds the pixel that a voxel's centre projects to (Fast-BEV, Li et al., TPAMI 2024).

    Args:
        calibration: of V frames and N cameras.
        bev_shape: (H, W); Q is H * W, row-major.
        heights_m: of the Z voxels above each BEV cell, augmented LiDAR frame.
        point_cloud_range: of the BEV, metres.
        level_shape: (..., h, w) of the image level.
        stride: network pixels per feature cell.
        overlap: where several cameras see a voxel: 'mean' reads all of them, 'first' the one that stands first in the rig.

    Raises:
        ValueError: for another overlap.
    """
    check_overlap(overlap)
    (height, width), heights = level_shape[-2:], len(heights_m)
    frames, cameras = calibration.cam_valid.shape
    points_m = _voxel_centres(bev_shape, heights_m, point_cloud_range, calibration.bev_aug.device)
    uv_px, _, valid = calibration.project(points_m.expand(frames, -1, -1))  # (V, N, Q * Z, 2), (V, N, Q * Z)
    column, row = (((pixel + 0.5) / stride).floor().long().clamp(0, count - 1)
                   for pixel, count in zip(uv_px.unbind(-1), (width, height)))
    image = torch.arange(frames * cameras, device=uv_px.device).view(frames, cameras, 1)
    at_height = torch.arange(heights, device=uv_px.device).repeat(len(points_m) // heights)
    nothing = frames * cameras * height * width * heights
    rows = (((image * height + row) * width + column) * heights + at_height).masked_fill(~valid, nothing).transpose(1, 2)
    if overlap == 'first':
        rows = rows.amin(-1, keepdim=True)  # cells are counted camera after camera
    there = rows != nothing  # (V, Q * Z, M)
    shares = (there / there.sum(-1, keepdim=True).clamp(min=1)).float()
    of_cells = (frames * len(points_m) // heights, -1)
    seen = there.any(-1).view(frames, -1, heights).any(-1)
    return VoxelTable(rows.reshape(of_cells), shares.reshape(of_cells), seen, heights)


def check_overlap(overlap: str) -> None:
    """Raises ValueError where there is no such rule for voxels that several cameras see."""
    if overlap not in OVERLAPS:
        raise ValueError(f'fusion_layer.overlap must be one of {", ".join(OVERLAPS)}, got {overlap!r}')


def _voxel_centres(bev_shape: Sequence[int], heights_m: Sequence[float], point_cloud_range: Sequence[float],
                   device: torch.device) -> Tensor:
    """(H * W * Z, 3) metres, height fastest."""
    cells = cell_positions(bev_shape, point_cloud_range, device).float()[:, :, None]
    heights = torch.tensor(heights_m, dtype=torch.float32).to(device, non_blocking=True)
    shape = (*cells.shape[:2], len(heights), 1)
    return torch.cat([cells.expand(*shape[:3], 2), heights.view(1, 1, -1, 1).expand(shape)], dim=-1).flatten(0, 2)
