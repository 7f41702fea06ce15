"""Heads, what anchors should say. In: anchors and true boxes, LiDAR frame, z of the centre. Out: labels and box codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet3d.structures.ops import bbox_overlaps_nearest_3d
from torch import Tensor

from .anchors import ClassAnchors
from .coder import ResidualBoxCoder


@dataclass(frozen=True)
class AnchorTargets:
    """labels (V, N): -1 ignored, 0 background, 1 + class; codes (V, N, code size): 0 unless the label is positive."""

    labels: Tensor
    codes: Tensor


def assign_boxes(anchors: Tensor, boxes: Tensor, pos_iou_thr: float, neg_iou_thr: float) -> Tensor:
    """(n, 7) anchors and (G, 7+) boxes of one class -> (n,) int64: 1 + the anchor's box, 0 background, -1 ignored.

    Overlaps are those of the boxes turned to the nearest axis, seen from above. Every anchor that overlaps a box more than
    all others do is positive, however little that is (all of them, where several do alike); its target is the box that it
    overlaps most itself, which may be another one. That is where mmdet3d's Max3DIoUAssigner differs.
    Source: AxisAlignedTargetAssigner of OpenPCDet, match_height False.
    """
    if not len(boxes):
        return torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    overlaps = bbox_overlaps_nearest_3d(boxes[:, :7], anchors)
    most, own_box = overlaps.max(dim=0)
    best = overlaps.max(dim=1, keepdim=True).values
    forced = ((overlaps == best) & (best > 0)).any(dim=0)
    rest = torch.where(most < neg_iou_thr, 0, -1)
    return torch.where(forced | (most >= pos_iou_thr), own_box + 1, rest)


@torch.no_grad()
def anchor_targets(anchors: Tensor, classes: Sequence[ClassAnchors], truths: Sequence[tuple[Tensor, Tensor]],
                   coder: ResidualBoxCoder) -> AnchorTargets:
    """Every class's anchors see only that class's boxes.

    Args:
        anchors: (N, 7), class by class in the order of `classes`.
        classes: their settings.
        truths: V pairs of boxes (G, box size) and labels (G,) from 0.
        coder: makes the codes.
    """
    labels = torch.zeros(len(truths), len(anchors), dtype=torch.int64, device=anchors.device)
    codes = anchors.new_zeros(len(truths), len(anchors), coder.code_size)
    cells = len(anchors) // sum(settings.per_cell for settings in classes)
    for frame, (boxes, classes_of_boxes) in enumerate(truths):
        begin = 0
        for label, settings in enumerate(classes):
            end = begin + settings.per_cell * cells
            own, mine = anchors[begin:end], boxes[classes_of_boxes == label]
            assigned = assign_boxes(own, mine, settings.pos_iou_thr, settings.neg_iou_thr)
            if len(mine):
                positive = (assigned > 0).nonzero()[:, 0]
                labels[frame, begin:end] = torch.where(assigned > 0, label + 1, assigned)
                codes[frame, begin + positive] = coder.encode(mine[assigned[positive] - 1], own[positive])
            begin = end
    return AnchorTargets(labels, codes)
