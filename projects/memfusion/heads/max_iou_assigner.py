"""Heads, which anchor answers for which box. In: anchors and a frame's boxes. Out: mmdet3d's assignment, all boxes at once."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet3d.models.task_modules.assigners import Max3DIoUAssigner
from mmdet3d.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class AllBoxesMax3DIoUAssigner(Max3DIoUAssigner):
    """mmdet3d's Max3DIoUAssigner, which asks the device about each box in turn; the assignment is the same."""

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """overlaps (G, n) of boxes and anchors, gt_labels (G,) -> gt_inds (n,): 1 + the box, 0 background, -1 ignored."""
        boxes, anchors = overlaps.shape
        if not boxes or not anchors:
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        most, own_box = overlaps.max(dim=0)
        best, best_anchor = overlaps.max(dim=1, keepdim=True)
        low, high = self.neg_iou_thr if isinstance(self.neg_iou_thr, tuple) else (0.0, self.neg_iou_thr)
        assigned = torch.where((most >= low) & (most < high), 0, -1)
        assigned = torch.where(most >= self.pos_iou_thr, own_box + 1, assigned)
        if self.match_low_quality:
            number = torch.arange(boxes, device=overlaps.device)[:, None]
            if self.gt_max_assign_all:
                forced = overlaps == best
            else:
                forced = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(1, best_anchor, True)
            # Of several boxes whose best anchor it is, the last one has it.
            last = torch.where(forced & (best >= self.min_pos_iou), number + 1, 0).amax(dim=0)
            assigned = torch.where(last > 0, last, assigned)
        labels = torch.where(assigned > 0, gt_labels[(assigned - 1).clamp(min=0)], -1)
        return AssignResult(num_gts=boxes, gt_inds=assigned, max_overlaps=most, labels=labels)
