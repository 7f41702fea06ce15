"""Metric. In: tables of truth and predictions. Out: the official average precision, for any choice of what counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nuscenes.eval.detection.config import config_factory

from .box_tables import Bools, Floats, PredictionTable, TruthTable
from .matching import CandidatePairs, match, score_order

_RECALL_STEPS = 101  # the devkit's DetectionMetricData.nelem


def average_precisions(
    truth: TruthTable, predictions: PredictionTable, pairs: CandidatePairs, counts: Bools, ignored: Bools,
    num_classes: int,
) -> Floats:
    """AP of each class by nuScenes' detection_cvpr_2019, mean over centre distances 0.5, 1, 2 and 4 m.

    With `counts=truth.has_points` and nothing ignored this is the official AP. With truth that was seen not long ago
    added to `counts` and the rest ignored, it is the AP of mAP_seen.

    Args:
        truth: n rows.
        predictions: m rows.
        pairs: theirs, made with a limit of at least 4 m.
        counts: (n,) truth to be found.
        ignored: (n,) truth whose predictions are neither right nor wrong.
        num_classes: C; labels are 0 to C - 1.

    Returns:
        (C,) from 0 to 1; 0 for a class without truth that counts.
    """
    config = config_factory('detection_cvpr_2019')
    order = score_order(predictions.score)
    rows_of = [order[predictions.label[order] == label] for label in range(num_classes)]
    num_truth = np.bincount(truth.label[counts], minlength=num_classes)
    values = np.zeros((len(config.dist_ths), num_classes))
    for step, distance_m in enumerate(config.dist_ths):
        found = match(pairs, distance_m, counts, ignored)
        hit = np.append(counts, False)[found]  # -1, nothing found, is the last
        scored = hit | (found < 0)
        for label, rows in enumerate(rows_of):
            hits = hit[rows[scored[rows]]]
            values[step, label] = interpolated_ap(hits, int(num_truth[label]), config.min_recall, config.min_precision)
    return values.mean(axis=0)


def interpolated_ap(hits: Bools, num_truth: int, min_recall: float, min_precision: float) -> float:
    """The nuScenes AP (arXiv 1903.11027, section 3.1): the area under precision over recall, above both minima, scaled to 1.

    Args:
        hits: (k,) whether each prediction found truth, best score first.
        num_truth: boxes to be found.
        min_recall: recall up to this is left out, 0 to 1.
        min_precision: precision up to this counts as nothing, 0 to 1.
    """
    if num_truth == 0 or not hits.any():
        return 0.0
    found, wrong = np.cumsum(hits).astype(float), np.cumsum(~hits).astype(float)
    precision = np.interp(np.linspace(0, 1, _RECALL_STEPS), found / float(num_truth), found / (wrong + found), right=0)
    above = np.maximum(precision[round(100 * min_recall) + 1:] - min_precision, 0)
    return float(np.mean(above)) / (1.0 - min_precision)


def mean_over(average_precision: Floats, classes: Sequence[str], chosen: Bools) -> float:
    """Mean of (C,) over the chosen classes (C,), 0 where there are none, summed in the official order of classes."""
    official = config_factory('detection_cvpr_2019').class_names
    values = [average_precision[classes.index(name)] for name in official if name in classes and chosen[classes.index(name)]]
    return float(np.mean(values)) if values else 0.0
