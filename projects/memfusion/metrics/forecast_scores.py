"""Metric. In: true and predicted futures, global xy in metres. Out: the devkit's scores of each agent, and their means.

All numbers are the devkit's own functions' (nuscenes.eval.prediction). Where probabilities tie, it ranks the last of few modes
first; with fewer modes than k all of them count; a pointwise distance of exactly the tolerance is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nuscenes.eval.prediction.data_classes import Prediction
from nuscenes.eval.prediction.metrics import Metric, MinADEK, MinFDEK, MissRateTopK, OffRoadRate, RowMean

from .box_tables import Floats

TOP_K = (1, 5, 10)
TOLERANCE_M = 2.0
SHORT_NAMES = {'MinADEK': 'minADE', 'MinFDEK': 'minFDE', 'MissRateTopK_2.0': 'MissRateTopK_2'}
"""The devkit's names -> ours, to which _k is added."""


class MaskedOffRoadRate(OffRoadRate):
    """The devkit's OffRoadRate with drivable areas that are handed in, instead of those of the four official maps.

    Args:
        masks: map name -> (rows, columns) array, not 0 where it is drivable; 10 pixels a metre, row = y, column = x, global.
        helper: says by `get_map_name_from_sample_token` which map a sample lies on.
    """

    def __init__(self, masks: Mapping[str, np.ndarray], helper: Any) -> None:
        self._masks = dict(masks)
        super().__init__(helper, [RowMean()])

    def load_drivable_area_masks(self, helper: Any) -> dict[str, np.ndarray]:
        """The masks that were handed in."""
        del helper
        return self._masks


def prediction_metrics(off_road: OffRoadRate | None = None, top_k: Sequence[int] = TOP_K) -> list[Metric]:
    """MinADEK, MinFDEK, MissRateTopK at 2 m for every k, and OffRoadRate where it is given."""
    means = [RowMean()]
    metrics: list[Metric] = [MinADEK(list(top_k), means), MinFDEK(list(top_k), means),
                             MissRateTopK(list(top_k), means, tolerance=TOLERANCE_M)]
    return metrics if off_road is None else [*metrics, off_road]


def score_futures(truths: Sequence[np.ndarray], predictions: Sequence[Prediction],
                  metrics: Sequence[Metric]) -> dict[str, Floats]:
    """Scores of N agents by each metric.

    Args:
        truths: N x (12, 2) global xy.
        predictions: N predictions of M modes each, global xy.

    Returns:
        The devkit's name of each metric -> (N, its number of k).
    """
    scores = {metric.name: np.zeros((len(predictions), metric.shape)) for metric in metrics}
    for row, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        for metric in metrics:
            scores[metric.name][row] = metric(truth, prediction)
    return scores


def mean_scores(scores: Mapping[str, Floats], top_k: Sequence[int] = TOP_K) -> dict[str, float]:
    """Means over agents, by short name: minADE_k, minFDE_k, MissRateTopK_2_k, OffRoadRate; NaN of no agents."""
    means = {}
    for name, values in scores.items():
        for column, value in enumerate(values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)):
            short = f'{SHORT_NAMES[name]}_{top_k[column]}' if name in SHORT_NAMES else name
            means[short] = float(value)
    return means


def displacement_errors(truth: np.ndarray, valid: np.ndarray, prediction: Prediction) -> tuple[float, float]:
    """Plain ADE and FDE in metres: mean and last displacement of the most probable mode, over the labelled steps of (12, 2).

    The devkit scores complete futures only, where they equal its minADE_1 and minFDE_1.
    """
    best = int(np.flip(prediction.probabilities.argsort())[0])  # ranked as the devkit ranks
    apart = np.linalg.norm(prediction.prediction[best] - truth, axis=-1)[valid]
    return (float(apart.mean()), float(apart[-1])) if len(apart) else (float('nan'), float('nan'))
