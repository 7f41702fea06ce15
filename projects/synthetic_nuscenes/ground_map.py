"""World stage: the road from above; a scene in, a drivable-area mask and a ground picture out (map frame = world)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from projects.synthetic_nuscenes.naming import random_stream
from projects.synthetic_nuscenes.road import Road
from projects.synthetic_nuscenes.scene import Scene
from projects.synthetic_nuscenes.scenery import ROAD_EDGES_D_M
from projects.synthetic_nuscenes.streets import SIDE_STREET_HALF_M
from projects.synthetic_nuscenes.transforms import FloatArray

RESOLUTION_M = 0.1
_GRASS_BGR, _ASPHALT_BGR = (52, 96, 76), (83, 81, 81)
KERBS_D_M = (-6.3, 9.9)
_LINES_D_M = ((-3.1, False), (-1.9, False), (1.8, True), (5.5, False), (6.8, False))


@dataclass(frozen=True)
class GroundPicture:
    """Colours of the ground.

    Attributes:
        bgr: (rows, columns, 3) uint8; row r, column c is the world point (c, r) * RESOLUTION_M + origin_m.
        grain: (256, 256) uint8, brightness added to the colours, repeated over the plane.
    """

    bgr: np.ndarray
    grain: np.ndarray
    origin_m: tuple[float, float] = (0.0, 0.0)

    def colours(self, x_m: FloatArray, y_m: FloatArray) -> np.ndarray:
        """(N, 3) uint8 at world points; grass outside the picture."""
        columns = np.rint((x_m - self.origin_m[0]) / RESOLUTION_M).astype(int)
        rows = np.rint((y_m - self.origin_m[1]) / RESOLUTION_M).astype(int)
        inside = (rows >= 0) & (rows < self.bgr.shape[0]) & (columns >= 0) & (columns < self.bgr.shape[1])
        colours = np.empty((len(rows), 3), dtype=np.uint8)
        colours[:] = _GRASS_BGR
        colours[inside] = self.bgr[rows[inside], columns[inside]]
        return colours + self.grain[rows % 256, columns % 256][:, None]


def _strip(road: Road, picture: np.ndarray, d_range_m: tuple[float, float], colour: tuple[int, ...] | int,
           origin_m: tuple[float, float]) -> None:
    """Fill between two offsets of a road line, in short quadrilaterals."""
    first, last = road.length_range_m
    s = np.arange(first, last, 1.0)
    sides = [(np.stack(road.at(s, d)[:2], axis=1) - origin_m) / RESOLUTION_M for d in d_range_m]
    quads = np.stack([sides[0][:-1], sides[0][1:], sides[1][1:], sides[1][:-1]], axis=1)
    for quad in np.rint(quads * 16).astype(np.int32):
        cv2.fillConvexPoly(picture, quad, colour, shift=4)


def _blank(scene: Scene, channels: int, origin_m: tuple[float, float]) -> np.ndarray:
    columns, rows = (int(round((size - low) / RESOLUTION_M)) for size, low in zip(scene.map_size_m, origin_m))
    return np.zeros((rows, columns, channels) if channels > 1 else (rows, columns), dtype=np.uint8)


def map_mask(scene: Scene) -> np.ndarray:
    """(rows, columns) uint8, 255 where one may drive or walk; row 0 is the largest y, as in nuScenes' masks."""
    mask = _blank(scene, 1, (0.0, 0.0))
    for street in scene.side_streets:
        _strip(street, mask, (-SIDE_STREET_HALF_M, SIDE_STREET_HALF_M), 255, (0.0, 0.0))
    _strip(scene.road, mask, ROAD_EDGES_D_M, 255, (0.0, 0.0))
    return mask[::-1]


def ground_picture(scene: Scene, seed: int) -> GroundPicture:
    """Grass, pavement, asphalt and lane marks."""
    origin = scene.map_origin_m
    picture = _blank(scene, 3, origin)
    picture[:] = _GRASS_BGR
    _strip(scene.road, picture, ROAD_EDGES_D_M, (142, 142, 144), origin)
    for street in scene.side_streets:
        _strip(street, picture, (-SIDE_STREET_HALF_M, SIDE_STREET_HALF_M), _ASPHALT_BGR, origin)
    _strip(scene.road, picture, KERBS_D_M, _ASPHALT_BGR, origin)
    first, last = scene.road.length_range_m
    for d, dashed in _LINES_D_M:
        s = np.arange(first, last, 0.5)
        points = (np.stack(scene.road.at(s, d)[:2], axis=1) - origin) / RESOLUTION_M
        for start, (a, b) in zip(s, zip(points, points[1:])):
            if not dashed or start % 6.0 < 2.5:
                ends = [tuple(int(round(value * 16)) for value in point) for point in (a, b)]
                cv2.line(picture, ends[0], ends[1], (216, 216, 216), 2, shift=4)
    grain = random_stream(seed, 'ground', scene.name).integers(0, 19, (256, 256), dtype=np.uint8)
    return GroundPicture(picture, grain, origin)
