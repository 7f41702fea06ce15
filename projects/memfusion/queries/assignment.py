"""Queries, training. In: what every layer says, the truth. Out: which query answers for which box, by mmdet's assigner.

mmdet is asked for when training begins, so that heads build where its compiled ops are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


@TASK_UTILS.register_module()
class CodeL1Cost:
    """The cost of matching by the distance of codes (DETR3D, Wang et al., CoRL 2021).

    Args:
        weight: multiplies the cost.
        code_weights: of the numbers of a code; those of weight 0 may be NaN in the truth.
    """

    def __init__(self, weight: float = 0.25, code_weights: Sequence[float] = (1.0,) * 8) -> None:
        self.weight, self.code_weights = weight, tuple(code_weights)

    def __call__(self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None) -> Tensor:
        """(Q, n); `codes` of both."""
        del img_meta
        weights = pred_instances.codes.new_tensor(self.code_weights)
        used = [place for place, weight in enumerate(self.code_weights) if weight]
        return self.weight * torch.cdist((pred_instances.codes[:, :len(weights)] * weights)[:, used],
                                         (gt_instances.codes[:, :len(weights)] * weights)[:, used], p=1)


class Assigner:
    """Matches queries and boxes one to one.

    Args:
        cls_cost: settings of mmdet's FocalLossCost.
        code_cost: settings of CodeL1Cost.
    """

    def __init__(self, cls_cost: dict[str, Any], code_cost: dict[str, Any]) -> None:
        costs = [dict(type='mmdet.FocalLossCost', **cls_cost), dict(type=CodeL1Cost, **code_cost)]
        self._matcher = TASK_UTILS.build(dict(type='mmdet.HungarianAssigner', match_costs=costs))

    @torch.no_grad()
    def match(self, logits: Tensor, codes: Tensor, true_codes: Sequence[Tensor], labels: Sequence[Tensor],
              there: Tensor | None = None) -> Tensor:
        """(L, B, Q) int64 on the CPU: the place of the query's box among its frame's, -1 for none.

        Args:
            logits: (L, B, Q, K).
            codes: (L, B, Q, 10).
            true_codes, labels: B x (n, 10) and (n,).
            there: (B, Q) bool, queries that count; None is all.

        Raises:
            ValueError: where training has diverged.
        """
        # One wait for the device, not one for every layer and frame.
        logits, codes = logits.detach().float().cpu(), codes.detach().float().cpu()
        truths = [InstanceData(codes=code.float().cpu(), labels=label.cpu()) for code, label in zip(true_codes, labels)]
        found = torch.full(logits.shape[:3], -1, dtype=torch.long)
        used = torch.ones(logits.shape[1:3], dtype=torch.bool) if there is None else there.cpu()
        asked = [row for row, truth in enumerate(truths) if len(truth)]
        if not (torch.isfinite(logits[:, asked]).all() and torch.isfinite(codes[:, asked]).all()):
            raise ValueError('what model.pts_bbox_head says is NaN or infinite, so nothing can be matched: training has '
                             'diverged. Lower optim_wrapper.optimizer.lr, or clip gradients (optim_wrapper.clip_grad)')
        for row, truth in enumerate(truths):
            for layer in range(len(found) if len(truth) else 0):
                said = InstanceData(scores=logits[layer, row, used[row]], codes=codes[layer, row, used[row]])
                found[layer, row, used[row]] = self._matcher.assign(said, truth).gt_inds - 1
        return found
