"""Anchor3DHead. In: BEV features [(N, C, H, W)]. Out: boxes in the LiDAR frame. mmdet3d's, with normalisers all ranks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmdet3d.models.dense_heads import Anchor3DHead
from mmdet3d.registry import MODELS
from mmengine.dist import get_world_size

from projects.memfusion.losses.ranks import mean_over_ranks


@MODELS.register_module()
class SyncAnchor3DHead(Anchor3DHead):
    """mmdet3d's Anchor3DHead, whose losses are divided by the anchors of all ranks; the same in one process.

    mmdet3d's divides by the positive anchors of its own rank, so 2 x batch 1 is not 1 x batch 2. Dividing by the mean over
    ranks makes it so, since DDP averages gradients. Parameter names are Anchor3DHead's, so checkpoints load unchanged.

    Frames whose metainfo says `is_labelled=False` count nowhere.

    Raises:
        ValueError: for settings that mmdet3d's head takes and then fails with, or takes and ignores.
    """

    def __init__(self, num_classes: int, in_channels: int, feat_channels: int = 256, **settings: Any) -> None:
        if in_channels != feat_channels:  # mmdet3d reads feat_channels alone
            raise ValueError(f'model.pts_bbox_head: in_channels={in_channels} and feat_channels={feat_channels} must both be '
                             'the channels of the BEV features')
        if not settings.get('use_direction_classifier', True):
            raise ValueError("model.pts_bbox_head.use_direction_classifier=False: mmdet3d's Anchor3DHead cannot predict "
                             'without its direction classes')
        super().__init__(num_classes, in_channels, feat_channels, **settings)
        values = 7 + len(self.prior_generator.custom_values)
        if values != self.box_code_size:
            raise ValueError(f'model.pts_bbox_head: anchors of {values} values (7 and custom_values), but bbox_coder.code_size='
                             f'{self.box_code_size}: with velocities write custom_values=[0, 0] and code_size=9')
        self._check_assigners(num_classes)

    def _check_assigners(self, num_classes: int) -> None:
        assigners = getattr(self, 'bbox_assigner', None)  # there is none without train_cfg
        sizes = len(self.prior_generator.sizes)
        if isinstance(assigners, list):
            if self.prior_generator.reshape_out or len(assigners) != sizes:
                raise ValueError(f'model.train_cfg.pts.assigner is a list of {len(assigners)}, one for each of the {sizes} '
                                 'entries of model.pts_bbox_head.anchor_generator.sizes, which also needs reshape_out=False')
            if self.assign_per_class and sizes != num_classes:
                raise ValueError(f'model.pts_bbox_head: assign_per_class=True with {sizes} anchor sizes and {num_classes=}: '
                                 "give one of sizes for each class, in the order of the data set's classes")
        elif assigners is not None and self.assign_per_class:
            raise ValueError('model.pts_bbox_head.assign_per_class=True needs a list of assigners in '
                             'model.train_cfg.pts.assigner, one for each class')

    def anchor_target_3d(self, anchor_list: list, batch_gt_instances_3d: list, batch_input_metas: list[Mapping[str, Any]],
                         **settings: Any) -> tuple | None:
        """As mmdet3d's; the last two, numbers of positive and of negative anchors, are means over ranks."""
        targets = super().anchor_target_3d(anchor_list, batch_gt_instances_3d, batch_input_metas, **settings)
        if targets is None or get_world_size() == 1:
            return targets
        counts = any(meta.get('is_labelled', True) for meta in batch_input_metas)
        mine = torch.tensor([float(n) * counts for n in targets[-2:]]).to(targets[0][0].device, non_blocking=True)
        return (*targets[:-2], *mean_over_ranks(mine).clamp(min=1.0 / get_world_size()))
