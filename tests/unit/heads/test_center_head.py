"""InitCenterHead: targets and losses are mmdet3d's bit for bit in one process; two ranks have the losses of both."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch.testing import assert_close

from projects.memfusion import heads

TASKS = [['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'], ['motorcycle', 'bicycle'],
         ['pedestrian', 'traffic_cone']]
RANGE = [-25.6, -12.8, -5.0, 25.6, 12.8, 3.0]
TRAIN = dict(dense_reg=1, max_objs=40, gaussian_overlap=0.1, min_radius=2, grid_size=[256, 128, 1], voxel_size=[0.2, 0.2, 8],
             out_size_factor=4, point_cloud_range=RANGE, code_weights=[1.0] * 8 + [0.2] * 2)


def build(kind, norm_bbox=True, **train):
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    loss = 'MaskedL1Loss' if kind is heads.InitCenterHead else 'mmdet.L1Loss'
    return MODELS.build(dict(
        type=kind, in_channels=4, share_conv_channel=8, norm_bbox=norm_bbox, tasks=[dict(class_names=names) for names in TASKS],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        bbox_coder=dict(type='CenterPointBBoxCoder', pc_range=RANGE[:2], out_size_factor=4, voxel_size=[0.2, 0.2]),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type=loss, reduction='mean', loss_weight=0.25), train_cfg=ConfigDict({**TRAIN, **train})))


def truth(count, seed):
    """Boxes of all classes and of none, in and around the range."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=g) * torch.tensor([56.0, 28, 4, 12, 4, 3, 7, 8, 8]) \
        - torch.tensor([28.0, 14, 3, -0.1, -0.1, -0.1, 3, 4, 4])
    labels = torch.randint(-1, 10, (count,), generator=g)
    if count > 5:
        boxes[1, :2], labels[1] = boxes[0, :2], labels[0]  # two in a cell
        boxes[2, :2] = boxes[0, :2]
        boxes[3, 3], boxes[4, 4] = 0, -1  # no area
        boxes[5, :2] = torch.tensor([RANGE[0] - 0.1, RANGE[1] - 0.7])  # less than a cell outside
    return InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=labels)


@pytest.mark.parametrize('counts, settings', [
    ((60, 0, 7), {}), ((0, 0), {}), ((30, 50), dict(max_objs=4)), ((40,), dict(dense_reg=2, max_objs=2, norm_bbox=False))])
def test_targets_are_mmdet3ds(counts, settings):
    from mmdet3d.models.dense_heads import CenterHead
    ours, theirs = (build(kind, **settings) for kind in (heads.InitCenterHead, CenterHead))
    truths = [truth(count, seed) for seed, count in enumerate(counts)]
    for mine, other in zip(ours.get_targets(truths), theirs.get_targets(truths), strict=True):
        for a, b in zip(mine, other, strict=True):  # a tensor for each task
            assert a.dtype == b.dtype
            assert_close(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)
    if max(counts):
        assert sum(int(mask.sum()) for mask in ours.get_targets(truths)[3]) > 3


def test_one_process_has_mmdet3ds_losses_bit_for_bit():
    from mmdet3d.models.dense_heads import CenterHead
    ours, theirs = (build(kind) for kind in (heads.InitCenterHead, CenterHead))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    features = torch.randn(2, 4, 32, 64)
    for counts in ((5, 2), (0, 0)):
        truths = [truth(count, seed) for seed, count in enumerate(counts)]
        mine, other = (head.loss_by_feat(head([features]), copy.deepcopy(truths)) for head in (ours, theirs))
        assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize('counts', [(5, 2), (0, 5), (0, 0)])
def test_two_ranks_have_the_loss_of_both_with_one_collective(on_two_ranks, counts):
    """Each task's factor of a heatmap is at least one positive in all ranks together."""
    head, features = build(heads.InitCenterHead).eval(), torch.randn(2, 4, 32, 64)
    truths = [truth(count, seed) for seed, count in enumerate(counts)]
    whole = head.loss_by_feat(head([features]), truths)
    shares = on_two_ranks(*[lambda i=i: head.loss_by_feat(head([features[i:i + 1]]), truths[i:i + 1]) for i in range(2)])
    for name, value in whole.items():
        assert_close((shares[0][name] + shares[1][name]) / 2, value, rtol=1e-4, atol=1e-6)
