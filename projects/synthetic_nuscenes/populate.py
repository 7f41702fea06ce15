"""World stage: agents placed lane by lane along the road; a random stream in, non-overlapping agents out (world)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.agents import Agent
from projects.synthetic_nuscenes.motion import LineMotion, RoadMotion, SpeedProfile, Trajectory, constant_speed
from projects.synthetic_nuscenes.overlap import Occupancy
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.taxonomy import KINDS, LOOKALIKE_PAIRS

ONCOMING_D_M = 3.6
BIKE_LANES_D_M = (-2.6, 6.2)
PARKING_D_M = (-4.7, 8.3)
PAVEMENTS_D_M = ((-8.9, -6.6), (10.2, 12.4))
YARDS_D_M = (-10.4, 14.0)
_AT_REST = constant_speed(0.0)


@dataclass(frozen=True)
class Zone:
    """Stretch of road to fill, and how full (0 to 1)."""

    first_s_m: float
    last_s_m: float
    density: float


class Populator:
    """Adds agents; a candidate that would touch anything at any time is dropped.

    Attributes:
        pavement_shares: of walkers, groups of standers, pairs of cycles, cones and barriers on the pavements.
    """

    pavement_shares: tuple[float, ...] = (0.26, 0.18, 0.2, 0.18, 0.18)

    def __init__(self, road: Road, ground: Ground, occupancy: Occupancy, rng: np.random.Generator) -> None:
        self.road, self.ground, self.occupancy, self.rng = road, ground, occupancy, rng
        self.agents: list[Agent] = []

    def _add(self, kind_name: str, trajectory: Trajectory, margin_m: float = 0.15) -> bool:
        kind = KINDS[kind_name]
        draws = np.clip(self.rng.standard_normal(4), -2, 2)
        size = np.asarray(kind.size_lwh_m) + draws[:3] * np.asarray(kind.size_std_lwh_m)
        length, width, height = (round(float(value), 3) for value in size)
        agent = Agent(
            f'agent-{len(self.agents):03d}',
            kind_name,
            (length, width, height),
            float(kind.reflectance[0] + draws[3] * kind.reflectance[1]),
            kind.colours_bgr[int(self.rng.integers(len(kind.colours_bgr)))],
            trajectory,
            self.ground,
        )
        moving = not agent.is_static()
        track = agent.track(self.occupancy.times_s if moving else self.occupancy.times_s[:1])
        if not self.occupancy.try_add(track, (length, width), max(margin_m, 0.3) if moving else margin_m):
            return False
        self.agents.append(agent)
        return True

    def _pair(self, index: int) -> tuple[str, str]:
        """The two names of a look-alike pair in random order: class is independent of everything else."""
        first, second = LOOKALIKE_PAIRS[index]
        return (first, second) if self.rng.random() < 0.5 else (second, first)

    def _at_rest(self, s_m: float, d_m: float, turned_rad: float = 0.0, direction: int = 1) -> RoadMotion:
        return RoadMotion(self.road, s_m, d_m, _AT_REST, direction, turned_rad)

    def populate(self, zone: Zone, ego_profile: SpeedProfile, duration_s: float) -> None:
        """Add all agents of a street, in a fixed order, from one random stream.

        Args:
            zone: stretch to fill.
            ego_profile: speed of the ego; some agents share it.
            duration_s: length of the scene.
        """
        self.add_traffic(zone, ego_profile)
        self.add_crossers(float(ego_profile.distance(duration_s)))
        self.add_yard_walkers(zone)
        self.add_parked(zone)
        self.add_pavements(zone)

    def add_traffic(self, zone: Zone, ego_profile: SpeedProfile) -> None:
        """A lead and a follower that keep the ego's speed, oncoming platoons, and riders in the bike lanes."""
        rng = self.rng
        self._add_companions(ego_profile)
        cruise = rng.uniform(4.0, 8.0)
        profiles = (
            constant_speed(cruise),
            SpeedProfile((0.0, 1.0, 2.5, 5.0, 7.0), (cruise, cruise, 0.0, 0.0, cruise)),
        )
        profile = profiles[int(rng.integers(2))]
        s = zone.first_s_m + 5.0
        while s < zone.last_s_m + 40.0:
            name = str(rng.choice(['car', 'lorry', 'bus'], p=[0.6, 0.3, 0.1]))
            self._add(self._pair(0)[0] if name == 'lorry' else name, self._oncoming(s, ONCOMING_D_M, profile))
            s += rng.uniform(13, 30)
        for d, direction in zip(BIKE_LANES_D_M, (1, -1)):
            self._add_riders(zone, d, direction)

    def _add_companions(self, ego_profile: SpeedProfile) -> None:
        starts = (self.rng.uniform(13, 17), self.rng.uniform(30, 36), self.rng.uniform(-14, -10))
        for s0, kind_name in zip(starts, ('car', 'lorry', 'car')):
            name = self._pair(0)[0] if kind_name == 'lorry' else kind_name
            self._add(name, RoadMotion(self.road, s0, 0.0, ego_profile))

    def _add_riders(self, zone: Zone, d_m: float, direction: int) -> None:
        profile = constant_speed(self.rng.uniform(3.0, 5.0))
        s = zone.first_s_m
        while s < zone.last_s_m:
            for step, name in enumerate(self._pair(1)):
                self._add(name, RoadMotion(self.road, s + 3.5 * step, d_m, profile, direction))
            s += self.rng.uniform(18, 36)

    def _oncoming(self, s_m: float, d_m: float, profile: SpeedProfile) -> RoadMotion:
        return RoadMotion(self.road, s_m, d_m, profile, -1)

    def add_parked(self, zone: Zone) -> None:
        """Kerb lanes: cars, look-alike lorries nose to tail, buses, trailers, work zones with cones and barriers."""
        rng = self.rng
        for d, direction in zip(PARKING_D_M, (1, -1)):
            s = zone.first_s_m
            while s < zone.last_s_m:
                what = str(rng.choice(['car', 'lorry', 'bus', 'trailer', 'works'], p=[0.3, 0.2, 0.16, 0.19, 0.15]))
                if rng.random() > zone.density:
                    s += 5.0
                elif what == 'lorry':
                    for step, name in enumerate(self._pair(0)):
                        self._add(name, self._at_rest(s + 3.8 + 8.2 * step, d, 0.0, direction))
                    s += 17.0
                elif what == 'works':
                    s += self._add_works(s, d)
                else:
                    room = KINDS[what].size_lwh_m[0] + rng.uniform(1.4, 3.0)
                    self._add(what, self._at_rest(s + room / 2, d + rng.uniform(-0.1, 0.1), 0.0, direction))
                    s += room

    def _add_works(self, s_m: float, d_m: float) -> float:
        """A row of barriers with cones beside it; returns the length used, m."""
        count = int(self.rng.integers(2, 4))
        for i in range(count):
            self._add('barrier', self._at_rest(s_m + 1.8 + 2.9 * i, d_m, np.pi / 2))
            self._add('traffic_cone', self._at_rest(s_m + 1.8 + 2.9 * i, d_m + (0.95 if d_m < 0 else -0.95)))
        return 2.9 * count + 1.2

    def add_pavements(self, zone: Zone) -> None:
        """Standing and walking people, parked cycles two by two, cones, barriers."""
        rng = self.rng
        for low, high in PAVEMENTS_D_M:
            s = zone.first_s_m
            while s < zone.last_s_m:
                d = float(rng.uniform(low, high))
                choices = ['walker', 'stander', 'cycles', 'cone', 'barrier']
                what = str(rng.choice(choices, p=self.pavement_shares))
                if rng.random() > zone.density:
                    pass
                elif what == 'walker':
                    profile = constant_speed(float(rng.uniform(0.9, 1.7)))
                    self._add('pedestrian', RoadMotion(self.road, s, d, profile, 1 if rng.random() < 0.5 else -1))
                elif what == 'stander':
                    for _ in range(int(rng.integers(1, 4))):
                        spot = (s + rng.uniform(-1.2, 1.2), float(np.clip(d + rng.uniform(-1, 1), low, high)))
                        self._add('pedestrian', self._at_rest(*spot, float(rng.uniform(-np.pi, np.pi))))
                elif what == 'cycles':
                    turned = float(rng.uniform(-0.3, 0.3))
                    for step, name in enumerate(self._pair(1)):
                        self._add(name, self._at_rest(s + 2.4 * step, d, turned))
                elif what == 'cone':
                    self._add('traffic_cone', self._at_rest(s, d))
                else:
                    self._add('barrier', self._at_rest(s, d, float(rng.choice([0.0, np.pi / 2]))))
                s += rng.uniform(2.5, 5.5)

    def add_yard_walkers(self, zone: Zone) -> None:
        """People and riders beyond the walls, seen only through the gaps."""
        rng = self.rng
        for d in YARDS_D_M:
            s = zone.first_s_m
            while s < zone.last_s_m:
                profile, direction = constant_speed(float(rng.uniform(1.2, 2.0))), 1 if rng.random() < 0.5 else -1
                self._add('pedestrian', RoadMotion(self.road, s, d, profile, direction))
                s += rng.uniform(9, 16)

    def add_crossers(self, ego_last_s_m: float) -> None:
        """People who step from the pavement and cross the road, ahead of the ego or behind it."""
        rng = self.rng
        for s in (ego_last_s_m + rng.uniform(19, 24), ego_last_s_m + rng.uniform(26, 40), rng.uniform(-26, -20)):
            for shift in (0.0, 1.3):
                x, y, heading = (float(value) for value in self.road.at(s + shift, -8.0))
                wait = float(rng.uniform(0.0, 2.0))
                profile = SpeedProfile((0.0, wait, wait + 0.5), (0.0, 0.0, float(rng.uniform(1.2, 1.8))))
                self._add('pedestrian', LineMotion(x, y, heading + np.pi / 2, profile))
