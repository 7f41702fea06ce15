"""Metric. In: tables and who found whom. Out: recall by points now and by whether it was seen before, and flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .box_tables import Bools, Floats, Ints, PredictionTable, TruthTable
from .matching import CandidatePairs, match

_POINTS = {'0pts': (0, 0), '1-5pts': (1, 5), '6-20pts': (6, 20), 'over20pts': (21, math.inf)}


def score_threshold(score: Floats, is_false: Bools, num_frames: int, false_positives_per_frame: float) -> float:
    """The lowest score at which no more false positives than allowed remain; predictions of that score are kept.

    Predictions of equal score stay or go together.

    Args:
        score: (m,) of all classes and frames.
        is_false: (m,) which are false positives.
        num_frames: all frames, also those without predictions.
        false_positives_per_frame: allowed on average.

    Returns:
        The score of a prediction; infinite where even the best score brings too many, or nothing was predicted.
    """
    allowed = math.floor(false_positives_per_frame * num_frames + 1e-9)  # 0.29 * 100 must be 29
    false = np.sort(score[is_false])[::-1]
    kept = score[score > false[allowed]] if len(false) > allowed else score
    return float(kept.min()) if len(kept) else math.inf


def detected_truth(found: Ints, score: Floats, threshold: float, num_truth: int) -> Bools:
    """(n,) which truth was found by a prediction of at least this score.

    Args:
        found: (m,) row of the truth that each prediction found, -1 for none.
        score: (m,)
        threshold: least score.
        num_truth: n.
    """
    detected = np.zeros(num_truth, dtype=bool)
    detected[found[(found >= 0) & (score >= threshold)]] = True
    return detected


@dataclass(frozen=True)
class Finds:
    """What predictions found at a rate of false positives.

    Attributes:
        found: (m,) row of the truth that each prediction found, -1 for none, whatever its score.
        threshold: the score from which predictions count; infinite where none does.
        detected: (n,) which truth was found by a prediction that counts.
    """

    found: Ints
    threshold: float
    detected: Bools


def find_truth(truth: TruthTable, predicted: PredictionTable, pairs: CandidatePairs, match_m: float, num_frames: int,
               false_positives_per_frame: float) -> Finds:
    """Who found whom, of the truth with a LiDAR point or seen before; other truth only excuses predictions.

    Args:
        pairs: of these tables, made with a limit of at least `match_m`.
        match_m: as `match`; num_frames, false_positives_per_frame: as `score_threshold`.
    """
    found = match(pairs, match_m, truth.has_lidar_or_seen, ~truth.has_lidar_or_seen)
    threshold = score_threshold(predicted.score, found < 0, num_frames, false_positives_per_frame)
    return Finds(found, threshold, detected_truth(found, predicted.score, threshold, len(truth.frame)))


def strata(truth: TruthTable) -> dict[str, Bools]:
    """`{name: (n,)}`: which truth lies in each stratum; every stratum holds only truth that counts for recall.

    Names: all, seen, not_seen; 0pts_seen; and for each of 1-5pts, 6-20pts, over20pts the stratum itself, and with _seen
    and _not_seen. Points are LiDAR points now; seen is before now, so a box with points may be "not seen".
    """
    counts = truth.has_lidar_or_seen
    masks = dict(all=counts, seen=counts & truth.seen, not_seen=counts & ~truth.seen)
    for name, (least, most) in _POINTS.items():
        inside = counts & (least <= truth.num_lidar_pts) & (truth.num_lidar_pts <= most)
        masks |= {name: inside, f'{name}_seen': inside & truth.seen, f'{name}_not_seen': inside & ~truth.seen}
    del masks['0pts'], masks['0pts_not_seen']  # without points only seen truth counts
    return masks


def recalls(truth: TruthTable, detected: Bools) -> dict[str, float]:
    """`recall_{stratum}` and `num_{stratum}` (truth boxes); the recall of an empty stratum is left out.

    Args:
        truth: n rows.
        detected: (n,) which were found.
    """
    return recalls_in(strata(truth), detected)


def recalls_in(masks: Mapping[str, Bools], detected: Bools) -> dict[str, float]:
    """As `recalls`, in other strata: `{name: (n,)}`."""
    values: dict[str, float] = {}
    for name, inside in masks.items():
        values[f'num_{name}'] = int(inside.sum())
        if inside.any():
            values[f'recall_{name}'] = float(detected[inside].mean())
    return values


def flicker(truth: TruthTable, detected: Bools) -> tuple[int, int]:
    """How often an object is lost for one keyframe.

    Considered are instances with a row in three consecutive keyframes of their scene, found in the first and the third,
    that count for recall in the middle one (in the others they need not).

    Args:
        truth: n rows.
        detected: (n,) which were found.

    Returns:
        (considered, of these not found in the middle).
    """
    row_of = {key: row for row, key in enumerate(zip(truth.track.tolist(), truth.frame_index.tolist(), strict=True))}
    considered = lost = 0
    for row in np.flatnonzero(truth.has_lidar_or_seen):
        track, index = int(truth.track[row]), int(truth.frame_index[row])
        before, after = row_of.get((track, index - 1)), row_of.get((track, index + 1))
        if before is not None and after is not None and detected[before] and detected[after]:
            considered += 1
            lost += not detected[row]
    return considered, int(lost)
