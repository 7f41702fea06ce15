"""Demo, viewer. In: truth of an info, entries of a result file, a detector's boxes. Out: boxes in LiDAR coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from projects.memfusion.visualization import BoxSet

OTHER = 'other'
"""What carries a label that is none of the classes'."""


@dataclass(frozen=True)
class ViewedBoxes:
    """N boxes of one frame, LiDAR coordinates, metres.

    Attributes:
        centre_m: (N, 3) middles.
        size_m: (N, 3) length, width, height.
        quaternion_xyzw: (N, 4) lidar_from_box: x along the length.
        names: of the classes.
        velocity_mps: (N, 3), NaN where nobody knows.
        scores: (N,) in 0..1; None for truth.
        tracks: which object each is, '' where nobody knows.
        hidden: (N,) bool: truth without a LiDAR point now, predictions that are likelier hidden than seen.
    """

    centre_m: np.ndarray
    size_m: np.ndarray
    quaternion_xyzw: np.ndarray
    names: tuple[str, ...]
    velocity_mps: np.ndarray
    scores: np.ndarray | None
    tracks: tuple[str, ...]
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def keep(self, mask: np.ndarray) -> ViewedBoxes:
        """The boxes where `mask` (N,) bool is True."""
        rows = np.flatnonzero(mask)
        return ViewedBoxes(
            self.centre_m[rows], self.size_m[rows], self.quaternion_xyzw[rows], tuple(self.names[row] for row in rows),
            self.velocity_mps[rows], None if self.scores is None else self.scores[rows],
            tuple(self.tracks[row] for row in rows), self.hidden[rows])

    @property
    def labels(self) -> list[str]:
        """What stands at the boxes: the class, with its score where there is one."""
        if self.scores is None:
            return list(self.names)
        return [f'{name} {score:.2f}' for name, score in zip(self.names, self.scores)]


def boxes_of_info(info: Mapping[str, Any], categories: Mapping[int, str]) -> ViewedBoxes | None:
    """The truth, hidden objects and other classes included; None where the info has none (v1.0-test)."""
    instances = info.get('instances')
    if instances is None:
        return None
    boxes = np.array([one['bbox_3d'][:7] for one in instances], dtype=np.float64).reshape(-1, 7)
    velocity = np.array([[*one.get('velocity', (np.nan, np.nan)), 0.0] for one in instances]).reshape(-1, 3)
    return ViewedBoxes(
        boxes[:, :3], boxes[:, 3:6], _upright(boxes[:, 6]),
        tuple(categories.get(one['bbox_label_3d'], OTHER) for one in instances), velocity, None,
        tuple(one.get('instance_token', '') for one in instances),
        np.array([one.get('num_lidar_pts', 1) == 0 for one in instances], dtype=bool))


def boxes_of_set(boxes: BoxSet, class_names: Sequence[str]) -> ViewedBoxes:
    """What a detector gave; mmdet3d's boxes begin with their bottoms' middles."""
    box, count = boxes.boxes, len(boxes)
    centre_m = box[:, :3] + np.stack([0 * box[:, 5], 0 * box[:, 5], box[:, 5] / 2], axis=1)
    velocity = np.zeros((count, 3))
    velocity[:, :2] = box[:, 7:9] if box.shape[1] >= 9 else np.nan
    labels = np.zeros(count, np.int64) if boxes.labels is None else boxes.labels
    return ViewedBoxes(
        centre_m, box[:, 3:6], _upright(box[:, 6]), tuple(class_names[label] for label in labels), velocity, boxes.scores,
        ('',) * count, np.zeros(count, bool) if boxes.seen is None else boxes.seen < 0.5)


def boxes_of_results(entries: Sequence[Mapping[str, Any]], global_from_lidar: np.ndarray) -> ViewedBoxes:
    """One sample's entries of a submission, of detection or of tracking, whose boxes are in the global frame.

    Args:
        global_from_lidar: (4, 4) float64.
    """
    turn = global_from_lidar[:3, :3]
    centre_m = np.array([one['translation'] for one in entries], dtype=np.float64).reshape(-1, 3)
    wlh = np.array([one['size'] for one in entries], dtype=np.float64).reshape(-1, 3)
    wxyz = np.array([one['rotation'] for one in entries], dtype=np.float64).reshape(-1, 4)
    velocity = np.array([[*one.get('velocity', (np.nan, np.nan))[:2], 0.0] for one in entries]).reshape(-1, 3)
    quaternion = np.zeros((0, 4))
    if len(entries):
        quaternion = (Rotation.from_matrix(turn.T) * Rotation.from_quat(wxyz[:, [1, 2, 3, 0]])).as_quat()
    return ViewedBoxes(
        (centre_m - global_from_lidar[:3, 3]) @ turn, wlh[:, [1, 0, 2]], quaternion,
        tuple(_named(one, 'name') for one in entries), velocity @ turn,
        np.array([_named(one, 'score') for one in entries], dtype=np.float64),
        tuple(str(one.get('tracking_id', '')) for one in entries),
        np.array([one.get('seen_score', 1.0) < 0.5 for one in entries], dtype=bool))


def _named(entry: Mapping[str, Any], what: str) -> Any:
    return entry[f'detection_{what}'] if f'detection_{what}' in entry else entry[f'tracking_{what}']


def _upright(yaw_rad: np.ndarray) -> np.ndarray:
    """(N, 4) x, y, z, w of turns about z."""
    zero = np.zeros_like(yaw_rad)
    return np.stack([zero, zero, np.sin(yaw_rad / 2), np.cos(yaw_rad / 2)], axis=1)
