"""Contract, no network: the two scores of a box, that it exists and that it is seen now. In: predictions. Out: rated ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

HIDDEN_BOXES = ('keep', 'drop', 'downweight')
"""'keep': boxes are ranked by that they exist, for planning and tracking; 'drop': those that are more likely hidden than seen
are left out; 'downweight': ranked by the product of both, for scores that count what is found behind a wall as false."""
EXISTS, SEEN = 'exists_3d', 'seen_3d'
"""Fields beside `scores_3d`, (n,) in 0..1 each; there where a detector tells them apart."""
_SEEN_FROM = 0.5


def check_hidden_boxes(how: str, key: str) -> None:
    """ValueError naming the key, for what is none of HIDDEN_BOXES."""
    if how not in HIDDEN_BOXES:
        raise ValueError(f'{key} must be one of {HIDDEN_BOXES}, got {how!r}')


def rank_boxes(exists: Tensor, seen: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """(n,) scores to rank boxes by, and (n,) bool which of them stay."""
    kept = torch.ones_like(seen, dtype=torch.bool) if how != 'drop' else seen >= _SEEN_FROM
    return exists * seen if how == 'downweight' else exists, kept


def rated(predicted: Mapping[str, Any], how: str | None, sample: str) -> dict[str, Any]:
    """Predictions of one sample as another `hidden_boxes` ranks them; None leaves them as they are.

    Args:
        predicted: `bboxes_3d`, `scores_3d`, `labels_3d` and, unless `how` is None, both scores.
        sample: how an error calls it.

    Raises:
        ValueError: where boxes have no such scores.
    """
    names = [name for name in ('bboxes_3d', 'scores_3d', 'labels_3d', EXISTS, SEEN) if name in predicted]
    if how is None:
        return {name: predicted[name] for name in names}
    if SEEN not in predicted or EXISTS not in predicted:
        raise ValueError(f'{sample}: hidden_boxes={how!r} needs to know which boxes are seen now, and the predictions do not '
                         'say: train with model.pts_bbox_head.seen_weight, or count points: model.test_cfg.seen_from=points')
    scores, kept = rank_boxes(predicted[EXISTS], predicted[SEEN], how)
    ranked = {**{name: predicted[name] for name in names}, 'scores_3d': scores}
    return {name: value[kept] for name, value in ranked.items()}
