"""Data transform. In: a frame's points, (augmented) LiDAR frame. Out: `raster`, seen from above, (3, h, w) in [0, 1].

Cells are those of BEVGrid: x along w, y along h, so that masks of agents (`structures.Agents.boxes`) fall on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ..errors import DataError
from .multiview_loading import sample_name

RASTER_KEY = 'raster'
_FULL = 16.0  # points in a cell from which on it is as full as can be


def raster_shape(transforms: Sequence[Any]) -> tuple[int, int, int] | None:
    """(3, h, w) of the rasters that a pipeline makes; None where it makes none."""
    shapes = [transform.shape for transform in transforms if isinstance(transform, RasterizePoints)]
    return (3, *shapes[-1]) if shapes else None


@TRANSFORMS.register_module()
class RasterizePoints(BaseTransform):
    """LiDAR points as a picture with the channels density (logarithm of the count), greatest height, mean intensity.

    Stands after AlignToClipEnd and augmentation: all frames of a clip then lie in the last one's cells. Where there is no
    point, all three are 0.

    Args:
        point_cloud_range: x, y, z from and to, in metres; heights and what is drawn go from the lowest z to the highest. A
            lowest z above the ground (-1.5 m for nuScenes' LiDAR) leaves the ground out.
        shape: (h, w) cells along y and x.
        max_intensity: of the point files; nuScenes has 255.

    Raises:
        ValueError: for a bad argument.
        DataError: from `transform`, naming the sample, where no points were loaded or they have no intensity.
    """

    def __init__(self, point_cloud_range: Sequence[float], shape: Sequence[int], max_intensity: float = 255.0) -> None:
        if len(point_cloud_range) != 6 or any(low >= high for low, high in zip(point_cloud_range[:3], point_cloud_range[3:])):
            raise ValueError(f'point_cloud_range must be the lowest x, y, z, then the highest, got {list(point_cloud_range)}')
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f'shape must be (h, w) in cells, got {list(shape)}')
        if not max_intensity > 0:
            raise ValueError(f'max_intensity must be above 0, got {max_intensity}')
        self.low, self.high = np.asarray(point_cloud_range, dtype=np.float64).reshape(2, 3)
        self.shape, self.max_intensity = (int(shape[0]), int(shape[1])), float(max_intensity)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `raster`, float32."""
        points = results['points'].tensor.numpy() if 'points' in results else None
        if points is None or points.shape[1] < 4:
            raise DataError(f'sample {sample_name(results)}: RasterizePoints needs points with an intensity: put '
                            'LoadLidarPoints with use_dim of 4 or more before it')
        results[RASTER_KEY] = rasterize_points(points, self.low, self.high, self.shape, self.max_intensity)
        return results


def rasterize_points(points: npt.NDArray[np.float32], low: np.ndarray, high: np.ndarray, shape: tuple[int, int],
                     max_intensity: float) -> npt.NDArray[np.float32]:
    """(N, 4+) points to (3, h, w); see RasterizePoints."""
    xyz = points[:, :3].astype(np.float64)
    inside = ((xyz >= low) & (xyz < high)).all(axis=1)
    share = (xyz[inside] - low) / (high - low)
    height, width = shape
    column = np.minimum((share[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum((share[:, 1] * height).astype(np.int64), height - 1)
    cell, cells = row * width + column, height * width
    count = np.bincount(cell, minlength=cells)
    intensity = np.bincount(cell, weights=points[inside, 3], minlength=cells) / np.maximum(count, 1) / max_intensity
    order = np.argsort(share[:, 2], kind='stable')
    top = np.zeros(cells)
    top[cell[order]] = share[order, 2]  # the highest is written last
    raster = np.stack([np.log1p(count) / np.log1p(_FULL), top, intensity]).reshape(3, height, width)
    return np.clip(raster, 0.0, 1.0).astype(np.float32)
