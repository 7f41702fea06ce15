"""CenterHead. In: BEV features [(N, C, H, W)]. Out: boxes in the LiDAR frame. mmdet3d's, made for many boxes and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.models.utils import clip_sigmoid
from mmdet3d.registry import MODELS
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import pad_rows
from projects.memfusion.losses.ranks import mean_over_ranks

from .center_targets import UNUSED, CenterGrid, center_targets


@MODELS.register_module()
class InitCenterHead(CenterHead):
    """mmdet3d's CenterHead, except that `separate_head.init_bias` takes effect and ranks share the normalisers of losses.

    mmdet3d keeps the task heads in a torch ModuleList, through which MMEngine's initialisation does not pass, so the
    bias is never written and training starts with half of all cells shouting "object". Only the bias is mended: the
    rest of SeparateHead's initialisation (Kaiming by fan-out on 1 to 3 output channels) would start the outputs at a
    standard deviation of 4. Parameter names are CenterHead's, so checkpoints load unchanged.

    mmdet3d divides by the positives of its own rank, so 2 x batch 1 is not 1 x batch 2. Dividing by the mean over ranks, one
    collective for all tasks, makes it so, since DDP averages gradients. In one process the losses are mmdet3d's.
    """

    def init_weights(self) -> None:
        """Initialises as CenterHead does, then the heatmap biases."""
        super().init_weights()
        for head in self.task_heads:
            head.heatmap[-1].bias.data.fill_(head.init_bias)

    def get_targets(self, batch_gt_instances_3d: Sequence[InstanceData]) -> tuple[list[Tensor], ...]:
        """As mmdet3d's: heatmaps (B, K, H, W), boxes (B, M, 10), cells (B, M), which of them count (B, M) uint8, by task."""
        boxes, there = pad_rows([torch.cat([truth.bboxes_3d.gravity_center, truth.bboxes_3d.tensor[:, 3:]], dim=1)
                                 for truth in batch_gt_instances_3d])
        labels = pad_rows([truth.labels_3d for truth in batch_gt_instances_3d])[0].masked_fill(~there, UNUSED)
        targets = center_targets(boxes, labels, self.num_classes, CenterGrid.from_train_cfg(self.train_cfg, self.norm_bbox))
        # Contiguous, as mmdet3d's: sums over another order in memory differ in the last digit.
        heatmaps = [part.contiguous() for part in targets.heatmap.split(self.num_classes, dim=1)]
        return (heatmaps, *(list(part.unbind(1)) for part in (targets.codes, targets.cells, targets.filled.byte())))

    def loss_by_feat(self, preds_dicts: Sequence[list[dict[str, Tensor]]],
                     batch_gt_instances_3d: Sequence[InstanceData]) -> dict[str, Tensor]:
        """`task{i}.loss_heatmap` and `task{i}.loss_bbox`; arguments as mmdet3d's, whose outputs it changes in place as well."""
        heatmaps, codes, cells, masks = self.get_targets(batch_gt_instances_3d)
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
        return losses
