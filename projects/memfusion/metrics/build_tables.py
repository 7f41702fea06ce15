"""Metric. In: infos and predictions in the LiDAR frame. Out: tables in the global frame of what the official score counts.

Frames are in the infos' order. Poses are used as the official score uses them, so that the same boxes fall on the same
side of each threshold: truth by the tables' float64 poses, predictions as a submission is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.structures import LiDARInstance3DBoxes
from nuscenes.eval.detection.config import config_factory
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion

from projects.memfusion.structures.box_scores import SEEN

from .box_tables import Bools, Floats, Ints, PredictionTable, TruthTable
from .hidden_strata import HiddenFacts, ego_motion, last_seen

_REMEDY = 'make the info file again with `python tools/create_data.py nuscenes --root-path DIR --version VERSION`'
_INFO_KEYS = {'token', 'scene_token', 'frame_index', 'ego2global', 'global_from_lidar', 'lidar_points', 'instances'}
_LIDAR_KEYS = {'timestamp', 'lidar2ego'}
_INSTANCE_KEYS = {'instance_token', 'bbox_3d', 'bbox_label_3d', 'num_lidar_pts', 'num_radar_pts'}


class OfficialFilter:
    """The boxes that the official score looks at: near the ego, and no bicycle or motorcycle in a bicycle rack.

    Args:
        classes: names of the ten nuScenes detection classes, or some of them, in the order of the labels.
        range_m: a box counts if its centre is nearer to the ego (not the LiDAR) than this and than its class's official
            range, on the ground of the global frame; None for the official range alone.
        racks: `{sample_token: boxes}` of bicycle racks in the global frame; a sample without an entry has none.

    Raises:
        ValueError: naming a class that nuScenes does not score.
    """

    def __init__(self, classes: Sequence[str], range_m: float | None, racks: Mapping[str, Sequence[Box]]) -> None:
        official = config_factory('detection_cvpr_2019').class_range
        unknown = [name for name in classes if name not in official]
        if unknown:
            raise ValueError(f'dataset_meta.classes has {unknown[0]!r}, which nuScenes does not score; use some of '
                             f'{", ".join(official)}')
        self.official_range_m = np.array([official[name] for name in classes], dtype=np.float64)
        self.range_m = self.official_range_m if range_m is None else np.minimum(self.official_range_m, range_m)
        self._is_cycle = np.array([name in ('bicycle', 'motorcycle') for name in classes], dtype=bool)
        self._racks = racks

    def keep(self, info: Mapping[str, Any], centre_m: Floats, label: Ints) -> Bools:
        """(n,) which of a frame's boxes, with centres (n, 3) in the global frame and labels (n,), count."""
        lidar_from_ego = np.linalg.inv(np.array(info['lidar_points']['lidar2ego'], dtype=np.float64))
        ego_m = (np.array(info['global_from_lidar'], dtype=np.float64) @ lidar_from_ego)[:2, 3]
        keep = np.linalg.norm(centre_m[:, :2] - ego_m, axis=1) < self.range_m[label]
        for rack in self._racks.get(info['token'], ()):
            keep &= ~(self._is_cycle[label] & points_in_box(rack, centre_m.T))
        return keep


def check_infos(infos: Sequence[Mapping[str, Any]]) -> None:
    """ValueError names the first sample and key that is missing."""
    for info in infos:
        found = [(_INFO_KEYS - info.keys(), '')]
        found += [(_LIDAR_KEYS - info.get('lidar_points', {}).keys(), 'lidar_points.')]
        found += [(_INSTANCE_KEYS - instance.keys(), 'instances[].') for instance in info.get('instances', [])]
        for missing, where in found:
            if missing:
                raise ValueError(f'sample {info.get("token")} has no {where}{min(missing)}; {_REMEDY}')


def seen_before(infos: Sequence[Mapping[str, Any]], seen_s: float) -> list[Bools]:
    """Per info, (instances,): whether the same instance held a LiDAR point in an earlier keyframe of its scene.

    Args:
        infos: of whole scenes, in any order.
        seen_s: seconds; a keyframe at t looks at those with a LiDAR stamp in [t - seen_s, t), to the microsecond.
    """
    return [_within(gap_us, seen_s) for gap_us, _ in last_seen(infos)]


def _within(gap_us: Ints, seen_s: float) -> Bools:
    return (gap_us >= 0) & (gap_us <= round(seen_s * 1e6))


def build_truth(
    infos: Sequence[Mapping[str, Any]], classes: Sequence[str], categories: Mapping[str, int], seen_s: float,
    official: OfficialFilter,
) -> TruthTable:
    """The truth that the filter keeps, with and without points.

    Args:
        infos: as they lie in an info file (`data_list`).
        classes: in the order of the labels to be given.
        categories: `{class: label}` of the info file (`metainfo.categories`), whose order is its own.
        seen_s: see `seen_before`.
        official: what counts.

    Raises:
        ValueError: naming a class that the info file does not know.
    """
    unknown = [name for name in classes if name not in categories]
    if unknown:
        raise ValueError(f"the info file's metainfo.categories has no {unknown[0]!r}; {_REMEDY}")
    label_of = {categories[name]: label for label, name in enumerate(classes)}
    tracks: dict[tuple[str, str], int] = {}
    rows: list[tuple[int, ...]] = []
    motions: list[tuple[float, ...]] = []
    centres: list[Floats] = [np.zeros((0, 3))]
    for position, (info, gaps, ego) in enumerate(zip(infos, last_seen(infos), ego_motion(infos), strict=True)):
        chosen = [row for row, instance in enumerate(info['instances']) if instance['bbox_label_3d'] in label_of]
        instances = [info['instances'][row] for row in chosen]
        label = np.array([label_of[instance['bbox_label_3d']] for instance in instances], dtype=np.int64)
        global_from_lidar = np.array(info['global_from_lidar'], dtype=np.float64)
        # An info's bbox_3d begins with the box's middle, unlike mmdet3d's box tensors, which have its bottom.
        centre_m = np.array([instance['bbox_3d'][:3] for instance in instances], dtype=np.float64).reshape(-1, 3)
        centre_m = centre_m @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3]
        keep = official.keep(info, centre_m, label)
        centres.append(centre_m[keep])
        for index in np.flatnonzero(keep):
            instance = instances[index]
            track = tracks.setdefault((info['scene_token'], instance['instance_token']), len(tracks))
            gap_us, gap_frames = (int(gap[chosen[index]]) for gap in gaps)
            rows.append((position, info['frame_index'], track, label[index], instance['num_lidar_pts'],
                         instance['num_radar_pts'], gap_us, gap_frames))
            motions.append((float(np.linalg.norm(instance.get('velocity', np.nan))), *ego))
    frame, frame_index, track, label, lidar, radar, gap_us, gap_frames = np.array(rows, dtype=np.int64).reshape(-1, 8).T
    facts = HiddenFacts(gap_us, gap_frames, *np.array(motions, dtype=np.float64).reshape(-1, 3).T)
    return TruthTable(frame, frame_index, track, label, np.concatenate(centres), lidar, radar, _within(gap_us, seen_s), facts)


def build_predictions(
    infos: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]], official: OfficialFilter,
) -> PredictionTable:
    """The predictions that the filter keeps.

    Args:
        infos: as they lie in an info file.
        predictions: one per info: `bboxes_3d` (LiDARInstance3DBoxes), `scores_3d` (k,), `labels_3d` (k,).
        official: what counts.

    Raises:
        ValueError: naming the sample, for boxes of another frame, centres or scores that are not finite, and labels that
            are none of the classes'.
    """
    frames, labels, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    centres, seen = [np.zeros((0, 3))], [np.zeros(0)]
    tells = all(SEEN in predicted for predicted in predictions)
    for position, (info, predicted) in enumerate(zip(infos, predictions, strict=True)):
        centre_m, label, score = _arrays(info['token'], predicted, len(official.range_m))
        centre_m = _move(info['lidar_points']['lidar2ego'], centre_m)
        written = np.linalg.norm(centre_m[:, :2], axis=1) <= official.official_range_m[label]
        centre_m = _move(info['ego2global'], centre_m)
        keep = written & official.keep(info, centre_m, label)
        frames.append(np.full(int(keep.sum()), position, dtype=np.int64))
        labels.append(label[keep])
        scores.append(score[keep])
        centres.append(centre_m[keep])
        seen += [predicted[SEEN].cpu().numpy().astype(np.float64)[keep]] if tells else []
    return PredictionTable(np.concatenate(frames), np.concatenate(labels), np.concatenate(centres), np.concatenate(scores),
                           np.concatenate(seen) if tells else None)


def _arrays(token: str, predicted: Mapping[str, Any], num_classes: int) -> tuple[Floats, Ints, Floats]:
    """Box middles (k, 3) in the LiDAR frame, labels (k,) and scores (k,) of one frame, checked."""
    boxes = predicted['bboxes_3d']
    if not isinstance(boxes, LiDARInstance3DBoxes):
        raise ValueError(f'sample {token}: boxes must be LiDARInstance3DBoxes, got {type(boxes).__name__}')
    centre_m = boxes.gravity_center.cpu().numpy().astype(np.float64).reshape(-1, 3)
    score = predicted['scores_3d'].cpu().numpy().astype(np.float64)
    label = predicted['labels_3d'].cpu().numpy().astype(np.int64)
    if not (np.isfinite(centre_m).all() and np.isfinite(score).all()):
        raise ValueError(f'sample {token}: predictions hold NaN or infinite centres or scores; mend the model')
    if len(label) and not 0 <= label.min() <= label.max() < num_classes:
        raise ValueError(f'sample {token}: labels_3d must be 0 to {num_classes - 1}, got {label.min()} to {label.max()}; '
                         'the model and dataset_meta.classes must agree')
    return centre_m, label, score


def _move(matrix: Sequence[Sequence[float]], centre_m: Floats) -> Floats:
    """(n, 3) moved as mmdet3d's submission is: info matrices are float32, and a quaternion makes them rotations again."""
    rigid = np.array(matrix, dtype=np.float64)
    rotation = Quaternion(matrix=rigid, rtol=1e-5, atol=1e-7).rotation_matrix
    return centre_m @ rotation.T + rigid[:3, 3]
