"""Metric. In: truth, and predictions of the same frames. Out: what was found by stratum, what was taken for what, false boxes.

Recall counts truth with a LiDAR point or seen before, as MemoryMetric's; every result file is read at its own score threshold,
of so many false positives a frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .box_tables import Bools, Floats, Ints, PredictionTable, TruthTable
from .build_tables import OfficialFilter
from .hidden_strata import STANDING_MPS
from .matching import candidate_pairs, match
from .memory_recall import find_truth

_RANGES_M = {'0-10 m': (0, 10), '10-20 m': (10, 20), '20-30 m': (20, 30), '30-40 m': (30, 40), 'over 40 m': (40, math.inf)}
_POINTS = {'no point': (0, 0), '1-5 points': (1, 5), '6-20 points': (6, 20), 'over 20 points': (21, math.inf)}
_SPEEDS_MPS = {'standing': (0, STANDING_MPS), 'slow': (STANDING_MPS, 5), 'fast': (5, math.inf)}
_VISIBILITIES = {1: 'visible 0-40 %', 2: 'visible 40-60 %', 3: 'visible 60-80 %', 4: 'visible 80-100 %'}


@dataclass(frozen=True)
class Judged:
    """What one result file found; n rows of truth, m of predictions.

    Attributes:
        predicted: those that the official score would look at.
        threshold: the score from which they count.
        detected: (n,) which truth that counts was found.
        finder: (n,) the row of the prediction that found it, -1 for none.
        is_false: (m,) predictions that count and found nothing.
    """

    predicted: PredictionTable
    threshold: float
    detected: Bools
    finder: Ints
    is_false: Bools


def submitted(infos: Sequence[Mapping[str, Any]], results: Mapping[str, Sequence[Mapping[str, Any]]], classes: Sequence[str],
              official: OfficialFilter) -> PredictionTable:
    """A submission's boxes, global frame, that the filter keeps.

    Args:
        results: entries of detection by sample token; a sample without an entry has no boxes.

    Raises:
        ValueError: naming sample and class, for a class that is none of `classes`.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    frames, labels, scores, centres = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros((0, 3))]
    for position, info in enumerate(infos):
        entries = results.get(info['token'], ())
        unknown = [one['detection_name'] for one in entries if one['detection_name'] not in label_of]
        if unknown:
            raise ValueError(f'sample {info["token"]} has a box of class {unknown[0]!r}, which is none of {", ".join(classes)}')
        label = np.array([label_of[one['detection_name']] for one in entries], dtype=np.int64)
        centre_m = np.array([one['translation'] for one in entries], dtype=np.float64).reshape(-1, 3)
        keep = official.keep(info, centre_m, label)
        frames.append(np.full(int(keep.sum()), position))
        labels.append(label[keep])
        centres.append(centre_m[keep])
        scores.append(np.array([one['detection_score'] for one in entries], dtype=np.float64)[keep])
    return PredictionTable(np.concatenate(frames), np.concatenate(labels), np.concatenate(centres), np.concatenate(scores))


def judge(truth: TruthTable, predicted: PredictionTable, num_frames: int, match_m: float = 2.0,
          false_positives_per_frame: float = 1.0) -> Judged:
    """Who found whom, by the official rule at one centre distance; see `find_truth`."""
    finds = find_truth(truth, predicted, candidate_pairs(truth, predicted, match_m), match_m, num_frames,
                       false_positives_per_frame)
    sure, counts = predicted.score >= finds.threshold, truth.has_lidar_or_seen
    finder = np.full(len(truth.frame), -1)
    finder[finds.found[(finds.found >= 0) & sure]] = np.flatnonzero((finds.found >= 0) & sure)
    return Judged(predicted, finds.threshold, finds.detected & counts, np.where(counts, finder, -1), (finds.found < 0) & sure)


def instance_rows(truth: TruthTable, infos: Sequence[Mapping[str, Any]]) -> Ints:
    """(n,) which of its info's instances each truth is."""
    rows = np.zeros(len(truth.frame), dtype=np.int64)
    for frame in np.unique(truth.frame):
        own = np.flatnonzero(truth.frame == frame)
        global_from_lidar = np.asarray(infos[frame]['global_from_lidar'], dtype=np.float64)
        places = np.array([one['bbox_3d'][:3] for one in infos[frame]['instances']], dtype=np.float64)
        places = places @ global_from_lidar[:3, :3].T + global_from_lidar[:3, 3]
        rows[own] = np.linalg.norm(truth.centre_m[own, None] - places[None], axis=2).argmin(axis=1)
    return rows


def ego_distances_m(truth: TruthTable, infos: Sequence[Mapping[str, Any]]) -> Floats:
    """(n,) from the ego on the ground, as the official range counts."""
    poses = np.array([info['global_from_lidar'] for info in infos], dtype=np.float64)
    mounts = np.array([info['lidar_points']['lidar2ego'] for info in infos], dtype=np.float64)
    egos = (poses @ np.linalg.inv(mounts))[:, :2, 3]
    return np.linalg.norm(truth.centre_m[:, :2] - egos[truth.frame], axis=1)


def error_strata(truth: TruthTable, distance_m: Floats, classes: Sequence[str], visibility: Ints | None = None,
                 ) -> dict[str, dict[str, Bools]]:
    """`{group: {name: (n,)}}` of truth that counts for recall: all, and by class, range, points, visibility and speed.

    Args:
        distance_m: (n,) from the ego.
        visibility: (n,) nuScenes' level 1 to 4, 0 where nobody knows; None leaves the group out.
    """
    counts = truth.has_lidar_or_seen

    def within(values: Floats | Ints, bounds: Mapping[str, tuple[float, float]], closed: bool = False) -> dict[str, Bools]:
        return {name: counts & (low <= values) & ((values <= high) if closed else (values < high))
                for name, (low, high) in bounds.items()}

    groups = {'all': {'all': counts}, 'class': {name: counts & (truth.label == label) for label, name in enumerate(classes)},
              'range': within(distance_m, _RANGES_M), 'points': within(truth.num_lidar_pts, _POINTS, closed=True)}
    if visibility is not None:
        groups['visibility'] = {name: counts & (visibility == level) for level, name in _VISIBILITIES.items()}
    if truth.hidden is not None:
        groups['speed'] = within(truth.hidden.speed_mps, _SPEEDS_MPS)
    return groups


def confusion(truth: TruthTable, judged: Judged, num_classes: int, match_m: float = 2.0) -> Ints:
    """(C + 1, C + 1) boxes: rows are true classes, columns what they were taken for; the last column is missed, the last row
    predictions that lie on nothing. Boxes find truth whatever its class, the surest first.

    Args:
        judged: predictions that score its threshold or more count.
    """
    counts, boxes = truth.has_lidar_or_seen, judged.predicted
    sure = boxes.score >= judged.threshold
    predicted = PredictionTable(boxes.frame[sure], boxes.label[sure], boxes.centre_m[sure], boxes.score[sure])
    alike = candidate_pairs(replace(truth, label=0 * truth.label), replace(predicted, label=0 * predicted.label), match_m)
    found = match(alike, match_m, counts, ~counts)
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    hit = (found >= 0) & np.append(counts, False)[found]
    missed = counts & ~np.isin(np.arange(len(counts)), found[hit])
    np.add.at(table, (truth.label[found[hit]], predicted.label[hit]), 1)
    table[num_classes, :num_classes] = np.bincount(predicted.label[found < 0], minlength=num_classes)
    table[:num_classes, num_classes] = np.bincount(truth.label[missed], minlength=num_classes)
    return table
