"""AnchorHeadMulti in the gated detector: all test modes of the slot's head, padding, frames without boxes, memory off."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate

CONFIG = 'configs/temporal/xmem-gate-multihead_pillar04_second_secfpn_tiny-synthetic.py'
SMALL = dict(
    grid=dict(voxel_size=[0.8, 0.8, 8.0]),
    pts_voxel_encoder=dict(feat_channels=[8]), pts_middle_encoder=dict(in_channels=8),
    pts_backbone=dict(in_channels=8, out_channels=[8, 8, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[8, 8, 16], out_channels=[8, 8, 8]),
    pts_bbox_head=dict(in_channels=24, shared_channels=8, branches=dict(channels=8)),
    temporal=dict(network=dict(in_channels=24, key_dim=8, value_dim=8, hidden_dim=8, feature_dim=16), alpha=1.0),
    test_cfg=dict(pts=dict(score_threshold=0.05, pre_max_size=20, post_max_size=10)))


@pytest.fixture(scope='module')
def config(repo):
    cfg = Config.fromfile(repo / CONFIG)
    cfg.merge_from_dict(dict(model=SMALL))
    return cfg.model


def build(config, temporal=(), **changes):
    cfg = copy.deepcopy(config)
    if temporal is None:
        cfg.temporal = None
    else:
        cfg.temporal.update(dict(temporal))
    cfg.train_cfg.update(changes)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(cfg)).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():  # also readouts, which begin with nothing to say
        if name.startswith('temporal.') and 'log_locality' not in name:
            parameter.data.add_(torch.rand(parameter.shape, generator=generator) * 0.2 - 0.1)
    for group in model.pts_bbox_head.group_heads:  # scores around 0.1, so that there are answers
        group.cls[-1].bias.data.fill_(-2.5)
        group.cls[-1].weight.data.mul_(3)
    return model


def batch(model, clips, training=False):
    return model.data_preprocessor(pseudo_collate(copy.deepcopy(clips)), training)


def test_alpha_0_is_the_plain_detector(config, make_frame):
    gated, plain = build(config, dict(alpha=0.0)), build(config, None)
    plain.load_state_dict({name: value for name, value in gated.state_dict().items() if not name.startswith('temporal.')})
    clips = [[make_frame('a', 0), make_frame('a', 1)]]
    ours, theirs = (model(**batch(model, clips), mode='predict')[0].pred_instances_3d for model in (gated, plain))
    assert len(ours) > 10
    assert torch.equal(ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor) and torch.equal(ours.scores_3d, theirs.scores_3d)
    assert torch.equal(ours.labels_3d, theirs.labels_3d)


def test_memory_changes_the_answer(config, make_frame):
    model = build(config)
    same = dict(seed=5)
    last = model(**batch(model, [[make_frame('a', 0), make_frame('a', 1, **same)]]), mode='predict')[0].pred_instances_3d
    alone = model(**batch(model, [[make_frame('b', 0, **same)]]), mode='predict')[0].pred_instances_3d
    assert len(last) and len(alone) and not torch.equal(last.scores_3d, alone.scores_3d)


@pytest.mark.parametrize('loss_frames', ['all', 'last'])
def test_every_parameter_learns_whatever_is_missing(config, make_frame, loss_frames):
    model = build(config, loss_frames=loss_frames).train()
    bare = make_frame('b', 1)
    bare['data_samples'].gt_instances_3d = bare['data_samples'].gt_instances_3d[:0]
    clips = [[make_frame('a', 0), make_frame('a', 1)],  # both there
             [make_frame('b', 0, valid=False), bare],  # padding, then no box
             [make_frame('c', 0), make_frame('c', 1, valid=False)]]  # the last frame was dropped
    for chosen in (clips, clips[1:2], clips[2:]):
        model.zero_grad(set_to_none=True)
        losses = model(**batch(model, chosen, training=True), mode='loss')
        assert {'loss_cls', 'loss_bbox', 'loss_occ_bce'} <= set(losses)
        sum(losses.values()).backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert missing == []


def test_detections_are_written_as_masks(config, make_frame):
    """Its own boxes, found through the head, change what memory holds."""
    masks = {}
    for source in ('detections', 'none'):
        model = build(config, dict(mask_source=source, masks=dict(score_threshold=0.06)))
        model(**batch(model, [[make_frame('a', 0), make_frame('a', 1)]]), mode='predict')
        masks[source] = next(iter(model.session.values())).state
    assert any(not torch.equal(value, getattr(masks['none'], name)) for name, value in masks['detections'].tensors().items())
