"""Demo. In: points, truth and predicted boxes (LiDAR frame, mmdet3d's tensors). Out: the keyframe's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.memfusion.metrics.box_tables import PredictionTable, TruthTable
from projects.memfusion.metrics.matching import candidate_pairs, match, score_order

SYMMETRIC = ('barrier',)  # nuScenes: turned by 180 degrees they are the same
WITHOUT_YAW = ('traffic_cone',)
MATCH_DISTANCE_M = 2.0
MIN_SCORE = 0.3
MIN_POINTS = 5


@dataclass(frozen=True)
class KeyframeScore:
    """What the tool prints; `failures` says which figures miss the mark."""

    recall_2m: float
    precision: float
    yaw_error_deg: float
    box_points_error: float
    objects: int

    def line(self) -> str:
        """The tool's last line."""
        return (f'keyframe: recall_2m={self.recall_2m:.2f} precision={self.precision:.2f} '
                f'yaw_error_deg={self.yaw_error_deg:.1f} box_points_error={self.box_points_error:.2f} '
                f'objects={self.objects}')

    def failures(self) -> list[str]:
        """One sentence for each figure that misses the mark; NaN misses it."""
        marks = (
            (self.recall_2m >= 0.9, f'recall_2m {self.recall_2m:.3f} is below 0.9'),
            (self.precision >= 0.7, f'precision {self.precision:.3f} is below 0.7'),
            (self.yaw_error_deg < 10, f'yaw_error_deg {self.yaw_error_deg:.2f} is not under 10'),
            (self.box_points_error <= 0.04, f'box_points_error {self.box_points_error:.4f} is above 0.04: the boxes '
             'do not lie on their points'))
        return [text for passed, text in marks if not passed]


def box_points_error(counted: np.ndarray, given: np.ndarray) -> float:
    """Sum over boxes of |counted - given| / sum of given: errors of different boxes cannot cancel.

    Raises:
        ValueError: where no box has a point.
    """
    if given.sum() == 0:
        raise ValueError('no annotated box has a LiDAR point (num_lidar_pts is 0 everywhere)')
    return float(np.abs(counted - given).sum() / given.sum())


def match_greedily(truth: np.ndarray, truth_labels: np.ndarray, boxes: np.ndarray, labels: np.ndarray,
                   scores: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (truth, prediction) by falling score, by the official rule: the nearest free truth of the class nearer than 2 m."""
    every, zero = np.ones(len(truth), dtype=bool), np.zeros(len(truth), dtype=np.int64)
    table = TruthTable(zero, zero, zero, truth_labels, truth[:, :3], zero, zero, every)
    predictions = PredictionTable(np.zeros(len(boxes), dtype=np.int64), labels, boxes[:, :3], scores)
    found = match(candidate_pairs(table, predictions, MATCH_DISTANCE_M), MATCH_DISTANCE_M, every, ~every)
    return [(int(found[index]), int(index)) for index in score_order(scores) if found[index] >= 0]


def yaw_errors_deg(truth_yaw: np.ndarray, yaw: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Angles between headings, 0..180 degrees, of M pairs with these classes.

    Barriers count modulo 180 degrees; cones, which have no heading, are left out.
    """
    names = np.asarray(class_names, dtype=object)
    period = np.where(np.isin(names, SYMMETRIC), np.pi, 2 * np.pi)
    off = np.abs((yaw - truth_yaw + period / 2) % period - period / 2)
    return np.rad2deg(off[~np.isin(names, WITHOUT_YAW)])


def score_keyframe(
    truth: np.ndarray,
    truth_labels: np.ndarray,
    num_lidar_pts: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    points_error: float,
    class_names: Sequence[str],
    range_m: Sequence[float],
) -> KeyframeScore:
    """Detection figures of one keyframe, of what lies within the range.

    Args:
        truth: (N, 7+) all annotated boxes, truth_labels (N,) with -1 for other objects, num_lidar_pts (N,).
        boxes: (M, 7+) predictions, labels (M,), scores (M,).
        points_error: what box_points_error gave.
        class_names: names of the labels.
        range_m: point_cloud_range.

    Recall is of truth with at least 5 points; precision counts a prediction (score above 0.3) as true when it takes a
    truth with at least one point. 0 predictions have precision 0 and a yaw error of NaN.
    """
    seen = (num_lidar_pts > 0) & (truth_labels >= 0) & _inside(truth, range_m)
    truth, truth_labels, num_lidar_pts = truth[seen], truth_labels[seen], num_lidar_pts[seen]
    sure = (scores > MIN_SCORE) & _inside(boxes, range_m)
    boxes, labels, scores = boxes[sure], labels[sure], scores[sure]
    pairs = np.asarray(match_greedily(truth, truth_labels, boxes, labels, scores), dtype=np.int64).reshape(-1, 2)
    wanted = num_lidar_pts >= MIN_POINTS
    found = np.isin(np.arange(len(truth)), pairs[:, 0])
    errors = yaw_errors_deg(truth[pairs[:, 0], 6], boxes[pairs[:, 1], 6],
                            [class_names[label] for label in truth_labels[pairs[:, 0]]])
    return KeyframeScore(
        recall_2m=float(found[wanted].mean()) if wanted.any() else float('nan'),
        precision=len(pairs) / len(boxes) if len(boxes) else 0.0,
        yaw_error_deg=float(np.median(errors)) if len(errors) else float('nan'),
        box_points_error=points_error, objects=int(wanted.sum()))


def _inside(boxes: np.ndarray, range_m: Sequence[float]) -> np.ndarray:
    x, y = boxes[:, 0], boxes[:, 1]
    return (x >= range_m[0]) & (x < range_m[3]) & (y >= range_m[1]) & (y < range_m[4])
