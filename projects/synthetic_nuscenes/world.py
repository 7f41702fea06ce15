"""World stage, the oracle: `build_world(preset, seed)` in, scenes with every pose exact at any time out (world)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.forecast_world import build_forecast_scene
from projects.synthetic_nuscenes.motion import RoadMotion, SpeedProfile
from projects.synthetic_nuscenes.naming import random_stream
from projects.synthetic_nuscenes.occlusion import CONVOY_SPEED_MPS, LongOcclusionPopulator, OcclusionPopulator
from projects.synthetic_nuscenes.overlap import Occupancy
from projects.synthetic_nuscenes.populate import Populator, Zone
from projects.synthetic_nuscenes.road import Ground, Road, build_road
from projects.synthetic_nuscenes.scene import EGO_CENTER_AHEAD_M, EGO_SIZE_LW_M, Scene
from projects.synthetic_nuscenes.scenery import SceneryBuilder
from projects.synthetic_nuscenes.settings import SCENE_KINDS, SLOPED_SCENES, Settings, make_settings

_BEHIND_M, _AHEAD_M, _FILLED_M = 110.0, 110.0, 62.0
_TURN_RADIUS_M = 17.0
_PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    'left_turn': ((0.0, 4.5, 7.0, 9.0, 11.0), (7.0, 7.0, 11.0, 11.0, 7.0)),
    'right_turn': ((0.0, 4.5, 7.0, 9.0, 11.0), (7.0, 7.0, 11.0, 11.0, 7.0)),
    'braking': ((0.0, 0.5, 3.0, 6.0, 9.0), (8.0, 8.0, 0.0, 0.0, 8.0)),
    'bends': ((0.0,), (9.0,)),
    'fast': ((0.0, 2.0, 12.0), (13.0, 15.0, 15.0)),
    'starting': ((0.0, 1.0, 5.0), (0.0, 0.0, 9.0)),
    'cruise': ((0.0,), (5.5,)),
}
_STOP_AND_GO_PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    'left_turn': ((0.0, 6.0, 8.0, 10.5, 12.5), (6.0, 6.0, 0.0, 0.0, 6.0)),
    'right_turn': ((0.0, 5.0, 7.0, 10.0, 12.0, 17.0, 19.0), (5.0, 5.0, 0.0, 0.0, 7.0, 7.0, 0.0)),
    'braking': ((0.0, 2.0, 4.0, 7.0, 9.0, 13.0, 15.0), (7.0, 7.0, 0.0, 0.0, 7.0, 7.0, 0.0)),
    'bends': ((0.0, 8.0, 10.0, 12.0, 14.0), (7.0, 7.0, 0.0, 0.0, 7.0)),
    'fast': ((0.0, 2.0, 12.0), (8.0, 10.0, 10.0)),
    'starting': ((0.0, 4.0, 7.0), (0.0, 0.0, 8.0)),
    'cruise': ((0.0, 6.0, 8.0, 12.0, 14.0), (5.5, 5.5, 0.0, 0.0, 5.5)),
}


@dataclass(frozen=True)
class World:
    """All scenes of a data set."""

    settings: Settings
    scenes: tuple[Scene, ...]

    def scene(self, name: str) -> Scene:
        """Find a scene by name.

        Raises:
            KeyError: no such scene.
        """
        for scene in self.scenes:
            if scene.name == name:
                return scene
        raise KeyError(f'no scene {name!r} in this world')


def _turn(radius_m: float, angle_rad: float) -> list[tuple[float, float, float]]:
    """Road segments of a turn with 3 m of curvature ramp at each end."""
    curvature = np.sign(angle_rad) / radius_m
    arc = abs(angle_rad) * radius_m - 3.0
    return [(3.0, 0.0, curvature), (arc, curvature, curvature), (3.0, curvature, 0.0)]


def _segments(
    kind: str, profile: SpeedProfile, duration_s: float, beyond_m: float
) -> list[tuple[float, float, float]]:
    """Road segments from s = 0 to past the ego's last position; headings stay within a quarter turn of the first."""
    driven = float(profile.distance(duration_s))
    segments: list[tuple[float, float, float]] = []
    length = 0.0
    if kind in ('left_turn', 'right_turn'):
        sign = 1.0 if kind == 'left_turn' else -1.0
        segments.append((1.5, 0.0, 0.0))
        segments += _turn(_TURN_RADIUS_M, sign * np.radians(85))
        length = sum(segment[0] for segment in segments)
        second_s = float(profile.distance(11.5))
        while length < driven:
            segments.append((max(second_s - length, 10.0), 0.0, 0.0))
            sign = -sign
            segments += _turn(_TURN_RADIUS_M, sign * np.radians(80))
            length = sum(segment[0] for segment in segments)
            second_s = length + 40.0
    elif kind == 'bends':
        while length < driven:
            for sign in (1.0, -1.0):
                segments += _turn(45.0, sign * np.radians(35))
            length = sum(segment[0] for segment in segments)
    segments.append((max(driven - length, 0.0) + _AHEAD_M + beyond_m, 0.0, 0.0))
    return segments


def build_scene(settings: Settings, name: str) -> Scene:
    """Build one scene from its own random stream.

    Args:
        settings: of the whole data set.
        name: key of `SCENE_KINDS`, or of `FORECAST_KINDS` in the forecast world.
    """
    if settings.forecast:
        return build_forecast_scene(settings, name)
    rng = random_stream(settings.seed, 'world', name)
    kind = SCENE_KINDS[name]
    profile = SpeedProfile(*(_STOP_AND_GO_PROFILES if settings.occlusion else _PROFILES)[kind])
    duration = settings.duration_s
    # A convoy passes for the whole scene: it starts and ends farther away than the ego can see.
    beyond = 30.0 + (CONVOY_SPEED_MPS[1] * duration if settings.occlusion else 0.0)
    segments = [(_BEHIND_M + beyond, 0.0, 0.0), *_segments(kind, profile, duration, beyond)]
    local = build_road(segments, -_BEHIND_M - beyond)
    shift = np.array([rng.uniform(60, 120), rng.uniform(60, 120)])
    low = np.array([local.x_m.min(), local.y_m.min()])
    road = Road(local.s_m, local.x_m - low[0] + shift[0], local.y_m - low[1] + shift[1], local.heading_rad)
    x0, y0, _ = (float(value) for value in road.at(0.0, 0.0))
    angle = rng.uniform(0, 2 * np.pi)
    grade = rng.uniform(0.012, 0.02) if name in SLOPED_SCENES else 0.0
    ground = Ground(grade * np.cos(angle), grade * np.sin(angle), x0, y0)
    ego_motion = RoadMotion(road, 0.0, 0.0, profile)

    occupancy = Occupancy(np.arange(0.0, duration + 0.05, 0.1) - 0.05)
    ego_track = np.stack(ego_motion.pose(occupancy.times_s), axis=-1)
    ego_track[:, :2] += EGO_CENTER_AHEAD_M * np.stack([np.cos(ego_track[:, 2]), np.sin(ego_track[:, 2])], -1)
    occupancy.try_add(ego_track, EGO_SIZE_LW_M, 0.0)
    driven = float(profile.distance(duration))
    zone = Zone(-_FILLED_M, driven + _FILLED_M, settings.parked_density)
    streets = LongOcclusionPopulator if settings.long_occlusion else OcclusionPopulator
    populator = (streets if settings.occlusion else Populator)(road, ground, occupancy, rng)
    populator.populate(zone, profile, duration)
    scenery = SceneryBuilder(road, ground, occupancy, rng)
    scenery.add_walls(-_FILLED_M, driven + _FILLED_M)
    scenery.add_buildings(-_BEHIND_M, driven + _AHEAD_M)
    scenery.add_vegetation(-_FILLED_M, driven + _FILLED_M)
    size = (float(np.ceil(road.x_m.max() + 80)), float(np.ceil(road.y_m.max() + 80)))
    return Scene(
        name, kind, duration, road, ground, ego_motion, tuple(populator.agents), tuple(scenery.solids), size
    )


def build_world(preset: str | Settings, seed: int = 0) -> World:
    """The truth behind a data set.

    Args:
        preset: a preset's name, or the settings themselves (then `seed` is ignored).
        seed: world seed.

    Raises:
        ValueError: unknown preset or a bad value.
    """
    settings = preset if isinstance(preset, Settings) else make_settings(preset, seed)
    return World(settings, tuple(build_scene(settings, name) for name in settings.scene_names))
