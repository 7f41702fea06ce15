"""Heads, which boxes are answers. In: boxes and scores of every anchor of a frame. Out: the kept ones, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmcv.ops import nms_rotated
from torch import Tensor

_BEV = [0, 1, 3, 4, 6]
"""x, y, length, width, yaw of a box."""


@dataclass(frozen=True)
class BoxSelection:
    """Non-maximum suppression of every class by itself; there is none between classes.

    Args:
        score_threshold: a box scores at least this.
        nms_thr: overlap from above (of rotated boxes) over which the lower one goes.
        pre_max_size, post_max_size: boxes of a class before and after the suppression.
    """

    score_threshold: float = 0.1
    nms_thr: float = 0.2
    pre_max_size: int = 1000
    post_max_size: int = 83

    def __post_init__(self) -> None:
        if self.pre_max_size < 1 or self.post_max_size < 1:
            raise ValueError('pre_max_size and post_max_size must be at least 1')

    def __call__(self, boxes: Tensor, scores: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """One frame.

        Args:
            boxes: (N, 7+), LiDAR frame.
            scores: (n, K) of every group, the groups' anchors one after another.

        Returns:
            boxes (M, 7+), scores (M,), labels (M,) int64, by class, then by falling score.
        """
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows, group in zip(boxes.split([len(group) for group in scores]), scores):
            for score in group.unbind(dim=1):
                chosen = self._of_class(rows, score)
                kept.append((rows[chosen], score[chosen], torch.full_like(chosen, len(kept))))
        return torch.cat([row[0] for row in kept]), torch.cat([row[1] for row in kept]), torch.cat([row[2] for row in kept])

    def _of_class(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Indices of the kept boxes of one class, the best first."""
        candidates = (scores >= self.score_threshold).nonzero()[:, 0]
        best = scores[candidates].topk(min(len(candidates), self.pre_max_size)).indices
        candidates = candidates[best]
        if not len(candidates):
            return candidates
        flat = boxes[candidates][:, _BEV].contiguous()
        keep = nms_rotated(flat, scores[candidates], self.nms_thr)[1][:self.post_max_size]
        return candidates[keep]
