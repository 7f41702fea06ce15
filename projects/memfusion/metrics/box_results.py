"""Metric. In: a sample's predictions; a submission file. Out: the best of them; the file with both scores of each box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.fileio import dump, load

from projects.memfusion.structures.box_scores import EXISTS, SEEN

PREDICTIONS = 'pred_instances_3d'
_NEEDED = ('bboxes_3d', 'scores_3d', 'labels_3d')


def keep_best(predicted: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """`bboxes_3d`, `scores_3d`, `labels_3d` and the two scores, on the CPU, the `limit` best; of equal scores the first."""
    kept = {name: value.to('cpu') for name, value in predicted.items() if name in (*_NEEDED, EXISTS, SEEN)}
    if len(kept['scores_3d']) > limit:
        best = torch.argsort(kept['scores_3d'], descending=True, stable=True)[:limit]
        kept = {name: value[best] for name, value in kept.items()}
    return kept


def add_box_scores(path: str, results: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]],
                   classes: Sequence[str]) -> None:
    """Writes `exists_score` and `seen_score` into a submission whose boxes have both; the devkit reads past them.

    A submission holds each sample's boxes in their order, without those out of range: the next of the same class and score is
    the one.
    """
    if not results or any(SEEN not in result[PREDICTIONS] for result in results):
        return
    content = load(path)
    for result, info in zip(results, infos):
        predicted = result[PREDICTIONS]
        names = (classes[label] for label in predicted['labels_3d'].tolist())
        rows = zip(names, predicted['scores_3d'].tolist(), predicted[EXISTS].tolist(), predicted[SEEN].tolist())
        for box in content['results'][info['token']]:
            exists, seen = next((one, other) for name, score, one, other in rows
                                if name == box['detection_name'] and abs(score - box['detection_score']) < 1e-6)
            box.update(exists_score=exists, seen_score=seen)
    dump(content, path)
