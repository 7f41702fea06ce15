"""World stage: who is on the forecast world's streets; a layout and a random stream in, non-overlapping agents out (world)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from projects.synthetic_nuscenes.agents import Agent
from projects.synthetic_nuscenes.maneuvers import ManeuverLog
from projects.synthetic_nuscenes.motion import LineMotion, RoadMotion, SpeedProfile, Trajectory, constant_speed
from projects.synthetic_nuscenes.overlap import Occupancy, rectangles_overlap
from projects.synthetic_nuscenes.populate import PARKING_D_M, Populator, Zone
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.streets import (
    LANE_D_M,
    SHIFT_S_M,
    SIDE_LANE_M,
    SIDE_REACH_M,
    Layout,
    lane_path,
    side_street,
    turn_path,
)
from projects.synthetic_nuscenes.taxonomy import KINDS
from projects.synthetic_nuscenes.traffic import STEP_S, Crossing, Traffic, Vehicle, simulate
from projects.synthetic_nuscenes.transforms import FloatArray

WARM_UP_S = 6.0
"""Traffic runs so long before the scene starts, so that it does not start with everybody adjusting."""
_SLOW_SHARE, _TURN_SHARE = 0.3, 0.4
_JUNCTION_LINE_M, _CROSSWALK_LINE_M = 8.0, 4.0
_KERBS_D_M = (-6.0, 9.6)
Crosser = tuple[str, Trajectory, list[Crossing]]
"""Kind, motion, and the crossings of the two lanes."""


class ForecastPopulator(Populator):
    """Streets on which vehicles brake for slower or waiting leaders, yield to who crosses, and turn with their lane.

    Attributes:
        logs: why each vehicle does what it does, by agent name.
    """

    # Nobody stands in the way of what one wants to see: few barriers on the pavements.
    pavement_shares = (0.3, 0.2, 0.15, 0.2, 0.15)

    def __init__(self, layout: Layout, ground: Ground, occupancy: Occupancy, rng: np.random.Generator) -> None:
        super().__init__(layout.road, ground, occupancy, rng)
        self.layout, self.logs = layout, dict[str, ManeuverLog]()
        self._lanes = {direction: lane_path(layout.road, direction) for direction in LANE_D_M}

    def populate_streets(self, zone: Zone, duration_s: float, ego: Vehicle | None) -> SpeedProfile | None:
        """Add all agents; returns the ego's speeds where it drives in traffic (it is the first vehicle then)."""
        times = np.arange(-WARM_UP_S, duration_s + 2 * STEP_S, STEP_S)
        vehicles = ([] if ego is None else [ego]) + self._draw_traffic(zone, duration_s, ego)
        crossers = self._draw_crossers(zone, duration_s)
        vehicles, crossers, traffic = self._settle(vehicles, crossers, times)
        for index, vehicle in enumerate(vehicles):
            trajectory = RoadMotion(vehicle.path, vehicle.start_m, 0.0, traffic.profile(index))
            if index or ego is None:
                self._add_exactly(vehicle.kind_name, vehicle.length_m, trajectory)
                log = ManeuverLog(times, traffic.speeds_mps[index], traffic.reasons[index], trajectory)
                self.logs[self.agents[-1].name] = log
        for kind_name, motion, _ in crossers:
            self._add_exactly(kind_name, KINDS[kind_name].size_lwh_m[0], motion)
        self._add_kerb(zone)
        self.add_pavements(zone)
        return None if ego is None else traffic.profile(0)

    # -- traffic along the road -------------------------------------------------------------------------------------------
    def _draw_traffic(self, zone: Zone, duration_s: float, ego: Vehicle | None) -> list[Vehicle]:
        """Vehicles in both directions, from behind the filled zone (they come into it) to its end."""
        vehicles = []
        for direction in LANE_D_M:
            first, last = sorted((direction * zone.first_s_m, direction * zone.last_s_m))
            place = first - 6.0 * (duration_s + WARM_UP_S) * 0.8
            while place < last:
                vehicle = self._draw_vehicle(direction, place)
                place += vehicle.length_m / 2
                if ego is None or direction < 0 or abs(place - ego.start_m) > 12.0:
                    vehicles.append(replace(vehicle, start_m=place))
                place += vehicle.length_m / 2 + self.rng.uniform(9.0, 30.0)
        return vehicles

    def _draw_vehicle(self, direction: int, place_m: float) -> Vehicle:
        rng = self.rng
        slow = rng.random() < _SLOW_SHARE
        kind = str(rng.choice(['lorry', 'bus'], p=[0.7, 0.3])) if slow else 'car'
        name = self._pair(0)[0] if kind == 'lorry' else kind
        speed = rng.uniform(3.5, 6.0) if slow else rng.uniform(7.0, 11.0)
        mean, std = KINDS[name].size_lwh_m[0], KINDS[name].size_std_lwh_m[0]
        length = round(float(mean + np.clip(rng.standard_normal(), -2, 2) * std), 3)
        path, turn, leaves = self._lanes[direction], -1, np.inf
        ahead = [number for number, s in enumerate(self.layout.junctions_s_m) if direction * s + SHIFT_S_M[0] > place_m + 5.0]
        turns = rng.random() < _TURN_SHARE
        if ahead and turns:
            turn = min(ahead, key=lambda number: direction * self.layout.junctions_s_m[number])
            path = turn_path(self.road, direction, self.layout.junctions_s_m[turn])
            leaves = direction * self.layout.junctions_s_m[turn] + SHIFT_S_M[1]
        return Vehicle(path, direction, place_m, float(speed), length, name, turn, leaves)

    # -- those who cross ---------------------------------------------------------------------------------------------------
    def _draw_crossers(self, zone: Zone, duration_s: float) -> list[Crosser]:
        """Cars along the side streets and people on the crosswalks, each with the crossings of the two lanes."""
        crossers: list[Crosser] = []
        for s in self.layout.junctions_s_m:
            street, t_s = side_street(self.road, s), self.rng.uniform(1.0, 5.0)
            while zone.first_s_m < s < zone.last_s_m and t_s < duration_s:
                crossers.append(self._car_across(street, s, t_s))
                t_s += self.rng.uniform(5.5, 11.0)
        for s in self.layout.crosswalks_s_m:
            t_s = self.rng.uniform(-4.0, 4.0)
            while zone.first_s_m < s < zone.last_s_m and t_s < duration_s:
                side = int(self.rng.choice([-1, 1]))
                crossers += [self._person_across(s + 1.2 * number, t_s, side) for number in range(int(self.rng.integers(1, 3)))]
                t_s += self.rng.uniform(11.0, 18.0)
        return crossers

    def _car_across(self, street: Road, s_m: float, middle_s: float) -> Crosser:
        """A car that is on the road's line at `middle_s`."""
        speed, toward = float(self.rng.uniform(6.0, 8.5)), int(self.rng.choice([-1, 1]))
        start = -toward * min(SIDE_REACH_M - 4.0, speed * (middle_s + WARM_UP_S))
        starts, ends = (middle_s + sign * abs(start) / speed for sign in (-1, 1))
        profile = SpeedProfile((starts, ends, ends + 0.1), (speed, speed, 0.0))
        motion = RoadMotion(street, start, -toward * SIDE_LANE_M, profile, toward)
        half = KINDS['car'].size_lwh_m[0] / 2 + 1.9
        return 'car', motion, [
            self._crossing(direction, s_m, _JUNCTION_LINE_M, 5.0, sorted(
                middle_s + (toward * LANE_D_M[direction] + sign * half) / speed for sign in (-1, 1)))
            for direction in LANE_D_M]

    def _person_across(self, s_m: float, starts_s: float, side: int) -> Crosser:
        """Somebody who walks from one kerb to the other; side +1 starts on the left."""
        first_d, last_d = _KERBS_D_M[::-side]
        speed = float(self.rng.uniform(1.2, 1.7))
        seconds = abs(last_d - first_d) / speed
        knots = starts_s + np.cumsum([0.0, 0.4, seconds, 0.4])
        profile = SpeedProfile(tuple(knots.tolist()), (0.0, speed, speed, 0.0))
        x, y, heading = (float(value) for value in self.road.at(s_m, first_d))
        motion = LineMotion(x, y, heading - side * np.pi / 2, profile)
        crossings = []
        for direction, d in LANE_D_M.items():
            moments = [starts_s + 0.2 + abs(d + reach - first_d) / speed for reach in (-2.4, 2.4)]
            crossings.append(self._crossing(direction, s_m, _CROSSWALK_LINE_M, 2.0, sorted(moments)))
        return 'pedestrian', motion, crossings

    @staticmethod
    def _crossing(direction: int, s_m: float, line_m: float, clear_m: float, moments_s: list[float]) -> Crossing:
        return Crossing(direction, direction * s_m - line_m, direction * s_m + clear_m, moments_s[0], moments_s[1])

    # -- nobody overlaps -----------------------------------------------------------------------------------------------------
    def _settle(self, vehicles: list[Vehicle], crossers: list[Crosser],
                times: FloatArray) -> tuple[list[Vehicle], list[Crosser], Traffic]:
        """Simulate; leave out who would touch somebody, and simulate again: everybody's reasons are there to be seen."""
        while True:
            traffic = simulate(vehicles, [crossing for *_, crossings in crossers for crossing in crossings], times)
            seen = self.occupancy.times_s
            motions: list[Trajectory] = [RoadMotion(vehicle.path, vehicle.start_m, 0.0, traffic.profile(index))
                                         for index, vehicle in enumerate(vehicles)]
            motions += [motion for _, motion, _ in crossers]
            names = [vehicle.kind_name for vehicle in vehicles] + [name for name, *_ in crossers]
            lengths = [vehicle.length_m for vehicle in vehicles] + [KINDS[name].size_lwh_m[0] for name, *_ in crossers]
            tracks = np.stack([np.stack(motion.pose(seen), axis=-1) for motion in motions])
            halves = np.array([[length / 2, KINDS[name].size_lwh_m[1] / 2 + 0.2] for name, length in zip(names, lengths)])
            worst = _first_to_leave(tracks, halves)
            if worst is None:
                return vehicles, crossers, traffic
            if worst < len(vehicles):
                vehicles = vehicles[:worst] + vehicles[worst + 1:]
            else:
                crossers = crossers[:worst - len(vehicles)] + crossers[worst - len(vehicles) + 1:]

    def _add_exactly(self, kind_name: str, length_m: float, trajectory: Trajectory) -> None:
        kind = KINDS[kind_name]
        draws = np.clip(self.rng.standard_normal(3), -2, 2)
        width, height = (round(float(mean + draw * std), 3) for mean, draw, std in
                         zip(kind.size_lwh_m[1:], draws, kind.size_std_lwh_m[1:]))
        width = min(width, kind.size_lwh_m[1] + 0.1)
        agent = Agent(f'agent-{len(self.agents):03d}', kind_name, (round(length_m, 3), width, height),
                      float(kind.reflectance[0] + draws[2] * kind.reflectance[1]),
                      kind.colours_bgr[int(self.rng.integers(len(kind.colours_bgr)))], trajectory, self.ground)
        if not self.occupancy.try_add(agent.track(self.occupancy.times_s), (length_m, width), 0.0):
            raise RuntimeError(f'{agent.name} ({kind_name}) overlaps with another agent, which `_settle` should have prevented')
        self.agents.append(agent)

    def _add_kerb(self, zone: Zone) -> None:
        """Parked cars on both sides where no turn lane is needed."""
        for d, direction in zip(PARKING_D_M, (1, -1)):
            s = zone.first_s_m
            while s < zone.last_s_m:
                to_junction = [direction * (junction - s) for junction in self.layout.junctions_s_m]
                if all(not -9.0 < value < 46.0 for value in to_junction) and self.rng.random() < zone.density:
                    if all(abs(s - crosswalk) > 7.0 for crosswalk in self.layout.crosswalks_s_m):
                        self._add('car', self._at_rest(s, d, 0.0, direction))
                s += self.rng.uniform(5.6, 9.0)


def _first_to_leave(tracks: FloatArray, halves: FloatArray) -> int | None:
    """The last of all that touch an earlier one at some time; None where nobody does. tracks: (N, T, 3); halves: (N, 2)."""
    for index in range(len(tracks) - 1, 0, -1):
        distance = np.hypot(*np.moveaxis(tracks[:index, :, :2] - tracks[index, :, :2], -1, 0)).min(axis=1)
        near = np.flatnonzero(distance < np.hypot(*halves[index]) + np.hypot(*halves[:index].T))
        if len(near) and rectangles_overlap(tracks[near], halves[near][:, None], tracks[index][None], halves[index]).any():
            return index
    return None


def standing_ego(road: Road, d_m: float) -> RoadMotion:
    """An ego that waits beside the road and watches."""
    return RoadMotion(road, 0.0, d_m, constant_speed(0.0))
