"""World stage: the forecast world's streets; a random stream in, a road with bends, junctions and crosswalks out (world).

All offsets are those of `populate.py`: the ego's lane at d = 0, the oncoming one at 3.6 m; beside each, before a junction, a
lane from which one can only turn right. Traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.road import Road, build_road
from projects.synthetic_nuscenes.transforms import FloatArray

LANE_D_M = {1: 0.0, -1: 3.6}
TURN_D_M = {1: -3.5, -1: 7.1}
"""By direction of travel along the road."""
SIDE_LANE_M, SIDE_STREET_HALF_M = 1.8, 3.6
"""A side street's lanes, and its edges, lie so far from its middle."""
SHIFT_S_M = (-32.0, -17.0)
"""Where those who turn change to the turn lane, along the way to the middle of the junction."""
SIDE_REACH_M = 84.0
TURN_RADIUS_M = 6.0
_STRAIGHT_M, _SHORT_M = 72.0, 34.0
_STEP_M = 0.05


@dataclass(frozen=True)
class Layout:
    """The streets of one scene; s = 0 is where the ego starts.

    Attributes:
        road: the main road.
        junctions_s_m: middles of the crossings with side streets, in the middle of 72 m of straight road.
        crosswalks_s_m: middles of the crosswalks, on other straight parts.
    """

    road: Road
    junctions_s_m: tuple[float, ...]
    crosswalks_s_m: tuple[float, ...]


def _bend(radius_m: float, angle_rad: float) -> list[tuple[float, float, float]]:
    """Road segments of a bend with 4 m of curvature ramp at each end."""
    curvature = np.sign(angle_rad) / radius_m
    return [(4.0, 0.0, curvature), (abs(angle_rad) * radius_m - 4.0, curvature, curvature), (4.0, curvature, 0.0)]


def make_layout(rng: np.random.Generator, behind_m: float, ahead_m: float, ego_to_junction_m: float) -> Layout:
    """Straight parts with a junction, bends, short straight parts with a crosswalk, bends back, and so on.

    Args:
        rng: of the scene.
        behind_m, ahead_m: how far the road reaches.
        ego_to_junction_m: from the ego's start to the middle of some junction.
    """
    segments: list[tuple[float, float, float]] = []
    junctions, crosswalks = [], []
    start = np.inf
    while True:
        done = sum(segment[0] for segment in segments)
        if done > start + ahead_m:
            break
        junctions.append(done + _STRAIGHT_M / 2)
        if start == np.inf and junctions[-1] - ego_to_junction_m >= behind_m:
            start = junctions[-1] - ego_to_junction_m
        segments.append((_STRAIGHT_M, 0.0, 0.0))
        angle = float(rng.choice([-1.0, 1.0]) * rng.uniform(np.radians(40), np.radians(75)))
        segments += _bend(rng.uniform(16.0, 26.0), angle)
        crosswalks.append(sum(segment[0] for segment in segments) + _SHORT_M / 2)
        segments.append((_SHORT_M, 0.0, 0.0))
        segments += _bend(rng.uniform(16.0, 26.0), -angle)
    whole = build_road(segments, -start)
    kept = (whole.s_m >= -behind_m) & (whole.s_m <= ahead_m)
    road = Road(whole.s_m[kept], whole.x_m[kept], whole.y_m[kept], whole.heading_rad[kept])
    inside = [[s - start for s in places if -behind_m + 40 < s - start < ahead_m - 40] for places in (junctions, crosswalks)]
    return Layout(road, *map(tuple, inside))


def side_street(road: Road, s_m: float) -> Road:
    """The line of the street across the road at s, from right to left; its own s is 0 on the road's line."""
    x, y, heading = (float(value) for value in road.at(s_m, 0.0))
    along = np.array([-np.sin(heading), np.cos(heading)])
    s = np.arange(-SIDE_REACH_M, SIDE_REACH_M + 1.0)
    return Road(s, x + s * along[0], y + s * along[1], np.full_like(s, heading + np.pi / 2))


def lane_path(road: Road, direction: int) -> Road:
    """The way straight on, in the direction of travel; its parameter is direction * s."""
    s = road.s_m if direction > 0 else road.s_m[::-1]
    return _path(road, direction, s, np.full_like(s, LANE_D_M[direction]))


def turn_path(road: Road, direction: int, junction_s_m: float) -> Road:
    """The way over the turn lane into the side street on the right; its parameter is direction * s until it leaves the road.

    From there on it is metres.
    """
    end = junction_s_m - direction * (SIDE_LANE_M + TURN_RADIUS_M)
    s = road.s_m[road.s_m <= end] if direction > 0 else road.s_m[road.s_m >= end][::-1]
    to_go = direction * (s - junction_s_m)
    share = np.clip((to_go - SHIFT_S_M[0]) / (SHIFT_S_M[1] - SHIFT_S_M[0]), 0.0, 1.0)
    smooth = share**2 * (3 - 2 * share)
    begin = _path(road, direction, s, LANE_D_M[direction] + smooth * (TURN_D_M[direction] - LANE_D_M[direction]))
    arc = np.arange(_STEP_M, TURN_RADIUS_M * np.pi / 2, _STEP_M)
    straight = np.arange(0.0, SIDE_REACH_M - 12.0, _STEP_M)
    heading0 = begin.heading_rad[-1]
    heading = heading0 - np.concatenate([arc / TURN_RADIUS_M, np.full(len(straight), np.pi / 2)])
    steps = np.full(len(heading), _STEP_M)
    middle = 0.5 * (heading + np.concatenate([[heading0], heading[:-1]]))
    return Road(
        np.concatenate([begin.s_m, begin.s_m[-1] + np.cumsum(steps)]),
        np.concatenate([begin.x_m, begin.x_m[-1] + np.cumsum(np.cos(middle) * steps)]),
        np.concatenate([begin.y_m, begin.y_m[-1] + np.cumsum(np.sin(middle) * steps)]),
        np.concatenate([begin.heading_rad, heading]),
    )


def _path(road: Road, direction: int, s_m: FloatArray, d_m: FloatArray) -> Road:
    x, y, _ = road.at(s_m, d_m)
    heading = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    return Road(direction * s_m, x, y, heading)


def speed_limit(path: Road, lateral_mps2: float = 2.0, braking_mps2: float = 1.5) -> tuple[FloatArray, FloatArray]:
    """Path parameters in steps of 1 m, and the speed there in m/s at which no bend now or to come is taken too fast."""
    p = np.arange(path.s_m[0], path.s_m[-1], 1.0)
    heading = np.interp(p, path.s_m, path.heading_rad)
    curvature = np.abs(np.gradient(heading, p))
    limit = np.minimum(np.sqrt(lateral_mps2 / np.maximum(curvature, 1e-4)), 20.0)
    for index in range(len(p) - 2, -1, -1):
        limit[index] = min(limit[index], np.sqrt(limit[index + 1] ** 2 + 2 * braking_mps2))
    return p, limit
