"""World stage: one scene of the forecast world; settings and a name in, streets, traffic and scenery out."""

from __future__ import annotations

import numpy as np

from projects.synthetic_nuscenes.forecast_streets import WARM_UP_S, ForecastPopulator, standing_ego
from projects.synthetic_nuscenes.motion import RoadMotion
from projects.synthetic_nuscenes.naming import random_stream
from projects.synthetic_nuscenes.overlap import Occupancy
from projects.synthetic_nuscenes.populate import Zone
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.scene import EGO_CENTER_AHEAD_M, EGO_SIZE_LW_M, Scene
from projects.synthetic_nuscenes.scenery import SceneryBuilder
from projects.synthetic_nuscenes.settings import FORECAST_KINDS, Settings
from projects.synthetic_nuscenes.streets import SIDE_REACH_M, lane_path, make_layout, side_street
from projects.synthetic_nuscenes.traffic import Vehicle
from projects.synthetic_nuscenes.transforms import FloatArray

LOCATIONS = ('singapore-onenorth', 'singapore-hollandvillage', 'singapore-queenstown', 'boston-seaport')
"""The four maps that nuscenes-devkit knows, with sizes that it knows as well; each holds several scenes, side by side."""
EGO_WATCH_D_M = -8.4
EGO_LENGTH_M = 4.1
_PLOT_M = (720.0, 430.0)
_COLUMNS = 2
_FILLED_M, _BEHIND_M = 62.0, 190.0
_SQUARE_M = 34.0


def _place(local: Road, number: int) -> tuple[Road, tuple[float, float], str]:
    """The road on its plot of its map, the plot's corner, and the map's name."""
    location, plot = LOCATIONS[number % len(LOCATIONS)], number // len(LOCATIONS)
    corner = np.array([plot % _COLUMNS * _PLOT_M[0], plot // _COLUMNS * _PLOT_M[1]]) + 40.0
    low = np.array([local.x_m.min(), local.y_m.min()])
    shift = corner + SIDE_REACH_M - low
    return Road(local.s_m, local.x_m + shift[0], local.y_m + shift[1], local.heading_rad), (corner[0], corner[1]), location


def build_forecast_scene(settings: Settings, name: str) -> Scene:
    """Build one scene from its own random stream.

    In a 'junction' scene the ego stands beside the road and watches a junction; in a 'traffic' scene it drives along.

    Args:
        settings: of the whole data set.
        name: key of `FORECAST_KINDS`.
    """
    rng = random_stream(settings.seed, 'forecast', name)
    kind, duration = FORECAST_KINDS[name], settings.duration_s
    drives = kind == 'traffic'
    to_junction = float(rng.uniform(16.0, 24.0) if not drives else rng.uniform(30.0, 90.0))
    reach = 8.0 * duration if drives else 0.0
    layout = make_layout(rng, _BEHIND_M, reach + _BEHIND_M, to_junction)
    road, corner, location = _place(layout.road, list(FORECAST_KINDS).index(name))
    layout = type(layout)(road, layout.junctions_s_m, layout.crosswalks_s_m)
    ground = Ground(0.0, 0.0, 0.0, 0.0)
    occupancy = Occupancy(np.arange(0.0, duration + 0.05, 0.1) - 0.05)
    populator = ForecastPopulator(layout, ground, occupancy, rng)
    zone = Zone(-_FILLED_M, reach + _FILLED_M, settings.parked_density)
    ego_path = lane_path(road, 1)
    ego = Vehicle(ego_path, 1, -6.0 * WARM_UP_S, 6.0, EGO_LENGTH_M, 'car') if drives else None
    ego_motion = standing_ego(road, EGO_WATCH_D_M)
    if ego is None:
        _keep_free(occupancy, ego_motion)
    profile = populator.populate_streets(zone, duration, ego)
    if ego is not None and profile is not None:
        ego_motion = RoadMotion(ego_path, ego.start_m - EGO_CENTER_AHEAD_M, 0.0, profile)
        _keep_free(occupancy, ego_motion)
    for s in layout.junctions_s_m:
        _clear_square(occupancy, side_street(road, s))
    scenery = SceneryBuilder(road, ground, occupancy, rng)
    scenery.add_walls(zone.first_s_m, zone.last_s_m)
    scenery.add_buildings(zone.first_s_m - 20, zone.last_s_m + 20)
    scenery.add_vegetation(zone.first_s_m, zone.last_s_m)
    size = (float(np.ceil(road.x_m.max() + SIDE_REACH_M)), float(np.ceil(road.y_m.max() + SIDE_REACH_M)))
    return Scene(
        name, kind, duration, road, ground, ego_motion, tuple(populator.agents), tuple(scenery.solids), size,
        corner, location, layout.junctions_s_m, layout.crosswalks_s_m, populator.logs)


def _keep_free(occupancy: Occupancy, ego: RoadMotion) -> None:
    track = np.stack(ego.pose(occupancy.times_s), axis=-1)
    track[:, :2] += EGO_CENTER_AHEAD_M * np.stack([np.cos(track[:, 2]), np.sin(track[:, 2])], -1)
    occupancy.try_add(track, EGO_SIZE_LW_M, 0.0)


def _clear_square(occupancy: Occupancy, street: Road) -> None:
    """Nothing is built on the corners of a junction, so that one sees who comes along the side street."""
    x, y, heading = street.at(0.0, 0.0)
    block: FloatArray = np.array([[float(x), float(y), float(heading)]])
    occupancy.reserve(block, (2 * SIDE_REACH_M, _SQUARE_M))
