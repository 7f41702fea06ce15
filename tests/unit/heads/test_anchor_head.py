"""SyncAnchor3DHead: mmdet3d's losses bit for bit in one process; ranks with unequal shares add up to one process with all."""

import copy

import pytest
import torch
from mmdet3d.models.task_modules.assigners import Max3DIoUAssigner
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from projects.memfusion.heads import AllBoxesMax3DIoUAssigner, anchor_head
from projects.memfusion.losses import ranks

HEAD = dict(
    type='SyncAnchor3DHead', num_classes=3, in_channels=8, feat_channels=8,
    anchor_generator=dict(type='AlignedAnchor3DRangeGenerator', ranges=[[-8, -8, -1.8, 8, 8, -1.8]],
                          sizes=[[4.6, 1.9, 1.7], [0.7, 0.7, 1.8]], custom_values=[0, 0]),
    bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder', code_size=9),
    loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
    train_cfg=ConfigDict(
        assigner=dict(type='AllBoxesMax3DIoUAssigner', iou_calculator=dict(type='BboxOverlapsNearest3D'), pos_iou_thr=0.5,
                      neg_iou_thr=0.3, min_pos_iou=0.05, ignore_iof_thr=-1),
        allowed_border=0, code_weight=[1.0] * 9, pos_weight=-1, debug=False))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(HEAD))


def frame(seed, boxes, **metainfo):
    """Features (1, 8, 16, 16) and a sample with that many boxes."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(boxes, 9, generator=g) * torch.tensor([12.0, 12, 0, 3, 1, 1, 6, 1, 1]) \
        + torch.tensor([-6.0, -6, -1.8, 1, 0.8, 1, 0, 0, 0])
    sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes, **metainfo))
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(truth, box_dim=9), labels_3d=torch.randint(0, 3, (boxes,), generator=g))
    return torch.randn(1, 8, 16, 16, generator=g), sample


def losses(head, *frames):
    features, samples = zip(*copy.deepcopy(frames))
    return {name: sum(value) for name, value in head.loss([torch.cat(features)], list(samples)).items()}


@pytest.mark.parametrize('settings', [{}, dict(gt_max_assign_all=False), dict(match_low_quality=False),
                                      dict(neg_iou_thr=(0.1, 0.3))])
def test_all_boxes_at_once_are_assigned_as_one_by_one(settings):
    """Overlaps on a coarse scale: boxes often share their best anchor, and anchors their best box."""
    thresholds = {**dict(pos_iou_thr=0.6, neg_iou_thr=0.3, min_pos_iou=0.2), **settings}
    ours, theirs = (kind(**thresholds, iou_calculator=dict(type='BboxOverlapsNearest3D'))
                    for kind in (AllBoxesMax3DIoUAssigner, Max3DIoUAssigner))
    seen, g = set(), torch.Generator().manual_seed(0)
    for boxes in (0, 1, 7, 30):
        overlaps = (torch.rand(boxes, 40, generator=g) ** 3 * 10).floor() / 10
        labels = torch.randint(10, (boxes,), generator=g)
        mine, other = (assigner.assign_wrt_overlaps(overlaps, labels) for assigner in (ours, theirs))
        for name in ('gt_inds', 'labels', 'max_overlaps'):
            assert torch.equal(getattr(mine, name), getattr(other, name)), name
        seen |= set(mine.gt_inds.clamp(-1, 1).tolist())
    assert seen == {-1, 0, 1}


def test_one_process_is_mmdet3ds_bit_for_bit(head):
    settings = copy.deepcopy(HEAD)
    settings['train_cfg']['assigner']['type'] = 'Max3DIoUAssigner'
    plain = MODELS.build({**settings, 'type': 'Anchor3DHead'})
    plain.load_state_dict(head.state_dict(), strict=True)
    for boxes in (0, 5):
        ours, theirs = (losses(h, frame(1, boxes), frame(2, 2)) for h in (head, plain))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize('second', [3, 0, None], ids=['boxes', 'no boxes', 'no frame'])
def test_ranks_average_to_one_process_with_all_frames(head, second, monkeypatch):
    """`None`: a rank whose frames were all dropped runs the head on one that is not labelled, and counts nothing."""
    idle = second is None
    mine, other = frame(1, 9), frame(2, second or 0, is_labelled=not idle)
    whole = losses(head, mine) if idle else losses(head, mine, other)
    counted = []
    for module in (ranks, anchor_head):
        monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(anchor_head, 'mean_over_ranks', lambda value: counted.append(value) or value)
    for one in (mine, other):
        losses(head, one)
    shared = sum(counted) / 2  # what the ranks agree on
    monkeypatch.setattr(anchor_head, 'mean_over_ranks', lambda value: shared)
    shares = [losses(head, mine), {name: (0.0 if idle else 1.0) * value for name, value in losses(head, other).items()}]
    for name, value in whole.items():
        assert (shares[0][name] + shares[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-5), name
    assert counted[0][0] > 1 and (counted[1].sum() == 0) == idle


def test_nothing_to_count_on_any_rank_is_finite(head, monkeypatch):
    monkeypatch.setattr(anchor_head, 'get_world_size', lambda: 2)
    monkeypatch.setattr(anchor_head, 'mean_over_ranks', lambda value: value)
    assert all(torch.isfinite(value) for value in losses(head, frame(3, 0, is_labelled=False)).values())
