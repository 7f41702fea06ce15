"""Export, numpy alone. In: decoded boxes of a frame, what the description says of them. Out: the boxes that the detector gives.

As mmdet3d's CenterHead does it after decoding: scores, range, NMS from above by task, range again; then bottom centres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def boxes_of(found: Arrays, rule: Mapping[str, Any]) -> Arrays:
    """The boxes of one frame.

    Args:
        found: boxes (N, 9) x, y, z of the gravity centre, l, w, h, yaw, vx, vy; scores and labels (N,); further (N,) arrays.
        rule: `boxes` of export.json.

    Returns:
        The same arrays of the boxes that stay, by task and falling scores; z is that of the bottom, as in LiDARInstance3DBoxes.
    """
    centres, scores = found['boxes'][:, :3], found['scores']
    kept = _within(centres, rule['centre_range']) & (scores > rule['score_above'])
    if rule['nms'] is not None:
        kept &= scores >= rule['nms']['score_at_least']
        places = np.concatenate([_nms(found, kept, task, classes, rule['nms']) for task, classes in enumerate(rule['tasks'])])
        places = places[_within(centres[places], rule['nms']['centre_range'])]
    else:
        places = np.flatnonzero(kept)
    chosen = {name: array[places] for name, array in found.items()}
    chosen['boxes'] = chosen['boxes'].copy()
    chosen['boxes'][:, 2] -= chosen['boxes'][:, 5] * np.float32(0.5)
    return chosen


def _within(centres: np.ndarray, span: Sequence[float] | None) -> np.ndarray:
    if not span:
        return np.ones(len(centres), dtype=bool)
    low, high = np.asarray(span, dtype=np.float32).reshape(2, 3)
    return ((centres >= low) & (centres <= high)).all(axis=1)


def _nms(found: Arrays, kept: np.ndarray, task: int, classes: Sequence[int], rule: Mapping[str, Any]) -> np.ndarray:
    """Places of a task's boxes that stay, falling scores."""
    places = np.flatnonzero(kept & np.isin(found['labels'], classes))
    places = places[np.argsort(-found['scores'][places], kind='stable')]
    boxes = found['boxes'][places]
    if rule['type'] == 'circle':
        stay = suppress(boxes, lambda one, others: np.square(others[:, :2] - one[:2]).sum(1) <= rule['min_radius'][task])
    else:
        places, boxes = places[:rule['pre_max_size']], boxes[:rule['pre_max_size']]
        stay = suppress(boxes, lambda one, others: overlaps(one, others) >= rule['iou'])
    return places[stay[:rule['post_max_size']]]


def suppress(boxes: np.ndarray, hides: Any) -> np.ndarray:
    """Places of the boxes (N, 9), best first, that no better one that stays hides.

    Args:
        hides: (box (9,), worse boxes (M, 9)) -> (M,) bool.
    """
    waiting, stay = np.arange(len(boxes)), []
    while len(waiting):
        stay.append(waiting[0])
        waiting = waiting[1:][~hides(boxes[waiting[0]], boxes[waiting[1:]])]
    return np.array(stay, dtype=np.int64)


def overlaps(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of rectangles seen from above: a box (7+,) with others (M, 7+) -> (M,)."""
    reach = np.hypot(one[3], one[4]) / 2 + np.hypot(others[:, 3], others[:, 4]) / 2
    near = np.flatnonzero(np.hypot(*(others[:, :2] - one[:2]).T) < reach)
    shares = np.zeros(len(others))
    for place in near:
        other = others[place]
        common = _area(_clipped(_corners(other, one), _corners(one, one)))
        shares[place] = common / (float(one[3]) * one[4] + float(other[3]) * other[4] - common)
    return shares


def _corners(box: np.ndarray, origin: np.ndarray) -> list[tuple[float, float]]:
    """Counter-clockwise, relative to `origin`."""
    x, y, length, width, yaw = (float(box[column]) for column in (0, 1, 3, 4, 6))
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return [(x - float(origin[0]) + along * length / 2 * cosine - across * width / 2 * sine,
             y - float(origin[1]) + along * length / 2 * sine + across * width / 2 * cosine)
            for along, across in ((1, 1), (-1, 1), (-1, -1), (1, -1))]


def _clipped(polygon: list[tuple[float, float]], by: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A convex polygon cut by another (Sutherland and Hodgman, 1974)."""
    for (x, y), (to_x, to_y) in zip(by, by[1:] + by[:1]):
        sides = [(to_x - x) * (q - y) - (to_y - y) * (p - x) for p, q in polygon]  # left is inside
        cut = []
        for number, (here, side) in enumerate(zip(polygon, sides)):
            last, last_side = polygon[number - 1], sides[number - 1]
            if (side >= 0) != (last_side >= 0):
                share = last_side / (last_side - side)
                cut.append((last[0] + share * (here[0] - last[0]), last[1] + share * (here[1] - last[1])))
            if side >= 0:
                cut.append(here)
        polygon = cut
    return polygon


def _area(polygon: list[tuple[float, float]]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, polygon[1:] + polygon[:1])) / 2
