"""Heads. In: BEV features [(V, C, H, W)], x along W, y along H. Out: boxes (n, 9) in the LiDAR frame; losses.

The anchor head of the published multi-head PointPillars (OpenPCDet, cbgs_pp_multihead, 58.23 NDS), which mmdet3d lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule, ModuleList
from mmengine.structures import InstanceData
from torch import Tensor

from projects.common.settings import read_settings
from projects.geometry import pad_rows

from .anchors import read_anchors
from .coder import YAW, DirectionBins, ResidualBoxCoder
from .groups import AnchorGroupHead, BranchSettings, GroupOutput
from .losses import LossWeights, MultiHeadLoss
from .postprocessing import BoxSelection
from .targets import AnchorTargets, anchor_targets


@MODELS.register_module()
class AnchorHeadMulti(BaseModule):
    """Groups of classes, each with anchors, class logits and regression branches of its own, on shared features.

    Args:
        in_channels: C of the BEV features.
        tasks: the groups, dict(class_names=[...]) each as in CenterHead; labels count through them.
        anchors: class name -> settings of ClassAnchors.
        point_cloud_range, bev_shape: what the BEV covers, metres, and (H, W); `model.grid` fills them in.
        bbox_coder: e.g. dict(type='ResidualBoxCoder', sincos_yaw=True).
        loss_cls, loss_bbox, loss_dir: losses of mmdet; loss_dir only with `direction`.
        branches: settings of BranchSettings; their numbers make up the coder's code.
        direction: settings of DirectionBins for a direction classifier, which takes a coder without sincos_yaw. The published
            config has none: its yaw is coded as cos and sin.
        shared_channels: C of the features that the groups share.
        norm_cfg: of the shared convolution's BatchNorm; that of the branches is in `branches`.
        train_cfg: settings of LossWeights; test_cfg: settings of BoxSelection.
    """

    grid_keys = dict(point_cloud_range='point_cloud_range', bev_shape='bev_shape')
    anchors: Tensor

    def __init__(
        self,
        in_channels: int,
        tasks: Sequence[Mapping[str, Any]],
        anchors: Mapping[str, Mapping[str, Any]],
        point_cloud_range: Sequence[float],
        bev_shape: Sequence[int],
        bbox_coder: dict,
        loss_cls: dict,
        loss_bbox: dict,
        loss_dir: dict | None = None,
        branches: Mapping[str, Any] | None = None,
        direction: Mapping[str, Any] | None = None,
        shared_channels: int = 64,
        norm_cfg: dict | None = None,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.class_names = [_names_of(task) for task in tasks]
        names = [name for group in self.class_names for name in group]
        if not names or len(set(names)) != len(names):
            raise ValueError(f'AnchorHeadMulti.tasks: every class needs to be in exactly one task, got {self.class_names}')
        self.in_channels, self.bev_shape = in_channels, (int(bev_shape[0]), int(bev_shape[1]))
        self.bbox_coder: ResidualBoxCoder = TASK_UTILS.build(bbox_coder)
        self.direction = None if direction is None else read_settings(DirectionBins, direction, 'AnchorHeadMulti.direction')
        if self.direction is not None and self.bbox_coder.sincos_yaw:
            raise ValueError('AnchorHeadMulti.direction needs bbox_coder.sincos_yaw=False: cos and sin tell front from back')
        settings = read_settings(BranchSettings, branches, 'AnchorHeadMulti.branches')
        if sum(settings.numbers.values()) != self.bbox_coder.code_size:
            raise ValueError(f'AnchorHeadMulti.branches.numbers {dict(settings.numbers)} add up to '
                             f'{sum(settings.numbers.values())}, but bbox_coder makes {self.bbox_coder.code_size} numbers')
        self.class_anchors = read_anchors(anchors, names)
        table = [row.spread(point_cloud_range, self.bev_shape) for row in self.class_anchors]
        self.register_buffer('anchors', torch.cat(table), persistent=False)
        weights = read_settings(
            LossWeights, {'code_weights': [1.0] * self.bbox_coder.code_size, **(train_cfg or {})}, 'model.train_cfg.pts')
        if len(weights.code_weights) != self.bbox_coder.code_size:
            raise ValueError(f'model.train_cfg.pts.code_weights needs {self.bbox_coder.code_size} numbers, got '
                             f'{len(weights.code_weights)}')
        self.losses_of = MultiHeadLoss(weights, loss_cls, loss_bbox, self.direction, loss_dir)
        self.select = read_settings(BoxSelection, test_cfg, 'model.test_cfg.pts')
        self.shared_conv = ConvModule(in_channels, shared_channels, 3, padding=1, bias=False,
                                      norm_cfg=norm_cfg or dict(type='BN', eps=1e-3, momentum=0.01))
        per_class = {name: row.per_cell for name, row in zip(names, self.class_anchors)}
        bins = None if self.direction is None else self.direction.num_bins
        self.group_heads = ModuleList([
            AnchorGroupHead(shared_channels, len(group), sum(per_class[name] for name in group), settings, bins)
            for group in self.class_names])

    @property
    def num_classes(self) -> list[int]:
        """Classes of each group."""
        return [len(group) for group in self.class_names]

    def forward(self, feats: Sequence[Tensor]) -> list[GroupOutput]:
        """[(V, C, H, W)] -> what every group says about its anchors.

        Raises:
            ValueError: where there is more than one level, or it is not of the shape that the anchors were made for.
        """
        if len(feats) != 1 or tuple(feats[0].shape[-2:]) != self.bev_shape:
            raise ValueError(f'AnchorHeadMulti has anchors for one level of {self.bev_shape} cells, but was given '
                             f'{[tuple(level.shape[-2:]) for level in feats]}: check the neck and model.grid')
        shared = self.shared_conv(feats[0])
        return [group(shared) for group in self.group_heads]

    # -- training -----------------------------------------------------------------------------------------------------
    def loss(self, feats: Sequence[Tensor], samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """loss_cls, loss_bbox and, with direction bins, loss_dir of V frames; every parameter takes part, boxes or none.

        A frame whose metainfo says is_labelled=False runs along, for the sake of other ranks, and does not count as a frame.
        """
        return self.loss_by_feat(self(feats), samples)

    def loss_by_feat(self, groups: Sequence[GroupOutput], samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """As `loss`, of what `forward` gave."""
        labelled = sum(bool(sample.metainfo.get('is_labelled', True)) for sample in samples)
        return self.losses_of(groups, self.targets(samples), self.anchors, labelled)

    def targets(self, samples: Sequence[Det3DDataSample]) -> AnchorTargets:
        """Labels and codes of the N anchors for V labelled frames."""
        boxes, there = pad_rows([self._boxes(sample) for sample in samples])
        labels = pad_rows([torch.as_tensor(sample.gt_instances_3d.labels_3d) for sample in samples])[0].masked_fill(~there, -1)
        device = self.anchors.device
        return anchor_targets(self.anchors, self.class_anchors, boxes.to(device), labels.to(device), self.bbox_coder)

    def _boxes(self, sample: Det3DDataSample) -> Tensor:
        """(G, box size), with their centre's z."""
        boxes = sample.gt_instances_3d.bboxes_3d.tensor.float()
        if boxes.shape[1] < self.bbox_coder.box_size:
            raise ValueError(f'sample {sample.metainfo.get("sample_token", "(no token)")}: boxes of {boxes.shape[1]} numbers, '
                             f'but AnchorHeadMulti learns {self.bbox_coder.box_size} (with velocity)')
        return _moved_by_height(boxes[:, :self.bbox_coder.box_size], 0.5)

    # -- testing ------------------------------------------------------------------------------------------------------
    def predict(self, feats: Sequence[Tensor], samples: Sequence[Det3DDataSample]) -> list[InstanceData]:
        """V x (bboxes_3d, scores_3d, labels_3d), by class, then by falling score."""
        return self.predict_by_feat(self(feats), [sample.metainfo for sample in samples])

    @torch.no_grad()
    def predict_by_feat(self, groups: Sequence[GroupOutput], metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        """As `predict`, of what `forward` gave; metas say `box_type_3d`."""
        boxes = self.decode(groups)
        scores = [group.cls_logits.float().sigmoid() for group in groups]
        found = []
        for frame, meta in enumerate(metas):
            kept, score, label = self.select(boxes[frame], [group[frame] for group in scores])
            kept = _moved_by_height(kept, -0.5)
            found.append(InstanceData(bboxes_3d=meta['box_type_3d'](kept, box_dim=kept.shape[1]), scores_3d=score,
                                      labels_3d=label))
        return found

    def decode(self, groups: Sequence[GroupOutput]) -> Tensor:
        """(V, N, box size) boxes of all anchors, with their centre's z."""
        boxes = self.bbox_coder.decode(torch.cat([group.box_codes.float() for group in groups], dim=1), self.anchors)
        if self.direction is not None:
            logits = [group.dir_logits for group in groups if group.dir_logits is not None]
            boxes[..., YAW] = self.direction.resolve(boxes[..., YAW], torch.cat(logits, dim=1).argmax(dim=-1))
        return boxes


def _names_of(task: Mapping[str, Any]) -> list[str]:
    names = list(task['class_names'])
    if task.get('num_class', len(names)) != len(names):
        raise ValueError(f'AnchorHeadMulti.tasks: num_class={task["num_class"]}, but class_names are {names}')
    return names


def _moved_by_height(boxes: Tensor, share: float) -> Tensor:
    """Boxes with z moved by a share of their height: 0.5 from the bottom to the centre, -0.5 back."""
    return torch.cat([boxes[:, :2], boxes[:, 2:3] + share * boxes[:, 5:6], boxes[:, 3:]], dim=1)
