"""Metric. In: tables of truth and predictions. Out: which truth each prediction found, by centre distance on the ground.

The official rule: predictions choose in descending order of score, each the nearest truth of its class and frame that is
still free and nearer than the limit. The devkit's own `accumulate` gives curves of one class: it does not say who found
whom, and knows no truth that only excuses predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .box_tables import Bools, Floats, Ints, PredictionTable, TruthTable


@dataclass(frozen=True)
class CandidatePairs:
    """Predictions and truth of the same frame and class that are near each other; k rows in the order of choosing.

    Attributes:
        prediction: (k,) row in the predictions; better scores first.
        truth: (k,) row in the truth; of one prediction, nearer ones first.
        distance_m: (k,) between the centres, on the ground of the global frame.
        num_predictions: rows of the predictions.
        num_truth: rows of the truth.
    """

    prediction: Ints
    truth: Ints
    distance_m: Floats
    num_predictions: int
    num_truth: int


def score_order(score: Floats) -> Ints:
    """(m,) rows in the order the devkit takes them: best score first, of equal scores the later row first."""
    return np.lexsort((np.arange(len(score)), score))[::-1]


def candidate_pairs(truth: TruthTable, predictions: PredictionTable, limit_m: float) -> CandidatePairs:
    """All pairs of the same frame and class nearer than `limit_m`."""
    rows: list[Ints] = [np.zeros(0, np.int64)]
    columns: list[Ints] = [np.zeros(0, np.int64)]
    distances: list[Floats] = [np.zeros(0)]
    for frame in np.intersect1d(truth.frame, predictions.frame):
        first_truth, end_truth = np.searchsorted(truth.frame, [frame, frame + 1])
        first, end = np.searchsorted(predictions.frame, [frame, frame + 1])
        offset_m = predictions.centre_m[first:end, None, :2] - truth.centre_m[None, first_truth:end_truth, :2]
        distance_m = np.linalg.norm(offset_m, axis=2)
        same = predictions.label[first:end, None] == truth.label[None, first_truth:end_truth]
        row, column = np.nonzero(same & (distance_m < limit_m))
        rows.append(row + first)
        columns.append(column + first_truth)
        distances.append(distance_m[row, column])
    row, column, distance_m = np.concatenate(rows), np.concatenate(columns), np.concatenate(distances)
    rank = np.empty(len(predictions.score), dtype=np.int64)
    rank[score_order(predictions.score)] = np.arange(len(rank))
    order = np.lexsort((distance_m, rank[row]))  # stable: of equal distances the first truth, as in the devkit
    return CandidatePairs(row[order], column[order], distance_m[order], len(rank), len(truth.frame))


def match(pairs: CandidatePairs, match_m: float, counts: Bools, ignored: Bools) -> Ints:
    """Which truth each prediction found.

    Truth that counts is given away first, as if there were no other. What then found nothing may find truth that is
    ignored. Every truth is found once at most, ignored truth too.

    Args:
        pairs: made with a limit of at least `match_m`.
        match_m: a pair must be nearer than this, in metres.
        counts: (n,) truth that counts.
        ignored: (n,) truth that does not count but excuses a prediction; truth that is neither is as if not there.

    Returns:
        (m,) row of the truth, -1 where none was found.
    """
    found = [-1] * pairs.num_predictions
    near = pairs.distance_m < match_m
    for wanted in (counts, ignored & ~counts):
        taken = bytearray(pairs.num_truth)
        chosen = near & wanted[pairs.truth]
        for prediction, truth in zip(pairs.prediction[chosen].tolist(), pairs.truth[chosen].tolist(), strict=True):
            if found[prediction] < 0 and not taken[truth]:
                found[prediction], taken[truth] = truth, 1
    return np.array(found, dtype=np.int64)
