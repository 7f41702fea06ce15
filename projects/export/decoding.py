"""Export. In: what a 3-D head says of one frame. Out: its boxes before NMS, always as many, gravity centres (LiDAR frame)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.models.dense_heads import CenterHead
from torch import Tensor

from projects.memfusion.heads.seen_branch import BRANCH


def decode(head: Any, outputs: Any) -> dict[str, Tensor]:
    """As the head decodes; nothing is left out for its score or place.

    Args:
        head: mmdet3d's CenterHead, or a QueryHead.
        outputs: of its forward, one frame.

    Returns:
        boxes (N, 9): x, y, z of the gravity centre, l, w, h, yaw, vx, vy; scores (N,), falling within a task; labels (N,);
        seen (N,) in 0..1 where the head has such a branch. N is the head's max_num, of a CenterHead for each task, one task
        after the other.
    """
    if not isinstance(head, CenterHead):
        return _decode_queries(head, outputs)
    parts: list[dict[str, Tensor]] = []
    first_label = 0
    for number, (maps,) in zip(head.num_classes, outputs):
        parts.append(_decode_task(head, maps, first_label))
        first_label += number
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _decode_task(head: Any, maps: dict[str, Tensor], first_label: int) -> dict[str, Tensor]:
    coder, (height, width) = head.bbox_coder, maps['heatmap'].shape[-2:]
    scores, places = maps['heatmap'].sigmoid().flatten().topk(coder.max_num)
    labels, cell = places.div(height * width, rounding_mode='floor'), places % (height * width)
    row, column = cell.div(width, rounding_mode='floor'), cell % width

    def at(name: str) -> Tensor:  # (C, N)
        return maps[name][0].flatten(1).index_select(1, cell)

    place = torch.stack([column, row]).float() + at('reg')
    xy = [place[axis] * coder.out_size_factor * coder.voxel_size[axis] + coder.pc_range[axis] for axis in (0, 1)]
    sizes = at('dim').exp() if head.norm_bbox else at('dim')
    sine, cosine = at('rot')
    boxes = torch.stack([*xy, at('height')[0], *sizes, torch.atan2(sine, cosine), *at('vel')], dim=1)
    found = dict(boxes=boxes, scores=scores, labels=labels + first_label)
    return found | dict(seen=at(BRANCH)[0].sigmoid()) if BRANCH in maps else found


def _decode_queries(head: Any, outputs: Any) -> dict[str, Tensor]:
    logits, bottoms = outputs.logits[-1, 0], head.code.decode(outputs.codes[-1, 0])
    scores = logits.sigmoid() if outputs.there is None else logits.sigmoid() * outputs.there[0, :, None]
    scores, places = scores.flatten().topk(min(head.decoding.max_num, logits.numel()))
    boxes = bottoms.index_select(0, places.div(logits.shape[1], rounding_mode='floor'))
    centre_z = boxes[:, 2:3] + boxes[:, 5:6] / 2
    return dict(boxes=torch.cat([boxes[:, :2], centre_z, boxes[:, 3:]], dim=1), scores=scores, labels=places % logits.shape[1])
