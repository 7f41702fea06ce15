"""World stage: one moving or standing object; seconds in, annotated box and body boxes in the world out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.motion import Trajectory
from projects.synthetic_nuscenes.road import Ground
from projects.synthetic_nuscenes.taxonomy import BODIES, CYCLES, KINDS, VEHICLES, Kind, Part
from projects.synthetic_nuscenes.transforms import FloatArray

_VELOCITY_STEP_S = 1e-3


@dataclass(frozen=True)
class Agent:
    """An annotated object.

    Attributes:
        name: unique in its scene; tokens come from it.
        kind_name: key of `KINDS`.
        size_lwh_m: (length, width, height) of the annotated box.
        reflectance: LiDAR intensity at normal incidence, of 255.
        colour_bgr: paint.
    """

    name: str
    kind_name: str
    size_lwh_m: tuple[float, float, float]
    reflectance: float
    colour_bgr: tuple[int, int, int]
    trajectory: Trajectory
    ground: Ground

    @property
    def kind(self) -> Kind:
        """The class description."""
        return KINDS[self.kind_name]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Body boxes in fractions of the annotated box."""
        return BODIES[self.kind.body]

    def pose(self, t_s: float) -> tuple[FloatArray, float]:
        """Centre of the annotated box (3,) in the world, m, and its yaw, rad."""
        x, y, yaw = self.trajectory.pose(float(t_s))
        z = self.ground.height(x, y) + self.size_lwh_m[2] / 2
        return np.array([float(x), float(y), float(z)]), float(yaw)

    def track(self, times_s: FloatArray) -> FloatArray:
        """(T, 3) of world x, y, yaw."""
        return np.stack(self.trajectory.pose(np.asarray(times_s, dtype=np.float64)), axis=-1)

    def velocity(self, t_s: float) -> FloatArray:
        """World velocity (3,) in m/s, from a central difference of 1 ms."""
        after, before = self.pose(t_s + _VELOCITY_STEP_S)[0], self.pose(t_s - _VELOCITY_STEP_S)[0]
        return (after - before) / (2 * _VELOCITY_STEP_S)

    def is_static(self) -> bool:
        """True where it never moves."""
        return max(self.trajectory.profile.speeds_mps) == 0.0

    def attribute(self, t_s: float) -> str | None:
        """nuScenes attribute name by behaviour, or None for objects that have none."""
        moving = float(self.trajectory.profile.speed(t_s)) > 0.3
        if self.kind_name in VEHICLES:
            if self.is_static():
                return 'vehicle.parked'
            return 'vehicle.moving' if moving else 'vehicle.stopped'
        if self.kind_name in CYCLES:
            return 'cycle.without_rider' if self.is_static() else 'cycle.with_rider'
        if self.kind_name == 'pedestrian':
            return 'pedestrian.moving' if moving else 'pedestrian.standing'
        return None


def part_geometry(agent: Agent, t_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Body boxes in the world: centers (P, 3), yaw-only rotations (P, 3, 3), half sizes (P, 3), m."""
    center, yaw = agent.pose(t_s)
    ranges = np.array([[part.x, part.y, (part.z[0] - 0.5, part.z[1] - 0.5)] for part in agent.parts])
    size = np.asarray(agent.size_lwh_m)
    local = ranges.mean(axis=-1) * size
    half_sizes = (ranges[..., 1] - ranges[..., 0]) / 2 * size
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    centers = center + np.einsum('ij,pj->pi', rotation, local)
    return centers, np.repeat(rotation[None], len(local), axis=0), half_sizes
