"""Writing stage: map files that the devkit's `NuScenesMap` reads (expansion 1.3); streets in, `maps/expansion/` out.

A file for each of the devkit's four locations, because its metrics and rasterizers load all of them; one without a scene is
empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from projects.synthetic_nuscenes.naming import token
from projects.synthetic_nuscenes.transforms import FloatArray

MAP_VERSION = '1.3'
MAPS = 'map_expansion'
"""Name of a scene's rows that are no table."""
CANVAS_EDGES_M: dict[str, tuple[float, float]] = {
    'singapore-onenorth': (1585.6, 2025.0),
    'singapore-hollandvillage': (2808.3, 2922.9),
    'singapore-queenstown': (3228.6, 3687.1),
    'boston-seaport': (2979.5, 2118.1),
}
"""Sizes that the devkit has in its code."""
LANE_HALF_M = 1.75
_LAYERS = (
    'polygon', 'line', 'node', 'drivable_area', 'road_segment', 'road_block', 'lane', 'ped_crossing', 'walkway', 'stop_line',
    'carpark_area', 'road_divider', 'lane_divider', 'traffic_light', 'lane_connector',
)
_STRAIGHT_PER_M = 1e-5


class MapFile:
    """Collects the records of one location."""

    def __init__(self, location: str, seed: int) -> None:
        self.location, self.seed = location, seed
        self.layers: dict[str, list[dict[str, Any]]] = {name: [] for name in _LAYERS}
        self.arcs: dict[str, list[dict[str, Any]]] = {}
        self.connectivity: dict[str, dict[str, list[str]]] = {}

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        edge = list(CANVAS_EDGES_M[self.location])
        return {'version': MAP_VERSION, 'canvas_edge': edge, **self.layers, 'arcline_path_3': self.arcs,
                'connectivity': self.connectivity}

    def add_scene(self, name: str, content: Mapping[str, Any]) -> None:
        """Add what `map_content` says of a scene."""
        for polygon in content['drivable']:
            self._add('drivable_area', polygon_tokens=[self._polygon(polygon)])
        segments = [self._add('road_segment', polygon_token=self._polygon(part['polygon']), drivable_area_token='',
                              is_intersection=part['is_intersection']) for part in content['segments']]
        for polygon in content['walkways']:
            self._add('walkway', polygon_token=self._polygon(polygon))
        for polygon in content['crosswalks']:
            self._add('ped_crossing', polygon_token=self._polygon(polygon), road_segment_token=segments[0])
        for polygon in content['stops']:
            self._add('stop_line', polygon_token=self._polygon(polygon), stop_line_type='YIELD', ped_crossing_tokens=[],
                      traffic_light_tokens=[], road_block_token='')
        for line in content['dividers']:
            self._add('road_divider', line_token=self._line(line), road_segment_token=segments[0])
        self._add_lanes(name, content['lanes'])

    def _add_lanes(self, scene: str, lanes: Sequence[Mapping[str, Any]]) -> None:
        names = {lane['name']: token(self.seed, scene, 'lane', lane['name']) for lane in lanes}
        for key in names.values():
            self.connectivity[key] = {'incoming': [], 'outgoing': []}
        for lane in lanes:
            own = names[lane['name']]
            for following in lane['outgoing']:
                self.connectivity[own]['outgoing'].append(names[following])
                self.connectivity[names[following]]['incoming'].append(own)
            path = np.array(lane['path'])
            self.arcs[own] = arcline_path(path)
            left, right = (_beside(path, side * LANE_HALF_M) for side in (1, -1))
            polygon = self._polygon(right.tolist() + left[::-1].tolist())
            if lane['connector']:
                self.layers['lane_connector'].append({'token': own, 'polygon_token': polygon})
                continue
            edges = [self._line([left[end].tolist(), right[end].tolist()]) for end in (0, -1)]
            sides = [[{'node_token': self._node(point), 'segment_type': 'SINGLE_SOLID_WHITE'} for point in side.tolist()]
                     for side in (left, right)]
            self.layers['lane'].append({
                'token': own, 'polygon_token': polygon, 'lane_type': 'CAR', 'from_edge_line_token': edges[0],
                'to_edge_line_token': edges[1], 'left_lane_divider_segments': sides[0],
                'right_lane_divider_segments': sides[1]})

    def _add(self, layer: str, **fields: Any) -> str:
        key = token(self.seed, self.location, layer, len(self.layers[layer]))
        self.layers[layer].append({'token': key, **fields})
        return key

    def _node(self, point: Sequence[float]) -> str:
        return self._add('node', x=float(point[0]), y=float(point[1]))

    def _polygon(self, points: Sequence[Sequence[float]]) -> str:
        return self._add('polygon', exterior_node_tokens=[self._node(point) for point in points], holes=[])

    def _line(self, points: Sequence[Sequence[float]]) -> str:
        return self._add('line', node_tokens=[self._node(point) for point in points])


def _beside(path: FloatArray, d_m: float) -> FloatArray:
    return path[:, :2] + d_m * np.stack([-np.sin(path[:, 2]), np.cos(path[:, 2])], axis=1)


def arcline_path(path: FloatArray) -> list[dict[str, Any]]:
    """A way as the devkit's arc line paths: one piece of constant curvature between neighbouring points, straight ones joined.

    Args:
        path: (N, 3) x, y, yaw; N of 2 or more.
    """
    pieces: list[dict[str, Any]] = []
    chords = np.hypot(*np.diff(path[:, :2], axis=0).T)
    turns = (np.diff(path[:, 2]) + np.pi) % (2 * np.pi) - np.pi
    curvatures = turns / chords
    start = 0
    while start < len(chords):
        end = start + 1
        if abs(curvatures[start]) < _STRAIGHT_PER_M:
            while end < len(chords) and abs(curvatures[end]) < _STRAIGHT_PER_M:
                end += 1
            shape, radius, lengths = 'LSL', 999.999, [0.0, float(chords[start:end].sum()), 0.0]
        else:
            half = turns[start] / 2
            shape = 'LSL' if half > 0 else 'RSR'
            length = float(chords[start] * half / np.sin(half))  # of the arc over this chord
            radius, lengths = abs(length / turns[start]), [length, 0.0, 0.0]
        pieces.append({'start_pose': path[start].tolist(), 'end_pose': path[end].tolist(), 'shape': shape,
                       'radius': float(radius), 'segment_length': lengths})
        start = end
    return pieces


def write_maps(root: Path, seed: int, scenes: Sequence[Mapping[str, Any]]) -> None:
    """Write `maps/expansion/LOCATION.json` of all four locations.

    Args:
        root: folder of the data set.
        seed: of the world.
        scenes: dicts of `scene` (name), `location` and `content` (what `map_content` gives).
    """
    files = {location: MapFile(location, seed) for location in CANVAS_EDGES_M}
    for row in scenes:
        files[row['location']].add_scene(row['scene'], row['content'])
    folder = root / 'maps' / 'expansion'
    folder.mkdir(parents=True, exist_ok=True)
    for location, file in files.items():
        (folder / f'{location}.json').write_text(json.dumps(file.to_json()))
