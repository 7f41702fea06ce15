"""Heads, whether a box is seen now. In: CenterHead's maps with a branch `seen`. Out: its loss; boxes that carry its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from projects.memfusion.structures.box_scores import EXISTS, SEEN

BRANCH = 'seen'
NUM_POINTS = 'num_points'
"""Field of the truth: (n,) points that a box holds in this very frame."""


def points_of(truths: Sequence[InstanceData]) -> list[Tensor]:
    """B x (n,) points in the true boxes.

    Raises:
        ValueError: where boxes do not say how many they hold.
    """
    if any(NUM_POINTS not in truth and len(truth) for truth in truths):
        raise ValueError('model.pts_bbox_head.seen_weight trains from the points in boxes, and the frames do not count them: '
                         'put dict(type="CountBoxPoints") before PackClipFrame into the training pipeline')
    return [truth.get(NUM_POINTS, truth.labels_3d.new_zeros(0)) for truth in truths]


def seen_loss(logits: Tensor, num_points: Tensor, counts: Tensor, avg_factor: Tensor) -> Tensor:
    """Cross-entropy of boxes' logits (B, M) against whether they hold a point; `counts` (B, M) says which slots hold a box."""
    each = F.binary_cross_entropy_with_logits(logits.float(), (num_points > 0).float(), reduction='none')
    return (each * counts).sum() / (avg_factor + 1e-4)


class SeenBoxCoder:
    """mmdet3d's coder, whose boxes carry one number more: of `vel` maps (B, 3, H, W) the last is the branch's logit."""

    def __init__(self, coder: Any) -> None:
        self.coder, self.code_size = coder, coder.code_size + 1

    def decode(self, heat: Tensor, rot_sine: Tensor, rot_cosine: Tensor, hei: Tensor, dim: Tensor, vel: Tensor,
               reg: Tensor | None = None, task_id: int = -1) -> list[dict[str, Tensor]]:
        """As CenterPointBBoxCoder.decode; boxes (k, 10)."""
        found, with_logit = (
            self.coder.decode(heat, rot_sine, rot_cosine, hei, dim, maps, reg=reg, task_id=task_id)
            for maps in (vel[:, :2], vel[:, 2:].expand(-1, 2, -1, -1)))  # the second decodes the logit as a velocity
        return [{**one, 'bboxes': torch.cat([one['bboxes'], other['bboxes'][:, -1:]], dim=1)}
                for one, other in zip(found, with_logit)]


def with_logits(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A task's maps as SeenBoxCoder wants them."""
    return {**outputs, 'vel': torch.cat([outputs['vel'], outputs[BRANCH]], dim=1)}


def split_scores(found: InstanceData) -> InstanceData:
    """Boxes (n, 10) -> boxes (n, 9) and the two scores."""
    boxes = found.bboxes_3d
    split = InstanceData(bboxes_3d=type(boxes)(boxes.tensor[:, :-1], box_dim=boxes.tensor.shape[1] - 1),
                         scores_3d=found.scores_3d, labels_3d=found.labels_3d)
    split[EXISTS], split[SEEN] = found.scores_3d.clone(), boxes.tensor[:, -1].sigmoid()
    return split
