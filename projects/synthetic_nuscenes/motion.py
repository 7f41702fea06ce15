"""World stage: speed profiles and trajectories; seconds since scene start in, world x, y and yaw out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from projects.synthetic_nuscenes.road import Road
from projects.synthetic_nuscenes.transforms import FloatArray


@dataclass(frozen=True)
class SpeedProfile:
    """Speed that is linear between knots and constant outside them.

    Attributes:
        times_s: (K,) rising; speeds_mps: (K,).
    """

    times_s: tuple[float, ...]
    speeds_mps: tuple[float, ...]

    def speed(self, t_s: FloatArray | float) -> FloatArray:
        """Speed in m/s."""
        return np.interp(t_s, self.times_s, self.speeds_mps)

    def distance(self, t_s: FloatArray | float) -> FloatArray:
        """Distance in m since t = times_s[0]; the exact integral of `speed`."""
        if len(self.times_s) == 1:
            return (np.asarray(t_s, dtype=np.float64) - self.times_s[0]) * self.speeds_mps[0]
        times, speeds = np.asarray(self.times_s), np.asarray(self.speeds_mps)
        t = np.asarray(t_s, dtype=np.float64)
        knots = np.concatenate([[0.0], np.cumsum(np.diff(times) * (speeds[1:] + speeds[:-1]) / 2)])
        index = np.clip(np.searchsorted(times, t, side='right') - 1, 0, len(times) - 1)
        return knots[index] + (t - times[index]) * (speeds[index] + self.speed(t)) / 2


def constant_speed(speed_mps: float) -> SpeedProfile:
    """A profile that never changes."""
    return SpeedProfile((0.0,), (speed_mps,))


class Trajectory(Protocol):
    """What an agent follows."""

    @property
    def profile(self) -> SpeedProfile:
        """How fast."""

    def pose(self, t_s: FloatArray | float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y, yaw at t."""


@dataclass(frozen=True)
class RoadMotion:
    """Along the road at a fixed offset; at rest where the profile is zero.

    Attributes:
        direction: +1 with the ego's lane, -1 against it (the heading turns round as well).
        yaw_offset_rad: turned against the direction of travel (barriers, angled parking).
    """

    road: Road
    s0_m: float
    d_m: float
    profile: SpeedProfile
    direction: int = 1
    yaw_offset_rad: float = 0.0

    def pose(self, t_s: FloatArray | float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y, yaw at t."""
        s = self.s0_m + self.direction * self.profile.distance(t_s)
        x, y, heading = self.road.at(s, self.d_m)
        return x, y, heading + (0.0 if self.direction > 0 else np.pi) + self.yaw_offset_rad


@dataclass(frozen=True)
class LineMotion:
    """Straight on from a point, for instance across the road."""

    x0_m: float
    y0_m: float
    yaw_rad: float
    profile: SpeedProfile

    def pose(self, t_s: FloatArray | float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y, yaw at t."""
        distance = self.profile.distance(t_s)
        x = self.x0_m + np.cos(self.yaw_rad) * distance
        return x, self.y0_m + np.sin(self.yaw_rad) * distance, np.full_like(x, self.yaw_rad)
