"""World stage: what never moves and is not annotated (buildings, walls, vegetation); road in, world solids out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.overlap import Occupancy
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.transforms import FloatArray, yaw_rotation

ROAD_EDGES_D_M = (-9.6, 13.2)
_BUILDING_COLOURS = ((150, 160, 170), (120, 130, 150), (170, 175, 165), (110, 110, 120), (140, 160, 190))


@dataclass(frozen=True)
class Solid:
    """A fixed box or ellipsoid.

    Attributes:
        shape: 'box' or 'blob' (the ellipsoid that fills the box).
        center_m: (3,) world; yaw_rad; half_size_m: (3,).
    """

    name: str
    shape: str
    center_m: FloatArray
    yaw_rad: float
    half_size_m: FloatArray
    reflectance: float
    colour_bgr: tuple[int, int, int]
    texture: str

    def corners(self) -> FloatArray:
        """(8, 3) world corners of the box; bit i of the index is the sign along axis i."""
        bits = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)]) * 2.0 - 1.0
        return self.center_m + (bits * self.half_size_m) @ yaw_rotation(np.array(self.yaw_rad)).T

    def surface_distance(self, points: FloatArray) -> FloatArray:
        """Distance in m of (N, 3) world points to the surface (first order for a blob)."""
        local = (points - self.center_m) @ yaw_rotation(np.array(self.yaw_rad))
        if self.shape == 'blob':
            scaled = np.linalg.norm(local / self.half_size_m, axis=1)
            gradient = np.linalg.norm(local / self.half_size_m**2, axis=1) / scaled
            return np.abs(scaled - 1) / gradient
        outside = np.abs(local) - self.half_size_m
        away = np.linalg.norm(np.maximum(outside, 0), axis=1)
        return np.abs(away + np.minimum(outside.max(axis=1), 0))


class SceneryBuilder:
    """Places solids beside the road so that none touches another, the road or its pavements."""

    def __init__(self, road: Road, ground: Ground, occupancy: Occupancy, rng: np.random.Generator) -> None:
        self.road, self.ground, self.occupancy, self.rng = road, ground, occupancy, rng
        self.solids: list[Solid] = []

    def _add(
        self, kind: str, s_m: float, d_m: float, size_lwh_m: tuple[float, float, float], clearance_m: float
    ) -> bool:
        x, y, heading = (float(value) for value in self.road.at(s_m, d_m))
        length, width, height = size_lwh_m
        track = np.array([[x, y, heading]])
        if clearance_m > 0 and self._clearance(track[0], length, width) < clearance_m:
            return False
        if not self.occupancy.try_add(track, (length, width), 0.25):
            return False
        base = float(self.ground.height(x, y))
        below = 0.0 if kind == 'blob' else 1.0
        center = np.array([x, y, base + (height - below) / 2])
        colour = _BUILDING_COLOURS[int(self.rng.integers(len(_BUILDING_COLOURS)))]
        looks = {
            'building': (float(self.rng.uniform(16, 34)), colour, 'facade'),
            'wall': (30.0, (120, 140, 150), 'bricks'),
            'blob': (22.0, (40, int(self.rng.integers(85, 125)), 55), 'leaves'),
        }
        reflectance, colour, texture = looks[kind]
        half_size = np.array([length / 2, width / 2, (height + below) / 2])
        name = f'{kind}-{len(self.solids):03d}'
        shape = 'blob' if kind == 'blob' else 'box'
        self.solids.append(Solid(name, shape, center, heading, half_size, reflectance, colour, texture))
        return True

    def _clearance(self, pose: FloatArray, length: float, width: float) -> float:
        """Least distance of the footprint's rim to the road line."""
        along, across = np.linspace(-0.5, 0.5, 15) * length, np.array([-0.5, 0.5]) * width
        grid = np.stack(np.meshgrid(along, across, indexing='ij'), -1).reshape(-1, 2)
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        rim = pose[:2] + grid @ np.array([[cos, sin], [-sin, cos]])
        return float(self.road.distance_to(rim).min())

    def add_buildings(self, first_s_m: float, last_s_m: float) -> None:
        """Two rows on each side and a block across each end of the road, so that most upper rings see something."""
        for side in (1, -1):
            edge = ROAD_EDGES_D_M[1] if side > 0 else -ROAD_EDGES_D_M[0]
            for near, far, height in ((1.5, 8.0, (5.0, 12.0)), (22.0, 30.0, (7.0, 18.0))):
                s = first_s_m + self.rng.uniform(0, 6)
                while s < last_s_m:
                    length, depth = self.rng.uniform(10, 22), self.rng.uniform(8, 12)
                    setback = edge + self.rng.uniform(near, far) + depth / 2
                    size = (length, depth, self.rng.uniform(*height))
                    self._add('building', s + length / 2, side * setback, size, edge)
                    s += length + self.rng.uniform(4, 18)
        for s, d in ((first_s_m - 12, 0.0), (last_s_m + 12, 0.0)):
            self._add('building', s, d, (10.0, 46.0, 18.0), 0.0)

    def add_walls(self, first_s_m: float, last_s_m: float) -> None:
        """Walls between pavement and yard, 2.3 m high: people who pass behind them are hidden."""
        for d in (ROAD_EDGES_D_M[0] + 0.3, ROAD_EDGES_D_M[1] - 0.3):
            s = first_s_m + self.rng.uniform(0, 10)
            while s < last_s_m:
                length = self.rng.uniform(3.0, 6.0)
                self._add('wall', s + length / 2, d, (length, 0.25, 2.3), 0.0)
                s += length + self.rng.uniform(8, 18)

    def add_vegetation(self, first_s_m: float, last_s_m: float) -> None:
        """Bushes and tree crowns behind the pavements."""
        for side in (1, -1):
            edge = ROAD_EDGES_D_M[1] if side > 0 else -ROAD_EDGES_D_M[0]
            s = first_s_m
            while s < last_s_m:
                tall = self.rng.random() < 0.4
                size = self.rng.uniform(2.5, 4.5) if tall else self.rng.uniform(1.0, 2.0)
                height = self.rng.uniform(3.5, 6.0) if tall else self.rng.uniform(0.8, 1.6)
                setback = edge + self.rng.uniform(1.5, 9.0) + size / 2
                self._add('blob', s, side * setback, (size, size, height), edge - 0.5)
                s += self.rng.uniform(4.0, 12.0)
