"""CenterHead. In: BEV features [(N, C, H, W)]. Out: boxes in the LiDAR frame. mmdet3d's, made for many boxes and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.models.utils import clip_sigmoid
from mmdet3d.registry import MODELS
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import pad_rows
from projects.memfusion.losses.ranks import mean_over_ranks

from .center_targets import UNUSED, CenterGrid, CenterTargets, center_targets
from .seen_branch import BRANCH, SeenBoxCoder, points_of, seen_loss, split_scores, with_logits


@MODELS.register_module()
class InitCenterHead(CenterHead):
    """mmdet3d's CenterHead, except that `separate_head.init_bias` takes effect and ranks share the normalisers of losses.

    mmdet3d keeps the task heads in a torch ModuleList, through which MMEngine's initialisation does not pass, so the
    bias is never written and training starts with half of all cells shouting "object". Only the bias is mended: the
    rest of SeparateHead's initialisation (Kaiming by fan-out on 1 to 3 output channels) would start the outputs at a
    standard deviation of 4. Parameter names are CenterHead's, so checkpoints load unchanged.

    mmdet3d divides by the positives of its own rank, so 2 x batch 1 is not 1 x batch 2. Dividing by the mean over ranks, one
    collective for all tasks, makes it so, since DDP averages gradients. In one process the losses are mmdet3d's.

    Args:
        seen_weight: weight of the loss of a branch that tells whether a box is seen now, from the points in true boxes
            (CountBoxPoints); boxes then have two scores, `exists_3d` (the heat map's) and `seen_3d`. 0 is no branch.
        common_heads, and the others: CenterHead's own.
    """

    def __init__(self, *args: Any, common_heads: Mapping[str, tuple[int, int]], seen_weight: float = 0.0,
                 **kwargs: Any) -> None:
        if seen_weight < 0:
            raise ValueError(f'model.pts_bbox_head.seen_weight must not be negative, got {seen_weight}')
        if seen_weight and 'vel' not in common_heads:
            raise ValueError('model.pts_bbox_head.seen_weight needs boxes with a velocity: common_heads.vel=(2, 2)')
        branch = {BRANCH: (1, 2)} if seen_weight else {}
        super().__init__(*args, common_heads={**common_heads, **branch}, **kwargs)
        self.seen_weight = seen_weight

    def init_weights(self) -> None:
        """Initialises as CenterHead does, then the heatmap biases."""
        super().init_weights()
        for head in self.task_heads:
            head.heatmap[-1].bias.data.fill_(head.init_bias)

    def get_targets(self, batch_gt_instances_3d: Sequence[InstanceData]) -> tuple[list[Tensor], ...]:
        """As mmdet3d's: heatmaps (B, K, H, W), boxes (B, M, 10), cells (B, M), which of them count (B, M) uint8, by task."""
        return self._lists(self._targets(batch_gt_instances_3d))

    def _targets(self, truths: Sequence[InstanceData]) -> CenterTargets:
        boxes, there = pad_rows([torch.cat([truth.bboxes_3d.gravity_center, truth.bboxes_3d.tensor[:, 3:]], dim=1)
                                 for truth in truths])
        labels = pad_rows([truth.labels_3d for truth in truths])[0].masked_fill(~there, UNUSED)
        return center_targets(boxes, labels, self.num_classes, CenterGrid.from_train_cfg(self.train_cfg, self.norm_bbox))

    def _lists(self, targets: CenterTargets) -> tuple[list[Tensor], ...]:
        # Contiguous, as mmdet3d's: sums over another order in memory differ in the last digit.
        heatmaps = [part.contiguous() for part in targets.heatmap.split(self.num_classes, dim=1)]
        return (heatmaps, *(list(part.unbind(1)) for part in (targets.codes, targets.cells, targets.filled.byte())))

    def loss_by_feat(self, preds_dicts: Sequence[list[dict[str, Tensor]]],
                     batch_gt_instances_3d: Sequence[InstanceData]) -> dict[str, Tensor]:
        """`task{i}.loss_heatmap`, `task{i}.loss_bbox` and, with a branch, `task{i}.loss_seen`; arguments as mmdet3d's, whose
        outputs it changes in place as well."""
        targets = self._targets(batch_gt_instances_3d)
        heatmaps, codes, cells, masks = self._lists(targets)
        counts = torch.stack([heatmap.eq(1).sum() for heatmap in heatmaps] + [mask.sum() for mask in masks]).float()
        positives, boxes = mean_over_ranks(counts).chunk(2)
        positives = positives.clamp(min=1.0 / get_world_size())  # one in all ranks together
        code_weights = torch.tensor(self.train_cfg['code_weights']).to(counts.device, non_blocking=True)
        losses = {}
        for task, (outputs,) in enumerate(preds_dicts):
            outputs['heatmap'] = clip_sigmoid(outputs['heatmap'])
            outputs['anno_box'] = torch.cat([outputs[name] for name in ('reg', 'height', 'dim', 'rot', 'vel')], dim=1)
            predicted = outputs['anno_box'].permute(0, 2, 3, 1).contiguous().flatten(1, 2)
            predicted = self._gather_feat(predicted, cells[task])
            weight = (masks[task][..., None] * ~codes[task].isnan()).float() * code_weights
            losses[f'task{task}.loss_heatmap'] = self.loss_cls(outputs['heatmap'], heatmaps[task], avg_factor=positives[task])
            losses[f'task{task}.loss_bbox'] = self.loss_bbox(predicted, codes[task], weight, avg_factor=boxes[task] + 1e-4)
        if self.seen_weight:
            losses.update(self._seen_losses(preds_dicts, targets, batch_gt_instances_3d, boxes))
        return losses

    def _seen_losses(self, preds_dicts: Sequence[list[dict[str, Tensor]]], targets: CenterTargets,
                     truths: Sequence[InstanceData], boxes: Tensor) -> dict[str, Tensor]:
        num_points = F.pad(pad_rows(points_of(truths))[0], (0, 1))  # empty slots may ask where there is no box
        losses = {}
        for task, (outputs,) in enumerate(preds_dicts):
            logits = outputs[BRANCH].flatten(1).gather(1, targets.cells[:, task])
            own = num_points.gather(1, targets.boxes[:, task])
            loss = seen_loss(logits, own, targets.filled[:, task], boxes[task])
            losses[f'task{task}.loss_seen'] = self.seen_weight * loss
        return losses

    def predict_by_feat(self, preds_dicts: Sequence[list[dict[str, Tensor]]], batch_input_metas: list[dict], *args: Any,
                        **kwargs: Any) -> list[InstanceData]:
        """As mmdet3d's; with a branch also `exists_3d` and `seen_3d` (n,), which changes neither boxes nor scores."""
        if not self.seen_weight:
            return super().predict_by_feat(preds_dicts, batch_input_metas, *args, **kwargs)
        coder: Any = self.bbox_coder
        self.bbox_coder: Any = SeenBoxCoder(coder)
        try:
            found = super().predict_by_feat([[with_logits(outputs)] for (outputs,) in preds_dicts], batch_input_metas, *args,
                                            **kwargs)
        finally:
            self.bbox_coder = coder
        return [split_scores(one) for one in found]
