"""Metric. In: one sample's predicted boxes in its LiDAR frame. Out: nothing, or an error that names sample and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_FIELDS = (('centre', slice(0, 3)), ('size', slice(3, 6)), ('yaw', slice(6, 7)))
_REMEDY = 'are the weights finite, and does the training loss stay finite?'


def check_predictions(predicted: Mapping[str, Any], sample: str, classes: Sequence[str] | None, *, with_velocity: bool) -> None:
    """Raises ValueError naming sample and field for boxes that the evaluator would die of, or count wrongly.

    A velocity may be NaN: the evaluator leaves such boxes out of the velocity error.

    Args:
        predicted: `bboxes_3d` (n boxes of 7 or 9 values), `scores_3d` (n,), `labels_3d` (n,), on the CPU.
        sample: how the message calls it.
        classes: of the data set; None does not check labels.
        with_velocity: whether boxes must have a velocity.
    """
    values, scores, labels = predicted['bboxes_3d'].tensor, predicted['scores_3d'], predicted['labels_3d']
    if with_velocity and values.shape[-1] < 9:
        raise ValueError(f'{sample}: bboxes_3d have {values.shape[-1]} values and no velocity, which nuScenes scores: the head '
                         'must predict it (9 values: in CenterHead common_heads.vel and bbox_coder.code_size=9)')
    if not len(scores) == len(labels) == len(values):
        raise ValueError(f'{sample}: {len(values)} bboxes_3d, {len(scores)} scores_3d and {len(labels)} labels_3d')
    columns = {'bboxes_3d ' + name: values[:, part] for name, part in _FIELDS} | {'scores_3d': scores[:, None]}
    for name, column in columns.items():
        _refuse(~torch.isfinite(column), column, f'{sample}: {name} is', _REMEDY)
    _refuse(values[:, 3:6] <= 0, values[:, 3:6], f'{sample}: bboxes_3d size is', 'lengths of edges must be above 0')
    if with_velocity:
        _refuse(torch.isinf(values[:, 7:9]), values[:, 7:9], f'{sample}: bboxes_3d velocity is', _REMEDY)
    if classes is not None:
        _refuse(((labels < 0) | (labels >= len(classes)))[:, None], labels[:, None], f'{sample}: labels_3d is',
                f'the data set has {len(classes)} classes ({", ".join(classes)}): head and data set must agree')


def _refuse(wrong: torch.Tensor, values: torch.Tensor, text: str, remedy: str) -> None:
    """Raises where any of (n, k) is wrong, with the first such row."""
    if wrong.any():
        rows = wrong.any(dim=1).nonzero()[:, 0]
        found = ', '.join(f'{value:g}' for value in values[rows[0]].tolist())
        raise ValueError(f'{text} {found} in {len(rows)} of {len(values)} predicted boxes; {remedy}')
