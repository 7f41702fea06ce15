"""Data transform. In: a frame's pose and the map of its place. Out: one channel of `raster` is the map, in its cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from nuscenes.map_expansion.map_api import NuScenesMap, locations

from ..errors import DataError
from .bev_rasters import RASTER_KEY
from .loading import lidar_pose
from .multiview_loading import sample_name

PLACE_KEY = 'place'
"""Results: (data root, name of the map), which NuScenesForecastDataset says of its frames."""
DRIVABLE, LANE = 128, 255


@dataclass(frozen=True)
class PlaceRaster:
    """A whole map from above.

    Attributes:
        image: (rows, columns) uint8: 0, `DRIVABLE`, or `LANE` on the middle of lanes and of their connectors.
        cells_per_m: along x and y; cell (row, column) is around the map's (column + 0.5, row + 0.5) / cells_per_m.
    """

    image: npt.NDArray[np.uint8]
    cells_per_m: tuple[float, float]


@lru_cache(maxsize=8)
def place_raster(data_root: str, place: str, resolution_m: float) -> PlaceRaster:
    """Drivable area and lanes of one of nuScenes' maps, drawn once in a process.

    Raises:
        DataError: naming the map or its file, where the devkit does not know it or cannot read it.
    """
    path = Path(data_root) / 'maps' / 'expansion' / f'{place}.json'
    if place not in locations:
        raise DataError(f'{data_root}: the map {place!r} has no expansion (the devkit knows {", ".join(locations)}): leave '
                        'RasterizeMap out of the pipeline, or make a synthetic world of preset forecast')
    try:
        the_map = NuScenesMap(data_root, place)
    except OSError as error:
        raise DataError(f'cannot read {path} ({error.strerror}): unpack the map expansion (v1.3) into maps/, or leave '
                        'RasterizeMap out of the pipeline') from error
    except (ValueError, KeyError) as error:
        raise DataError(f'{path} is not a map of expansion v1.3 ({error!r}): unpack it again') from error
    width_m, height_m = the_map.canvas_edge
    shape = round(height_m / resolution_m), round(width_m / resolution_m)
    image = DRIVABLE * the_map.get_map_mask(None, 0, ['drivable_area'], shape)[0]
    scale = shape[1] / width_m, shape[0] / height_m
    lines = [np.rint(line[:, :2] * scale - 0.5).astype(np.int32)[:, None] for line in the_map.discretize_centerlines(1.0)
             if len(line) > 1]
    cv2.polylines(image, lines, False, LANE)
    return PlaceRaster(image, scale)


@TRANSFORMS.register_module()
class RasterizeMap(BaseTransform):
    """Replaces a channel of `raster` by the map: 1 on lanes' middles, 0.5 on the rest of the drivable area, 0 elsewhere.

    Stands after RasterizePoints, with its range and shape. Reads the expansion of nuScenes' maps (v1.3) once in a process.

    Args:
        point_cloud_range, shape: as in RasterizePoints.
        channel: which of the three; 2 is the intensity.
        resolution_m: of the map as it is kept in memory.

    Raises:
        ValueError: for a bad argument.
        DataError: from `transform`, naming the sample, without a raster or a place; naming the file, without the map.
    """

    def __init__(self, point_cloud_range: Sequence[float], shape: Sequence[int], channel: int = 2,
                 resolution_m: float = 0.4) -> None:
        if channel not in (0, 1, 2):
            raise ValueError(f'channel must be 0, 1 or 2, got {channel}')
        if not resolution_m > 0:
            raise ValueError(f'resolution_m must be above 0, got {resolution_m}')
        self.low, self.high = np.asarray(point_cloud_range, dtype=np.float64).reshape(2, 3)
        self.shape, self.channel, self.resolution_m = (int(shape[0]), int(shape[1])), channel, resolution_m

    def load(self, places: Iterable[tuple[str, str]]) -> None:
        """Draws these maps now, so that worker processes share them."""
        for data_root, place in places:
            place_raster(data_root, place, self.resolution_m)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes `raster`."""
        if RASTER_KEY not in results or results[RASTER_KEY].shape[1:] != self.shape:
            raise DataError(f'sample {sample_name(results)}: RasterizeMap needs a raster of its shape {self.shape}: put '
                            'RasterizePoints with the same range and shape before it')
        if PLACE_KEY not in results:
            raise DataError(f'sample {sample_name(results)}: RasterizeMap is told by NuScenesForecastDataset where a frame was '
                            'taken; other data sets do not say so')
        drawn = place_raster(*results[PLACE_KEY], self.resolution_m)
        global_from_bev = np.linalg.inv(results['bev_aug'] @ np.linalg.inv(lidar_pose(results)))
        image = self._view(drawn, global_from_bev)
        results[RASTER_KEY][self.channel] = image.astype(np.float32) / LANE
        return results

    def _view(self, drawn: PlaceRaster, global_from_bev: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """(h, w) cells of the map under those of the raster."""
        cell = (self.high - self.low)[:2] / self.shape[::-1]
        bev_from_cell = np.array([[cell[0], 0, self.low[0] + cell[0] / 2], [0, cell[1], self.low[1] + cell[1] / 2], [0, 0, 1]])
        map_from_bev = np.diag([*drawn.cells_per_m, 1.0]) @ global_from_bev[np.ix_([0, 1, 3], [0, 1, 3])]
        map_from_bev[:2, 2] -= 0.5
        matrix = (map_from_bev @ bev_from_cell)[:2]
        return cv2.warpAffine(drawn.image, matrix, self.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
