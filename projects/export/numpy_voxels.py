"""Export, numpy alone. In: the points of a frame. Out: its voxels, as mmcv's compiled op makes them, in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def voxelize(points: np.ndarray, point_cloud_range: Sequence[float], voxel_size: Sequence[float], max_num_points: int,
             max_voxels: int) -> dict[str, np.ndarray]:
    """Hard voxelisation.

    Args:
        points: (P, D) float32, x, y, z first, LiDAR frame, metres.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) metres; points beyond it are left out.
        voxel_size: (x, y, z) metres.
        max_num_points: the first points of a voxel that are kept.
        max_voxels: the first voxels that are kept, in the order of their first points.

    Returns:
        voxels (V, max_num_points, D) float32, 0 where a voxel has fewer points; num_points (V,) int32; coordinates (V, 3)
        int32 as z, y, x.

    Raises:
        ValueError: where the points are no (P, D) table of numbers with at least x, y and z.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != 'f':
        raise ValueError(f'points must be a (P, D) table of floats, x, y, z first; got {points.dtype} {points.shape}')
    points = points.astype(np.float32, copy=False)
    span, size = np.asarray(point_cloud_range, dtype=np.float32), np.asarray(voxel_size, dtype=np.float32)
    shape = np.round((span[3:] - span[:3]) / size).astype(np.int64)
    cells = np.floor((points[:, :3] - span[:3]) / size)
    inside = ((cells >= 0) & (cells < shape)).all(axis=1)
    points, x_y_z = points[inside], cells[inside].astype(np.int64)
    numbers = (x_y_z[:, 0] * shape[1] + x_y_z[:, 1]) * shape[2] + x_y_z[:, 2]
    places, first, voxel_of = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(places), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(places))
    voxel_of = rank[voxel_of]
    order = np.argsort(voxel_of, kind='stable')
    counts = np.bincount(voxel_of, minlength=len(places))
    slot = np.empty(len(points), dtype=np.int64)
    slot[order] = np.arange(len(points)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = (voxel_of < max_voxels) & (slot < max_num_points)
    number = min(len(places), max_voxels)
    voxels = np.zeros((number, max_num_points, points.shape[1]), dtype=np.float32)
    voxels[voxel_of[kept], slot[kept]] = points[kept]
    coordinates = x_y_z[np.sort(first)[:number]][:, ::-1].astype(np.int32)
    return dict(voxels=voxels, num_points=np.minimum(counts[:number], max_num_points).astype(np.int32),
                coordinates=coordinates)
