"""Heads, what anchors should say. In: anchors and true boxes, LiDAR frame, z of the centre. Out: labels and box codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .anchors import ClassAnchors
from .coder import YAW, ResidualBoxCoder

NOT_MINE = -1.0  # less than any overlap, and than any threshold
TINY_M2 = 1e-6


@dataclass(frozen=True)
class AnchorTargets:
    """labels (V, N): -1 ignored, 0 background, 1 + class; codes (V, N, code size): 0 unless the label is positive."""

    labels: Tensor
    codes: Tensor


def assign_boxes(anchors: Tensor, boxes: Tensor, mine: Tensor, pos_iou_thr: float, neg_iou_thr: float) -> Tensor:
    """Anchors (n, 7) of a class, boxes (V, G, 7+), (V, G) which are of it -> (V, n): 1 + own box, 0 background, -1 ignored.

    Overlaps are those of the boxes turned to the nearest axis, seen from above. Every anchor that overlaps a box more than
    all others do is positive, however little that is (all of them, where several do alike); its target is the box that it
    overlaps most itself, which may be another one. That is where mmdet3d's Max3DIoUAssigner differs.
    Source: AxisAlignedTargetAssigner of OpenPCDet, match_height False.
    """
    if not boxes.shape[1]:
        return torch.zeros(len(boxes), len(anchors), dtype=torch.int64, device=anchors.device)
    overlaps = torch.where(mine[..., None], _overlaps(_from_above(boxes), _from_above(anchors)), NOT_MINE)
    most, own_box = overlaps.max(dim=1)
    best = overlaps.max(dim=2, keepdim=True).values
    forced = ((overlaps == best) & (best > 0)).any(dim=1)
    rest = torch.where(most < neg_iou_thr, 0, -1)
    return torch.where(forced | (most >= pos_iou_thr), own_box + 1, rest)


def _from_above(boxes: Tensor) -> Tensor:
    """(..., 7+) -> (..., 4) x and y of the corners of boxes turned to the nearest axis; as mmdet3d's nearest_bev."""
    yaw = boxes[..., YAW]
    across = (yaw - torch.floor(yaw / math.pi + 0.5) * math.pi).abs() > math.pi / 4
    size = torch.where(across[..., None], boxes[..., 3:5].flip(-1), boxes[..., 3:5])
    return torch.cat([boxes[..., :2] - size / 2, boxes[..., :2] + size / 2], dim=-1)


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Rectangles (V, G, 4) and (n, 4) -> IoU (V, G, n). mmdet's bbox_overlaps uploads a constant, for which the host waits."""
    a = a[:, :, None]
    reach = (torch.minimum(a[..., 2:], b[:, 2:]) - torch.maximum(a[..., :2], b[:, :2])).clamp(min=0)
    common = reach[..., 0] * reach[..., 1]
    area_a, area_b = ((c[..., 2] - c[..., 0]) * (c[..., 3] - c[..., 1]) for c in (a, b))
    return common / (area_a + area_b - common).clamp(min=TINY_M2)


@torch.no_grad()
def anchor_targets(anchors: Tensor, classes: Sequence[ClassAnchors], boxes: Tensor, labels: Tensor,
                   coder: ResidualBoxCoder) -> AnchorTargets:
    """Every class's anchors see only that class's boxes.

    Args:
        anchors: (N, 7), class by class in the order of `classes`.
        classes: their settings.
        boxes: (V, G, box size) padded; labels: (V, G) from 0, below 0 where it is padding.
        coder: makes the codes.
    """
    cells = len(anchors) // sum(settings.per_cell for settings in classes)
    all_labels, all_codes = [], []
    for label, (settings, own) in enumerate(zip(classes, anchors.split([c.per_cell * cells for c in classes]), strict=True)):
        assigned = assign_boxes(own, boxes, labels == label, settings.pos_iou_thr, settings.neg_iou_thr)
        positive = assigned > 0
        all_labels.append(torch.where(positive, label + 1, assigned))
        if not boxes.shape[1]:
            all_codes.append(own.new_zeros(*assigned.shape, coder.code_size))
            continue
        wanted = boxes.gather(1, (assigned - 1).clamp(min=0)[..., None].expand(-1, -1, boxes.shape[2]))
        codes = coder.encode(wanted.flatten(0, 1), own.repeat(len(boxes), 1)).view(*assigned.shape, -1)
        all_codes.append(torch.where(positive[..., None], codes, 0.0))
    return AnchorTargets(torch.cat(all_labels, dim=1), torch.cat(all_codes, dim=1))
