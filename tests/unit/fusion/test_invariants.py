"""Unit: what holds for every fusion layer and every switch: identity, permutation, masks, gradients, any number of cameras."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from projects.memfusion.fusion import FusionTruth

from .conftest import CASES, NAMES, build, inputs, ring

CLOSE = dict(atol=5e-5, rtol=0)
"""Sums over cameras and tokens in another order differ by 2e-6; what one camera adds is 1e-3 and more."""


def levels_of(case: dict) -> int:
    return len(case.get('strides', (8,)))


def truth_of(bev: torch.Tensor, calibration) -> FusionTruth:
    heatmap = torch.zeros(len(bev), 1, 16, 16)
    heatmap[:, 0, 3, 4] = 1
    return FusionTruth(heatmap, calibration.calib_noise)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('training', [False, True])
def test_identity_at_initialisation(case, training):
    layer = build(**case, random_weights=False).train(training)
    calibration = ring(5)
    bev, feats = inputs(calibration, levels_of(case))
    assert (layer(bev, feats, calibration) - bev).abs().max() == 0


@pytest.mark.parametrize('case', CASES)
def test_the_order_of_the_cameras_makes_no_difference(case):
    layer, calibration = build(**case), ring(5, missing={0: [3]}, mixed=True)
    bev, feats = inputs(calibration, levels_of(case))
    fused, order = layer(bev, feats, calibration), [3, 0, 4, 2, 1]
    again = layer(bev, [f[:, order] for f in feats], calibration.take_cameras(order))
    assert (fused - bev).abs().max() > 1e-2, 'the layer does nothing, so the test proves nothing'
    torch.testing.assert_close(again, fused, **CLOSE)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('training', [False, True])
def test_masked_cameras_leave_the_lidar_alone_and_only_theirs(case, training):
    layer = build(**case).train(training)
    calibration = ring(3, missing={0: [0, 1, 2], 1: [1]})
    bev, feats = inputs(calibration, levels_of(case))
    feats[0][0] = float('nan')  # what a missing camera's image holds is never read
    fused = layer(bev, feats, calibration)
    assert torch.equal(fused[0], bev[0])
    assert torch.isfinite(fused).all() and (fused[1] - bev[1]).abs().max() > 1e-3
    fused.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if training or p.grad is not None)


@pytest.mark.parametrize('case', CASES)
def test_a_masked_camera_equals_a_rig_without_it(case):
    layer = build(**case)
    calibration = ring(4, missing={0: [2], 1: [2]})
    bev, feats = inputs(calibration, levels_of(case))
    rest = [0, 1, 3]
    fewer = layer(bev, [f[:, rest] for f in feats], calibration.take_cameras(rest))
    torch.testing.assert_close(layer(bev, feats, calibration), fewer, **CLOSE)


@pytest.mark.parametrize('case', CASES)
def test_what_pads_an_image_to_the_largest_of_the_batch_makes_no_difference(case):
    layer, calibration = build(**case), ring(4, mixed=True)
    bev, feats = inputs(calibration, levels_of(case))
    canvas = [torch.nn.functional.pad(f, (0, 4 >> k, 0, 2 >> k), value=50.0) for k, f in enumerate(feats)]
    fused = layer(bev, feats, calibration)
    for camera in (1, 3):  # the smaller ones have 5 x 9 cells of 8 px, 3 x 5 of 16 px
        for k, feature_map in enumerate(canvas):
            feature_map[:, camera, :, -(-5 // (1 << k)):] = 50.0
            feature_map[:, camera, :, :, -(-9 // (1 << k)):] = 50.0
    assert (fused - bev).abs().max() > 1e-2
    torch.testing.assert_close(layer(bev, canvas, calibration), fused, **CLOSE)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('count, mixed', [(1, False), (3, True), (5, False), (6, True), (8, True)])
def test_any_number_of_cameras_and_batched_equals_single(case, count, mixed):
    layer, calibration = build(**case), ring(count, mixed=mixed, missing={1: [0]} if count > 1 else None)
    bev, feats = inputs(calibration, levels_of(case))
    fused = layer(bev, feats, calibration)
    assert fused.shape == bev.shape and (fused[0] - bev[0]).abs().max() > 1e-3
    for v in range(2):
        one = torch.tensor([v])
        single = layer(bev[one], [f[one] for f in feats], calibration.select(one))
        torch.testing.assert_close(single, fused[one], **CLOSE)
    assert torch.equal(layer(bev, feats, calibration), fused), 'eval mode is deterministic'


@pytest.mark.parametrize('case', CASES)
def test_every_parameter_takes_part(case):
    layer = build(**case).train()
    calibration = ring(4, mixed=True)
    calibration = calibration.with_noise(torch.eye(4) + 0.02 * torch.eye(4).roll(1, 0).triu(3))
    bev, feats = inputs(calibration, levels_of(case))
    output = layer.fuse(bev, feats, calibration)
    loss = output.bev.square().sum() + sum(layer.loss(output.aux, truth_of(bev, calibration)).values())
    loss.backward()
    silent = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


@pytest.mark.parametrize('case', CASES)
def test_every_parameter_has_a_gradient_when_all_cameras_are_masked(case):
    layer, calibration = build(**case).train(), ring(2, missing={0: [0, 1], 1: [0, 1]})
    bev, feats = inputs(calibration, levels_of(case))
    bev.requires_grad_(True)
    output = layer.fuse(bev, feats, calibration)
    losses = layer.loss(output.aux, truth_of(bev, calibration))
    (output.bev.sum() + sum(losses.values())).backward()
    assert torch.equal(output.bev, bev)
    assert [name for name, p in layer.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    assert losses.get('loss_calib_pose', torch.tensor(0.0)) == 0 and losses.get('loss_calib_confidence', torch.tensor(0.0)) == 0


@pytest.mark.parametrize('case', [dict(kind='futr'), dict(), dict(film=dict(kind='off')), dict(sample=dict(kind='tokens'))],
                         ids=['futr', 'plus', 'film-off', 'tokens'])
def test_after_one_step_gradients_reach_images_selector_and_offsets(case):
    layer, calibration = build(**case, random_weights=False).train(), ring(4)
    bev, feats = inputs(calibration)
    backbone = torch.nn.Conv2d(5, 5, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    target = torch.randn(bev.shape, generator=torch.Generator().manual_seed(5))
    for _ in range(2):
        optimizer.zero_grad()
        backbone.zero_grad()
        image = backbone(feats[0].flatten(0, 1)).unflatten(0, (2, 4))
        (layer(bev, [image], calibration) - target).square().mean().backward()
        optimizer.step()
    assert backbone.weight.grad.abs().max() > 0
    if hasattr(layer, 'select'):
        assert layer.select.heatmap[-1].weight.grad.abs().max() > 0, 'the detection loss teaches the selector'
        if case.get('sample') is None:
            assert layer.sample.reader.offsets.weight.grad.abs().max() > 0
            assert layer.sample.reader.logits.weight.grad.abs().max() > 0
    layer.eval()
    masked = replace(calibration, cam_valid=torch.zeros_like(calibration.cam_valid))
    assert torch.equal(layer(bev, feats, masked), bev), 'trained weights as well'


@pytest.mark.parametrize('kind', ['offsets', 'pose'])
@pytest.mark.parametrize('sample', ['deformable', 'tokens'])
def test_half_precision_stays_near_and_spares_the_rig(kind, sample):
    layer, calibration = build(calib_refine=dict(kind=kind, confidence=True), sample=dict(kind=sample)), ring(4)
    torch.nn.init.normal_(layer.calib_refine.correct.weight, std=0.1)
    bev, feats = inputs(calibration)
    seen = []
    layer.geometry.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = layer(bev, feats, calibration)
        layer(bev.bfloat16(), [f.bfloat16() for f in feats], calibration)
        output = layer.fuse(bev, feats, calibration)
        losses = layer.loss(output.aux, FusionTruth(torch.zeros(len(bev), 1, *bev.shape[-2:]), calibration.calib_noise))
        total = output.bev.float().square().mean() + sum(losses.values())
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    assert (half - layer(bev, feats, calibration)).abs().median() < 0.02
    for refined in seen:
        assert refined.img_aug.dtype == refined.calib_noise.dtype == torch.float32
        changed = refined.img_aug if kind == 'offsets' else refined.calib_noise
        assert not torch.equal(changed, calibration.img_aug if kind == 'offsets' else calibration.calib_noise)
        assert not torch.equal(changed, changed.bfloat16().float()), 'rounded on the way'


def test_errors_name_what_is_wrong():
    calibration = ring(3)
    bev, feats = inputs(calibration)
    with pytest.raises(ValueError, match=r'bev_channels=6'):
        build()(bev[:, :4], feats, calibration)
    with pytest.raises(ValueError, match=r'img_feats\[0\].*CAM_0'):
        build()(bev, [feats[0][:, :2]], calibration)
    with pytest.raises(ValueError, match=r'levels \(0, 1\)'):
        build(strides=(8, 16))(bev, feats, calibration)
    with pytest.raises(ValueError, match=r'levels \(-3,\) has \[-3\], but img_neck gives 1 levels: 0 is the first'):
        build(levels=[-3])(bev, feats, calibration)
    with pytest.raises(ValueError, match='needs the Calibration'):
        build()(bev, feats, None)
    for none, said in ((calibration.select([]), '0 frames of 3'), (calibration.take_cameras(torch.arange(0)), '2 frames of 0')):
        for kind in ('futr', 'plus', 'fast', 'bevformer', 'petr'):
            with pytest.raises(ValueError, match=f'at least one frame and one camera, got {said} cameras'):
                build(kind)(*inputs(none), none)
    for kind, part in (('plus', 'tokens'), ('plus', 'sample'), ('bevformer', 'self_attention'), ('petr', 'embedding')):
        with pytest.raises(ValueError, match=rf"model.fusion_layer.{part}: no setting 'wdith'"):
            build(kind, **{part: dict(wdith=3)})
    for wrong in (4, 16, 32):
        with pytest.raises(ValueError, match=f'stride {wrong}.*fusion_layer.strides'):
            build(strides=(wrong,))(bev, feats, calibration)
    for stage in ('geometry', 'film', 'select', 'sample', 'calib_refine'):
        with pytest.raises(ValueError, match=f'fusion_layer.{stage}.kind'):
            build(**{stage: dict(kind='mlp')})
    with pytest.raises(ValueError, match='fusion_layer.geometry.kind'):
        build(film=dict(kind='off'), geometry=dict(kind='mlp'))  # told although nothing needs it there
    with pytest.raises(ValueError, match='both off'):
        build(film=dict(kind='off'), sample=dict(kind='off'))
    with pytest.raises(ValueError, match='one image level'):
        build('futr', strides=(8, 16))
    with pytest.raises(ValueError, match="'CAM_2'.*cam_names"):
        build(geometry=dict(kind='camera_id', cam_names=NAMES[:2]))(bev, feats, calibration)
