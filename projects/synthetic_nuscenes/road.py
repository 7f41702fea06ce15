"""World stage: a curved centre line and a ground plane; (s, d) along/left of the line in, world (x, y, z) out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.transforms import FloatArray

_STEP_M = 0.05


@dataclass(frozen=True)
class Road:
    """Centre line of the ego's lane as a fine table; d is positive to the left.

    Attributes:
        s_m, x_m, y_m, heading_rad: (K,) tables, s in steps of 5 cm.
    """

    s_m: FloatArray
    x_m: FloatArray
    y_m: FloatArray
    heading_rad: FloatArray

    def at(self, s_m: FloatArray | float, d_m: FloatArray | float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y and heading (rad) at distance s along and d to the left of the line; any broadcastable shapes."""
        s_m = np.asarray(s_m, dtype=np.float64)
        heading = np.interp(s_m, self.s_m, self.heading_rad)
        x = np.interp(s_m, self.s_m, self.x_m) - np.sin(heading) * d_m
        y = np.interp(s_m, self.s_m, self.y_m) + np.cos(heading) * d_m
        return x, y, heading

    def distance_to(self, xy_m: FloatArray) -> FloatArray:
        """Distance of (N, 2) points to the line, to about 10 cm."""
        line = np.stack([self.x_m[::10], self.y_m[::10]], axis=1)
        return np.sqrt(((xy_m[:, None] - line[None]) ** 2).sum(-1).min(axis=1))

    @property
    def length_range_m(self) -> tuple[float, float]:
        """First and last s of the table."""
        return float(self.s_m[0]), float(self.s_m[-1])


def build_road(segments: list[tuple[float, float, float]], start_s_m: float) -> Road:
    """Integrate curvature.

    Args:
        segments: (length in m, curvature at its start, curvature at its end) in 1/m, left positive.
        start_s_m: s of the first point.
    """
    curvature = np.concatenate(
        [np.linspace(k0, k1, max(2, round(length / _STEP_M)), endpoint=False) for length, k0, k1 in segments]
    )
    heading = np.concatenate([[0.0], np.cumsum(curvature) * _STEP_M])
    middle = 0.5 * (heading[1:] + heading[:-1])
    x = np.concatenate([[0.0], np.cumsum(np.cos(middle)) * _STEP_M])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle)) * _STEP_M])
    return Road(start_s_m + _STEP_M * np.arange(len(heading)), x, y, heading)


@dataclass(frozen=True)
class Ground:
    """A plane z = slope_x * x + slope_y * y, about a pivot."""

    slope_x: float
    slope_y: float
    pivot_x_m: float
    pivot_y_m: float

    def height(self, x_m: FloatArray | float, y_m: FloatArray | float) -> FloatArray:
        """Height in m at world x, y (any shape)."""
        return self.slope_x * (np.asarray(x_m) - self.pivot_x_m) + self.slope_y * (np.asarray(y_m) - self.pivot_y_m)

    @property
    def normal(self) -> FloatArray:
        """(3,) unit normal, pointing up."""
        normal = np.array([-self.slope_x, -self.slope_y, 1.0])
        return normal / np.linalg.norm(normal)

    def upright(self, yaw_rad: float) -> FloatArray:
        """(3, 3) rotation of a vehicle standing on the plane with its x axis along yaw."""
        up = self.normal
        forward = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
        forward[2] = -(up[0] * forward[0] + up[1] * forward[1]) / up[2]
        forward /= np.linalg.norm(forward)
        return np.stack([forward, np.cross(up, forward), up], axis=1)
