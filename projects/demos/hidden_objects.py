"""Demo, what is hidden. In: infos of a scene, predictions. Out: true boxes that held a point and hold none now, who found them.

Boxes are in the frame's LiDAR coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from projects.memfusion.metrics.box_tables import Ints, PredictionTable, TruthTable
from projects.memfusion.metrics.hidden_strata import last_seen
from projects.memfusion.metrics.matching import candidate_pairs, match
from projects.memfusion.visualization import BoxSet

MATCH_M = 2.0
"""A prediction finds truth of its class nearer than this, as recall in docs/metrics.md."""


@dataclass(frozen=True)
class HiddenObjects:
    """Of one frame; k rows.

    Attributes:
        boxes: of objects that hold no LiDAR point now and did in an earlier keyframe of the scene.
        gap_frames: (k,) keyframes since then.
        gap_s: (k,) seconds.
    """

    boxes: BoxSet
    gap_frames: Ints
    gap_s: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


def hidden_objects(infos: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]) -> list[HiddenObjects]:
    """Per info, what is hidden in it; nothing in infos without truth, or whose instances have no name to follow them by.

    Args:
        infos: of one whole scene.
        label_of: class number of the info file -> of the detector; others are left out (`dataset.label_mapping`).
    """
    instances = [instance for info in infos for instance in info.get('instances') or ()]
    if any('instance_token' not in instance for instance in instances):
        infos = [{**info, 'instances': []} for info in infos]
    infos = [{**info, 'instances': info.get('instances') or []} for info in infos]
    found = []
    for info, (gap_us, gap_frames) in zip(infos, last_seen(infos)):
        labels = np.array([label_of.get(instance['bbox_label_3d'], -1) for instance in info['instances']], dtype=np.int64)
        points = np.array([instance['num_lidar_pts'] for instance in info['instances']], dtype=np.int64)
        rows = np.flatnonzero((labels >= 0) & (points == 0) & (gap_us > 0))
        boxes = np.array([box_of(info['instances'][row]) for row in rows], dtype=np.float64).reshape(-1, 7)
        found.append(HiddenObjects(BoxSet(boxes, labels[rows]), gap_frames[rows], gap_us[rows] / 1e6))
    return found


def box_of(instance: Mapping[str, Any]) -> list[float]:
    """An info's box, which begins with its middle, as mmdet3d's (7,), which begins with its bottom's."""
    x, y, z, length, width, height, yaw = instance['bbox_3d'][:7]
    return [x, y, z - height / 2, length, width, height, yaw]


def finders(hidden: HiddenObjects, visible: BoxSet | None, predictions: BoxSet) -> Ints:
    """(k,) row of the prediction that found each hidden object, -1 where none did.

    The official rule: predictions choose in descending order of score, among what is visible and what is hidden.
    """
    sets = [hidden.boxes] if visible is None else [hidden.boxes, visible]
    centre_m = np.concatenate([boxes.boxes[:, :3] for boxes in sets])
    labels = np.concatenate([np.zeros(len(boxes), np.int64) if boxes.labels is None else boxes.labels for boxes in sets])
    zero, every = np.zeros(len(labels), np.int64), np.ones(len(labels), bool)
    truth = TruthTable(zero, zero, np.arange(len(labels)), labels, centre_m, zero, zero, every)
    rows = np.zeros(len(predictions), np.int64)
    scores = np.ones(len(predictions)) if predictions.scores is None else predictions.scores
    table = PredictionTable(rows, rows if predictions.labels is None else predictions.labels, predictions.boxes[:, :3], scores)
    found = match(candidate_pairs(truth, table, MATCH_M), MATCH_M, every, ~every)
    answer = np.full(len(labels), -1)
    answer[found[found >= 0]] = np.flatnonzero(found >= 0)
    return answer[:len(hidden)]
