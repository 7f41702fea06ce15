"""World stage: who follows and yields to whom; vehicles on their paths in, speeds and the reasons for them out (no frame).

Longitudinal motion is the Intelligent Driver Model (Treiber, Hennecke, Helbing, Phys. Rev. E 62, 2000): a free road, a leader,
and a stop line while somebody crosses, whichever asks for the lowest acceleration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.maneuvers import CROSSING, FREE, LEADER
from projects.synthetic_nuscenes.motion import SpeedProfile
from projects.synthetic_nuscenes.road import Road
from projects.synthetic_nuscenes.streets import speed_limit
from projects.synthetic_nuscenes.transforms import FloatArray

STEP_S = 0.1
_ACCELERATION_MPS2, _COMFORT_MPS2 = 1.6, 2.2
_HEADWAY_S, _MIN_GAP_M, _LINE_GAP_M = 1.2, 2.5, 0.5
_HARDEST_MPS2, _MOST_MPS2 = -6.0, 1.6
# A driver looks so far ahead in time for those who cross, and no longer stops where it would take more than this.
_ANTICIPATION_S, _MARGIN_S, _STOPPABLE_MPS2 = 4.5, 0.5, 5.0
# Those who turn still meet the stop line of their junction after they have left the lane, and none further along the road.
_OWN_LINE_M = 12.0


@dataclass(frozen=True)
class Vehicle:
    """A vehicle that reacts.

    Attributes:
        path: its way; the parameter is direction * s of the main road as long as it is on it.
        direction: +1 or -1 along the main road.
        start_m: path parameter at the first instant.
        speed_mps: what it would like to drive.
        length_m: of its box.
        turn: number of the junction where it turns, -1 for straight on.
        leaves_m: path parameter from which on it no longer is in the lane of those who go straight on.
        kind_name: key of `KINDS`.
    """

    path: Road
    direction: int
    start_m: float
    speed_mps: float
    length_m: float
    kind_name: str
    turn: int = -1
    leaves_m: float = np.inf


@dataclass(frozen=True)
class Crossing:
    """Somebody crosses the lane of one direction.

    Attributes:
        direction: whose lane.
        line_m: path parameter where a front bumper has to stop; clear_m: where a rear one is out of the way.
        first_s, last_s: while the lane is crossed.
    """

    direction: int
    line_m: float
    clear_m: float
    first_s: float
    last_s: float


@dataclass(frozen=True)
class Traffic:
    """What N vehicles did at K times.

    Attributes:
        times_s: (K,).
        speeds_mps: (N, K).
        reasons: (N, K), see `maneuvers`.
    """

    times_s: FloatArray
    speeds_mps: FloatArray
    reasons: np.ndarray

    def profile(self, index: int) -> SpeedProfile:
        """Of one vehicle; its distance is counted from the first time."""
        return SpeedProfile(tuple(self.times_s.tolist()), tuple(self.speeds_mps[index].tolist()))


def _interaction(speed: FloatArray, closing: FloatArray, gap: FloatArray, least: float) -> FloatArray:
    """The model's term for somebody ahead, in units of the greatest acceleration."""
    brake = speed * closing / (2 * np.sqrt(_ACCELERATION_MPS2 * _COMFORT_MPS2))
    wish = least + np.maximum(speed * _HEADWAY_S + brake, 0.0)
    return (wish / np.maximum(gap, 0.1)) ** 2


def simulate(vehicles: Sequence[Vehicle], crossings: Sequence[Crossing], times_s: FloatArray) -> Traffic:
    """Run all vehicles from the first time to the last, in steps of `STEP_S`."""
    length, wish, direction, turn, leaves = (
        np.array([getattr(vehicle, name) for vehicle in vehicles])
        for name in ('length_m', 'speed_mps', 'direction', 'turn', 'leaves_m'))
    limits = {id(vehicle.path): speed_limit(vehicle.path) for vehicle in vehicles}
    place = np.array([vehicle.start_m for vehicle in vehicles], dtype=np.float64)

    def top_speed() -> FloatArray:
        allowed = [np.interp(p, *limits[id(vehicle.path)]) for p, vehicle in zip(place, vehicles)]
        return np.minimum(wish, np.array(allowed))

    speed = top_speed()
    together = (turn[:, None] == turn) & (turn[:, None] >= 0) | ((turn[:, None] < 0) & (turn < 0))
    parting = np.minimum(leaves[:, None], leaves)
    speeds, reasons = [], []
    for t_s in times_s:
        free = np.maximum(1 - (speed / np.maximum(top_speed(), 0.1)) ** 4, -2.0)
        ahead = (place > place[:, None]) & (direction[:, None] == direction) & (together | (place < parting))
        gaps = np.where(ahead, place - place[:, None] - (length + length[:, None]) / 2, np.inf)
        leader = gaps.argmin(axis=1)
        gap = gaps.min(axis=1)
        pull = _interaction(speed, speed - speed[leader], gap, _MIN_GAP_M)
        follows = pull > np.maximum(0.15, 1 - free)
        reason = np.where(follows, LEADER, FREE)
        line = _line_gap(crossings, t_s, place, speed, length, direction, leaves)
        push = _interaction(speed, speed, line, _LINE_GAP_M)
        reason = np.where((push > np.maximum(pull, 0.15)), CROSSING, reason)
        acceleration = np.clip(_ACCELERATION_MPS2 * (free - np.maximum(pull, push)), _HARDEST_MPS2, _MOST_MPS2)
        speeds.append(speed)
        reasons.append(reason)
        after = np.maximum(speed + STEP_S * acceleration, 0.0)
        after[after < 0.05] = 0.0  # stands, rather than creeping for ever
        place = place + STEP_S * (speed + after) / 2
        speed = after
    return Traffic(times_s, np.stack(speeds, axis=1), np.stack(reasons, axis=1))


def _line_gap(crossings: Sequence[Crossing], t_s: float, place: FloatArray, speed: FloatArray, length: FloatArray,
              direction: np.ndarray, leaves: FloatArray) -> FloatArray:
    """(N,) metres to the stop line at which each has to wait now, inf where none."""
    nearest = np.full(len(place), np.inf)
    for crossing in crossings:
        if not crossing.first_s - _ANTICIPATION_S <= t_s <= crossing.last_s:
            continue
        gap = crossing.line_m - place - length / 2
        passed_s = (crossing.clear_m - place + length / 2) / np.maximum(speed, 0.5)
        in_time = passed_s < crossing.first_s - _MARGIN_S - t_s
        stoppable = speed**2 / (2 * np.maximum(gap, 0.1)) < _STOPPABLE_MPS2
        meets = (direction == crossing.direction) & (crossing.line_m < leaves + _OWN_LINE_M)
        waits = meets & (gap > -0.3) & ~in_time & stoppable
        nearest = np.where(waits, np.minimum(nearest, gap), nearest)
    return nearest
