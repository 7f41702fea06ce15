"""World stage: streets where things vanish behind tall vehicles for a while; a random stream in, agents out (world)."""

from __future__ import annotations

import numpy as np

from projects.synthetic_nuscenes.motion import LineMotion, SpeedProfile, constant_speed
from projects.synthetic_nuscenes.overlap import Occupancy
from projects.synthetic_nuscenes.populate import BIKE_LANES_D_M, ONCOMING_D_M, PARKING_D_M, PAVEMENTS_D_M, Populator, Zone
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.taxonomy import KINDS

CONVOY_SPEED_MPS = (5.0, 8.0)
# What stands or drives where, and its shares; a 'lorry' is either of the look-alike pair. Tall vehicles hide everything
# behind them; over a parked car a head or a roof is still seen: the boxes of one to five points.
_PARTS = {
    'convoy': (('lorry', 'bus', 'trailer', 'car'), (0.55, 0.15, 0.1, 0.2)),
    'right_kerb': (('lorry', 'bus', 'trailer', 'car'), (0.35, 0.15, 0.15, 0.35)),
    'left_kerb': (('car', 'works', 'cycles', 'people', 'lorry'), (0.4, 0.15, 0.2, 0.2, 0.05)),
}
# Walked distance and mean distance between candidates along the road, m.
_WALKS = {'cross': (17.6, 5.0), 'step_out': (3.0, 11.0)}
_START_WALK_S = 0.4
_GAPS_M = {'convoy': (11.0, 20.0), 'right_kerb': (4.0, 9.0)}
_ROOM_M = 3.0  # a gap in which somebody can wait


class OcclusionPopulator(Populator):
    """Streets that hide things and show them again, in two ways.

    A convoy of tall vehicles passes on the ego's left, so that what stands beyond it comes and goes even while the
    ego waits. On the right, tall vehicles are parked with gaps, and what stands beyond them comes and goes as the
    ego moves. Nothing is placed where it would stay hidden for long: no yards, few tall things on the far left.
    """

    # Few cones: beyond 12 m they have a handful of points even when nothing is in the way.
    pavement_shares = (0.25, 0.28, 0.28, 0.04, 0.15)

    def populate(self, zone: Zone, ego_profile: SpeedProfile, duration_s: float) -> None:
        """Add all agents of a street, in a fixed order, from one random stream; arguments as in the base class.

        The convoy comes before those who walk, so that nobody on the road thins it out.
        """
        self._add_companions(ego_profile)
        self._add_convoy(zone, duration_s)
        self._add_riders(zone, BIKE_LANES_D_M[0], 1)
        self._add_riders(zone, BIKE_LANES_D_M[1], -1)
        self._add_right_kerb(zone)
        self._add_left_kerb(zone)
        self._add_walks(zone, 'cross', duration_s)
        self._add_walks(zone, 'step_out', duration_s)
        self.add_pavements(zone)

    def _draw(self, part: str) -> str:
        names, shares = _PARTS[part]
        name = str(self.rng.choice(names, p=shares))
        return self._pair(0)[0] if name == 'lorry' else name

    def _gap_m(self, part: str) -> float:
        """Metres to the next tall vehicle."""
        return float(self.rng.uniform(*_GAPS_M[part]))

    def _add_convoy(self, zone: Zone, duration_s: float) -> None:
        """Oncoming tall vehicles, enough of them to pass the ego until the scene ends."""
        speed = self.rng.uniform(*CONVOY_SPEED_MPS)
        profile = constant_speed(speed)
        s = zone.first_s_m
        while s < zone.last_s_m + speed * duration_s:
            name = self._draw('convoy')
            length = KINDS[name].size_lwh_m[0]
            self._add(name, self._oncoming(s + length / 2, ONCOMING_D_M, profile))
            s += length + self._gap_m('convoy')

    def _add_right_kerb(self, zone: Zone) -> None:
        """Tall vehicles with gaps of 4 to 9 m, in every second one somebody who waits."""
        s = zone.first_s_m
        while s < zone.last_s_m:
            name = self._draw('right_kerb')
            length = KINDS[name].size_lwh_m[0]
            self._add(name, self._at_rest(s + length / 2, PARKING_D_M[0]))
            gap = self._gap_m('right_kerb')
            if self.rng.random() < 0.5 and gap > _ROOM_M:
                self._add('pedestrian', self._at_rest(s + length + gap / 2, PARKING_D_M[0] + self.rng.uniform(-1, 0.5)))
            s += length + gap

    def _add_left_kerb(self, zone: Zone) -> None:
        """Mostly low things, which the convoy hides and shows."""
        s, d = zone.first_s_m, PARKING_D_M[1]
        while s < zone.last_s_m:
            what = self._draw('left_kerb')
            if what == 'works':
                s += self._add_works(s, d)
            elif what == 'cycles':
                for step, name in enumerate(self._pair(1)):
                    self._add(name, self._at_rest(s + 1.2 + 2.4 * step, d, float(self.rng.uniform(-0.3, 0.3))))
                s += 5.0
            elif what == 'people':
                for step in range(2):
                    self._add('pedestrian', self._at_rest(s + 0.6 + 1.3 * step, d + self.rng.uniform(-0.8, 0.8)))
                s += 2.6
            else:
                length = KINDS[what].size_lwh_m[0]
                self._add(what, self._at_rest(s + length / 2, d, direction=-1))
                s += length
            s += self.rng.uniform(2.0, 6.0)

    def _add_walks(self, zone: Zone, what: str, duration_s: float) -> None:
        """People who wait on a pavement, then walk over the road, or only to the kerb between parked vehicles."""
        walk_m, spacing_m = _WALKS[what]
        for side, first_d in ((1, PAVEMENTS_D_M[1][0] + 0.4), (-1, PAVEMENTS_D_M[0][1] - 0.4)):
            s = zone.first_s_m + self.rng.uniform(0.0, spacing_m)
            while s < zone.last_s_m:
                x, y, heading = (float(value) for value in self.road.at(s, first_d))
                leaves, speed = float(self.rng.uniform(0.0, duration_s)), float(self.rng.uniform(1.0, 1.6))
                times = np.cumsum([leaves, _START_WALK_S, walk_m / speed - _START_WALK_S, _START_WALK_S])
                profile = SpeedProfile((0.0, *times.tolist()), (0.0, 0.0, speed, speed, 0.0))
                self._add('pedestrian', LineMotion(x, y, heading - side * np.pi / 2, profile))
                s += spacing_m * self.rng.uniform(0.7, 1.3)


class LongOcclusionPopulator(OcclusionPopulator):
    """The same streets with tall vehicles in platoons, bumper to bumper, so that things stay hidden for two to six seconds."""

    platoon = 4
    close_m = (0.8, 1.6)

    def __init__(self, road: Road, ground: Ground, occupancy: Occupancy, rng: np.random.Generator) -> None:
        super().__init__(road, ground, occupancy, rng)
        self._count = dict.fromkeys(_GAPS_M, 0)

    def _gap_m(self, part: str) -> float:
        """Metres to the next tall vehicle; every platoon ends with a gap as usual."""
        self._count[part] += 1
        return super()._gap_m(part) if self._count[part] % self.platoon == 0 else float(self.rng.uniform(*self.close_m))
