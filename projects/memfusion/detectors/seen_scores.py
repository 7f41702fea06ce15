"""Detector. In: B frames' boxes, points. Out: boxes with two scores, ranked as `test_cfg.hidden_boxes` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from projects.memfusion.data.point_files import TIME_COLUMN
from projects.memfusion.data.transforms.box_points import count_own_points
from projects.memfusion.structures.box_scores import EXISTS, SEEN, check_hidden_boxes, rank_boxes

SOURCES = ('head', 'points')


@dataclass(frozen=True)
class SeenScores:
    """What makes of `test_cfg` how boxes that are hidden now are ranked.

    Attributes:
        hidden_boxes: one of HIDDEN_BOXES.
        seen_from: 'head': its branch tells (`pts_bbox_head.seen_weight`); 'points': a box is seen where it holds a point of the
            frame, which needs no training; None: the head's branch where there is one.
    """

    hidden_boxes: str = 'keep'
    seen_from: str | None = None

    @classmethod
    def of_config(cls, test_cfg: Mapping[str, Any], has_branch: bool) -> SeenScores:
        """ValueError naming the key, for values that do not exist or a branch that does not."""
        made = cls(test_cfg.get('hidden_boxes', 'keep'), test_cfg.get('seen_from'))
        check_hidden_boxes(made.hidden_boxes, 'model.test_cfg.hidden_boxes')
        if made.seen_from is not None and made.seen_from not in SOURCES:
            raise ValueError(f'model.test_cfg.seen_from must be one of {SOURCES} or None, got {made.seen_from!r}')
        asks_head = made.seen_from == 'head' or (made.seen_from is None and made.hidden_boxes != 'keep')
        if asks_head and not has_branch:
            raise ValueError(f'model.test_cfg.hidden_boxes={made.hidden_boxes!r} asks the head which boxes are seen now, and '
                             'it has no branch for that: train with model.pts_bbox_head.seen_weight, or set '
                             'model.test_cfg.seen_from=points')
        return made

    def apply(self, found: Sequence[InstanceData], points: Sequence[Tensor] | None) -> list[InstanceData]:
        """Rates the boxes of B frames; points (P, D) of each are needed with seen_from='points'."""
        if self.seen_from == 'points':
            if points is None:
                raise ValueError("model.test_cfg.seen_from='points' counts the points in boxes, and there are none here")
            found = [_counted(one, cloud) for one, cloud in zip(found, points)]
        return [self._rank(one) for one in found]

    def _rank(self, found: InstanceData) -> InstanceData:
        if SEEN not in found or self.hidden_boxes == 'keep':
            return found
        scores, kept = rank_boxes(found[EXISTS], found[SEEN], self.hidden_boxes)
        ranked = found[:]
        ranked.scores_3d = scores
        return ranked[kept]


def _counted(found: InstanceData, points: Tensor) -> InstanceData:
    """The boxes with both scores, seen being whether they hold a point."""
    column = TIME_COLUMN if points.shape[1] > TIME_COLUMN else None
    counts = count_own_points(points.cpu().numpy(), found.bboxes_3d.tensor.cpu().numpy(), column)
    rated = found[:]
    rated[EXISTS] = found.scores_3d.clone()
    rated[SEEN] = torch.from_numpy(counts > 0).to(found.scores_3d)
    return rated
