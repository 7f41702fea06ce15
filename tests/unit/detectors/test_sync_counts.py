"""How often a step, an encoding, a fusion and a training step would wait for a GPU; the same whatever the batch and the rig."""

from __future__ import annotations

import copy

import pytest
import small_models
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from sync_counts import counting

from projects.benchmarks import ring as rings
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.camera_frame import CameraFrame

CAMERAS = 'configs/fusion/futrpp-xmem-residual_r18_pillar04_second_secfpn_tiny-synthetic.py'
SMALL = {**small_models.SMALL, **small_models.CAMERAS, **small_models.MEMORY, 'task_heads': None}
STEP, ENCODE, FUSION, TRAINING = 12, 8, 4, 12
IMAGE = (48, 64)


def ring(count):
    """`count` level cameras around the LiDAR."""
    return rings.ring(count, IMAGE, 40, (IMAGE[1] / 2, IMAGE[0] / 2))


@pytest.fixture
def clip(make_frame):
    """clip(scene, indices, cameras): packed frames of one scene."""

    def make(scene, indices, cameras=0):
        frames = [make_frame(scene, index, points=600) for index in indices]
        for frame in frames if cameras else ():
            images = tuple(torch.full((3, *IMAGE), 40 * i, dtype=torch.uint8) for i in range(cameras))
            frame['inputs']['cameras'] = CameraFrame(images, ring(cameras))
        return frames

    return make


@pytest.fixture(scope='module')
def gated(small_detector):
    return small_detector(dict(readout=dict(type='GateReadout')))


@pytest.fixture(scope='module')
def fused(repo):
    config = Config.fromfile(repo / CAMERAS)
    config.merge_from_dict(dict(model=SMALL))
    torch.manual_seed(0)
    return MODELS.build(config.model).eval()


@pytest.fixture
def streamed(collated, clip):
    """streamed(model, name, batch, cameras): how often each call of the model's `name` waits in a scene's third frame."""

    @torch.no_grad()
    def run(model, name, batch, cameras=0):
        model.session.clear()
        for index in range(3):
            data = collated(model, [clip('abcd'[b], [index], cameras) for b in range(batch)])
            with counting() as counts, counts.keep_apart(model.pts_bbox_head, 'predict_by_feat'), \
                    counts.only_in(model, name) as calls:
                model(**data, mode='predict')
        assert len(calls) == 1
        return counts

    return run


@pytest.fixture
def trained(collated, clip):
    """trained(model, batch, cameras): how often a training step on clips of two frames waits."""

    def run(model, batch, cameras=0):
        model = copy.deepcopy(model).train()
        data = collated(model, [clip('abcd'[b], range(2), cameras) for b in range(batch)], training=True)
        with counting() as counts:
            losses = model(**data, mode='loss')
            model.parse_losses(losses)[0].backward()
        return counts

    return run


def check(small, large, limit):
    assert small.total <= limit, small
    assert large.total == small.total, f'{small}\n-- in the larger batch or rig --\n{large}'
    assert sum(large.uploads.values()) == sum(small.uploads.values()), f'{small}\n-- in the larger batch or rig --\n{large}'


def test_a_step(gated, streamed):
    check(streamed(gated, 'step', 1), streamed(gated, 'step', 4), STEP)


@pytest.mark.parametrize('temporal', [
    dict(mask_source='detections', masks=dict(score_threshold=0.0, num_agents=3)),
    dict(ego_channels=True, motion_gate={}), dict(max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=8)),
    dict(type='StackFusion', in_channels=24, hidden_dim=8), dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8),
    dict(type='BEVFormerTemporal', in_channels=24, hidden_dim=8, ffn_channels=8),
    dict(type='CopyMemory', in_channels=24, value_dim=8, key_dim=4, mem_every=2),
    dict(type='CopyMemory', in_channels=24, value_dim=8, num_slots=1, long_term=True),
    dict(type='CopyMemory', in_channels=24, value_dim=8, mem_policy=dict(type='sa'))])
def test_a_step_of_other_memories(temporal, small_detector, streamed):
    model = small_detector(temporal)
    check(streamed(model, 'step', 1), streamed(model, 'step', 4), STEP)


def test_an_encoding(gated, streamed):
    check(streamed(gated, 'encode', 1), streamed(gated, 'encode', 4), ENCODE)


def test_a_training_step(gated, trained):
    check(trained(gated, 1), trained(gated, 4), TRAINING)


@pytest.mark.parametrize('name, limit', [('step', STEP), ('encode', ENCODE)])
def test_cameras(name, limit, fused, streamed):
    few = streamed(fused, name, 1, 2)
    check(few, streamed(fused, name, 1, 6), limit)
    check(few, streamed(fused, name, 4, 2), limit)


def test_a_training_step_with_cameras(fused, trained):
    few = trained(fused, 1, 2)
    check(few, trained(fused, 1, 6), TRAINING)
    check(few, trained(fused, 4, 2), TRAINING)


def test_a_fusion(fused):
    check_fusion(fused.fusion_layer, fused.grid.bev_shape)


@pytest.mark.parametrize('changes', [
    dict(type='BEVFormerLiteFusion', query_init='lidar'),
    dict(type='BEVFormerLiteFusion', query_init='learned', cross_attention=dict(kind='deformable', num_points=4)),
    dict(type='PETRv2Fusion', query_init='lidar', embedding=dict(depths=4))])
def test_a_fusion_of_queries(changes):
    check_fusion(MODELS.build(dict(
        bev_channels=24, img_channels=16, strides=(8,), bev_shape=(8, 8),
        point_cloud_range=(-8, -8, -3, 8, 8, 3), layers=dict(dim=16, num_heads=2, ffn_channels=8), **changes)), (8, 8))


def check_fusion(layer, bev_shape):
    found = []
    for frames, cameras in ((1, 2), (1, 6), (4, 2)):
        calibration = Calibration.cat([ring(cameras)] * frames)
        levels = [torch.rand(frames, cameras, 16, *(side // stride for side in IMAGE)) for stride in layer.strides]
        bev = None if layer.makes_bev else torch.rand(frames, 24, *bev_shape)
        with torch.no_grad():
            layer.eval()(bev, levels, calibration)  # a rig that comes again is compared with the one before
            with counting() as counts:
                layer(bev, levels, calibration)
        found.append(counts)
    for other in found[1:]:
        check(found[0], other, FUSION)
