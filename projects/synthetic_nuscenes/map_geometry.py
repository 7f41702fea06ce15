"""World stage: the streets of a forecast scene as a map has them; a scene in, areas and lanes as plain lists out (world).

Lanes between junctions end 8 m before the junction's middle; connectors lead through it. Before a junction a second lane
begins, from which one turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from projects.synthetic_nuscenes.ground_map import KERBS_D_M
from projects.synthetic_nuscenes.road import Road
from projects.synthetic_nuscenes.scene import Scene
from projects.synthetic_nuscenes.scenery import ROAD_EDGES_D_M
from projects.synthetic_nuscenes.streets import (
    LANE_D_M,
    SHIFT_S_M,
    SIDE_LANE_M,
    SIDE_REACH_M,
    SIDE_STREET_HALF_M,
    TURN_D_M,
    TURN_RADIUS_M,
    lane_path,
    turn_path,
)
from projects.synthetic_nuscenes.transforms import FloatArray

SQUARE_M = 8.0
"""A junction reaches so far along the road, to both sides of its middle."""
CROSSWALK_HALF_M = 2.0
_STEP_M = 2.0
_ARC_M = np.pi / 2 * TURN_RADIUS_M
Points = list[list[float]]


def map_content(scene: Scene) -> dict[str, Any]:
    """Areas and lanes.

    Returns:
        `drivable`, `walkways`, `crosswalks`: polygons; `segments`: polygons with `is_intersection`; `dividers`: lines between
        the directions; `stops`: polygons where those wait who have to; `lanes`: dicts of `name`, `path` ([x, y, yaw] every 2 m
        at most), `connector`, `outgoing` (names).
    """
    road, junctions = scene.road, scene.junctions_s_m
    first, last = road.length_range_m
    gaps = [(s - SQUARE_M, s + SQUARE_M) for s in junctions]
    stretches = _between(first, last, gaps)
    arms = [_band(street, ends, (-SIDE_STREET_HALF_M, SIDE_STREET_HALF_M)) for street in scene.side_streets
            for ends in ((-SIDE_REACH_M, ROAD_EDGES_D_M[0]), (ROAD_EDGES_D_M[1], SIDE_REACH_M))]
    squares = [_band(road, gap, ROAD_EDGES_D_M) for gap in gaps]
    openings = [_band(street, ROAD_EDGES_D_M, (-SIDE_STREET_HALF_M, SIDE_STREET_HALF_M)) for street in scene.side_streets]
    pavement_gaps = [(s - SIDE_STREET_HALF_M, s + SIDE_STREET_HALF_M) for s in junctions]
    pavements = [(ROAD_EDGES_D_M[0], KERBS_D_M[0]), (KERBS_D_M[1], ROAD_EDGES_D_M[1])]
    middle = sum(LANE_D_M.values()) / 2
    return {
        'drivable': [_band(road, (first, last), KERBS_D_M), *arms, *openings],
        'walkways': [_band(road, part, sides) for part in _between(first, last, pavement_gaps) for sides in pavements],
        'crosswalks': [_band(road, (s - CROSSWALK_HALF_M, s + CROSSWALK_HALF_M), KERBS_D_M) for s in scene.crosswalks_s_m],
        'segments': [
            *({'polygon': _band(road, part, KERBS_D_M), 'is_intersection': False} for part in stretches),
            *({'polygon': polygon, 'is_intersection': True} for polygon in squares),
            *({'polygon': polygon, 'is_intersection': False} for polygon in arms)],
        'dividers': [_line(road, part, middle) for part in stretches],
        'stops': [_band(road, sorted((s - direction * SQUARE_M, s - direction * (SQUARE_M + 0.6))), sides)
                  for s in junctions for direction, sides in ((1, (KERBS_D_M[0], middle)), (-1, (middle, KERBS_D_M[1])))],
        'lanes': _lanes(scene, junctions),
    }


def _between(first: float, last: float, gaps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    edges = [first, *(edge for gap in gaps for edge in gap), last]
    return list(zip(edges[::2], edges[1::2]))


def _steps(ends: Sequence[float]) -> FloatArray:
    return np.linspace(ends[0], ends[1], max(2, int(np.ceil((ends[1] - ends[0]) / _STEP_M)) + 1))


def _line(road: Road, ends: Sequence[float], d_m: float) -> Points:
    x, y, _ = road.at(_steps(ends), d_m)
    return np.stack([x, y], axis=1).round(4).tolist()


def _band(road: Road, ends: Sequence[float], sides_d_m: Sequence[float]) -> Points:
    """The polygon between two offsets of a line, counter-clockwise."""
    return _line(road, ends, sides_d_m[0]) + _line(road, ends, sides_d_m[1])[::-1]


def _path(road: Road, ends: Sequence[float], d_m: float = 0.0, direction: int = 1) -> Points:
    """[x, y, yaw] along a way; with direction -1 from the second end to the first."""
    s = _steps(ends)[::direction]
    x, y, heading = road.at(s, d_m)
    return np.stack([x, y, heading + (0.0 if direction > 0 else np.pi)], axis=1).round(6).tolist()


def _lanes(scene: Scene, junctions: Sequence[float]) -> list[dict[str, Any]]:
    """Lanes and connectors in travel order; every name in `outgoing` is there."""
    lanes: list[dict[str, Any]] = []

    def add(name: str, path: Points, outgoing: Sequence[str], connector: bool = False) -> None:
        lanes.append({'name': name, 'path': path, 'outgoing': list(outgoing), 'connector': connector})

    for direction, side in ((1, 'right'), (-1, 'left')):
        way = lane_path(scene.road, direction)
        order = list(range(len(junctions)))[::direction]
        begin = way.length_range_m[0]
        for number in order:
            p, key = direction * junctions[number], f'{direction:+d}-{number}'
            turn = turn_path(scene.road, direction, junctions[number])
            arc_end = p - SIDE_LANE_M - TURN_RADIUS_M + _ARC_M
            add(f'far{key}', _path(way, (begin, p + SHIFT_S_M[0])), [f'near{key}', f'turn{key}'])
            add(f'near{key}', _path(way, (p + SHIFT_S_M[0], p - SQUARE_M)), [f'through{key}'])
            add(f'turn{key}', _path(turn, (p + SHIFT_S_M[0], p - SQUARE_M)), [f'right{key}'])
            following = order.index(number) + 1
            after = f'far{direction:+d}-{order[following]}' if following < len(order) else f'end{direction:+d}'
            add(f'through{key}', _path(way, (p - SQUARE_M, p + SQUARE_M)), [after], connector=True)
            add(f'right{key}', _path(turn, (p - SQUARE_M, arc_end)), [f'{side}-out-{number}'], connector=True)
            begin = p + SQUARE_M
        add(f'end{direction:+d}', _path(way, (begin, way.length_range_m[1] - 0.1)), [])
    for number, street in enumerate(scene.side_streets):
        low, high = -SIDE_REACH_M, SIDE_REACH_M
        right, left = TURN_D_M[1] - TURN_RADIUS_M, TURN_D_M[-1] + TURN_RADIUS_M  # where those who turn have come round
        add(f'right-out-{number}', _path(street, (low, right), SIDE_LANE_M, -1), [])
        add(f'left-out-{number}', _path(street, (left, high), -SIDE_LANE_M), [])
        add(f'right-in-{number}', _path(street, (low, right), -SIDE_LANE_M), [f'across-left-{number}'])
        add(f'left-in-{number}', _path(street, (left, high), SIDE_LANE_M, -1), [f'across-right-{number}'])
        add(f'across-left-{number}', _path(street, (right, left), -SIDE_LANE_M), [f'left-out-{number}'], connector=True)
        add(f'across-right-{number}', _path(street, (right, left), SIDE_LANE_M, -1), [f'right-out-{number}'], connector=True)
    return lanes
