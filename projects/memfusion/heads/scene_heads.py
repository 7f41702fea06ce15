"""Slot `pts_bbox_head`, one way to call every head. In: SceneFeatures, what the past adds. Out: outputs, losses, boxes.

mmdet3d's heads have two signatures (CenterHead, and the heads with anchors); an adapter for each kind hides which. A head that
speaks the protocol itself, as query heads do, needs none. Parameters stay the heads' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.models.dense_heads.base_3d_dense_head import Base3DDenseHead
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from projects.memfusion.structures import Readout, SceneFeatures, SceneHead, SceneTruth

from .anchor_multi import AnchorHeadMulti


class _BEVHead(SceneHead):
    """Heads on one BEV map, which is the readout's where memory makes one."""

    def __init__(self, head: Any) -> None:
        self.head, self.bev_channels, self.reads = head, head.in_channels, ()

    def forward(self, features: SceneFeatures, readout: Readout, truth: SceneTruth | None) -> Any:
        """As SceneHead.forward.

        Raises:
            ValueError: where memory changes heat maps, which the head does not have.
        """
        del truth
        if readout.heat is not None:
            raise ValueError(f'model.temporal.readout adds to heat maps, which {type(self.head).__name__} does not have: use a '
                             'CenterHead, or another readout')
        return self.head([features.needed_bev if readout.bev is None else readout.bev])


class _CenterHead(_BEVHead):
    def forward(self, features: SceneFeatures, readout: Readout, truth: SceneTruth | None) -> Any:
        outputs = super().forward(features, replace(readout, heat=None), truth)
        if readout.heat is None:
            return outputs
        return [[{**task, 'heatmap': task['heatmap'] + readout.heat} for task in tasks] for tasks in outputs]

    def loss_by_feat(self, outputs: Any, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        return self.head.loss_by_feat(outputs, [sample.gt_instances_3d for sample in samples])

    def predict_by_feat(self, outputs: Any, metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        return self.head.predict_by_feat(outputs, metas, rescale=True)


class _AnchorHead(_BEVHead):
    def loss_by_feat(self, outputs: Any, samples: Sequence[Det3DDataSample]) -> dict[str, Any]:
        # They replace the truth's boxes by bare tensors in the instances that they are given.
        truth = [sample.gt_instances_3d[:] for sample in samples]
        ignored = [sample.get('ignored_instances', None) for sample in samples]
        return self.head.loss_by_feat(*outputs, truth, [sample.metainfo for sample in samples], ignored)

    def predict_by_feat(self, outputs: Any, metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        return self.head.predict_by_feat(*outputs, batch_input_metas=list(metas))


class _AnchorHeadMulti(_BEVHead):
    def loss_by_feat(self, outputs: Any, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        return self.head.loss_by_feat(outputs, samples)

    def predict_by_feat(self, outputs: Any, metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        return self.head.predict_by_feat(outputs, metas)


@singledispatch
def scene_head(head: Any) -> SceneHead:
    """The head as a SceneHead; a kind of one's own that is called otherwise registers its adapter here.

    Raises:
        TypeError: for what is no SceneHead and has no adapter.
    """
    raise TypeError(f'model.pts_bbox_head: {type(head).__name__} is neither a CenterHead nor a head with anchors of mmdet3d: '
                    'derive it from projects.memfusion.heads.SceneHead')


@scene_head.register
def _(head: SceneHead) -> SceneHead:
    return head


@scene_head.register
def _(head: CenterHead) -> SceneHead:
    return _CenterHead(head)


@scene_head.register
def _(head: Base3DDenseHead) -> SceneHead:
    return _AnchorHead(head)


@scene_head.register
def _(head: AnchorHeadMulti) -> SceneHead:
    return _AnchorHeadMulti(head)
