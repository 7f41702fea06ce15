"""Unit: rig corrections: the exponential map, what a shift does to pixels, the losses, and that a correction can be learnt."""

from __future__ import annotations

import math

import pytest
import torch

from projects.memfusion.fusion import FusionTruth
from projects.memfusion.fusion.calib_refine import CalibRefine, rigid_from_twist
from projects.memfusion.fusion.fusion_state import CameraTokens, FusionState
from projects.memfusion.losses.fusion_losses import calibration_error

from .conftest import BEV_CHANNELS, IMG_CHANNELS, RANGE, STRIDE, inputs, ring


def refine(**settings) -> CalibRefine:
    torch.manual_seed(0)
    return CalibRefine(BEV_CHANNELS, IMG_CHANNELS, STRIDE, 0, RANGE, **{
        'grid': (4, 6), 'hidden_channels': 16, 'depths_m': (4.0, 8.0), 'loss_weight': 1.0, **settings})


def state_of(calibration, bev, feats) -> FusionState:
    nothing = torch.zeros(*calibration.cam_valid.shape, 1, 2)
    return FusionState(bev, bev, feats, CameraTokens(nothing, nothing, nothing[..., 0].bool()), calibration,
                       calibration.cam_valid.float())


def test_exponential_map_by_hand():
    quarter = rigid_from_twist(torch.tensor([0.0, 0.0, math.pi / 2, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(quarter, torch.tensor(
        [[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), atol=3e-6, rtol=0)  # two float32 steps of 1: 2.4e-7
    twist = torch.zeros(6, requires_grad=True)
    assert torch.equal(rigid_from_twist(twist), torch.eye(4)), 'exactly the identity at zero'
    rigid_from_twist(twist).sum().backward()
    assert torch.isfinite(twist.grad).all()
    error = rigid_from_twist(torch.tensor([math.radians(1.0), 0.0, math.radians(-2.0), 0.3, 0.0, 0.0]))
    angle_deg, shift_m = calibration_error(error)
    torch.testing.assert_close(angle_deg, torch.tensor([1.0, 0.0, -2.0]), atol=2e-3, rtol=0)
    assert abs(shift_m[0] - 0.3) < 1e-3


def test_shift_moves_pixels():
    calibration, shift = ring(3), torch.tensor([[[2.0, -1.0], [0.0, 0.0], [5.0, 7.0]]] * 2)
    points = torch.rand(2, 50, 3) * 20 - 10
    plain, moved = calibration.project_cam(calibration.to_cam(points)), calibration.with_shift(shift)
    uv_px, _, valid = moved.project_cam(moved.to_cam(points))
    torch.testing.assert_close((uv_px - plain[0])[valid], shift[:, :, None].expand_as(uv_px)[valid], atol=2e-3, rtol=1e-4)


def test_losses_are_zero_for_the_inverse_of_the_noise():
    layer, noise = refine(kind='pose', confidence=True), rigid_from_twist(0.02 * torch.randn(2, 3, 6))
    valid = torch.tensor([[True, True, False], [True, False, False]])
    aux = dict(cam_valid=valid, pose_correction=torch.linalg.inv(noise), confidence_logits=torch.full((2, 3), 30.0))
    truth = FusionTruth(torch.zeros(2, 1, 1, 1), noise)
    assert sum(layer.loss(aux, truth).values()) < 1e-3
    worse = noise.clone()
    worse[0, 2, 0, 3] += 9.0  # a camera that is not there
    assert sum(layer.loss(aux, FusionTruth(truth.heatmap, worse)).values()) < 1e-3
    # 2 deg of yaw left over in one of three cameras: 2 / 3 deg each
    left = torch.eye(4).repeat(2, 3, 1, 1)
    left[0, 1] = rigid_from_twist(torch.tensor([0.0, math.radians(2.0), 0.0, 0.0, 0.0, 0.0]))
    aux['pose_correction'] = left @ torch.linalg.inv(noise)
    losses = layer.loss(aux, truth)
    assert losses['loss_calib_pose'].item() == pytest.approx(2 / 3, rel=2e-3)
    # that camera deserves exp(-2), and is trusted fully: the cross-entropy is (1 - exp(-2)) * 30
    assert losses['loss_calib_confidence'].item() == pytest.approx((1 - math.exp(-2)) * 30 / 3, rel=1e-2)
    assert refine(kind='offsets').loss({}, truth) == {}


def test_corrections_act_on_the_rig_and_keep_their_limits():
    calibration = ring(3)
    bev, feats = inputs(calibration)
    for kind, limit in (('pose', None), ('offsets', 32.0)):
        layer = refine(kind=kind)
        torch.nn.init.constant_(layer.correct.bias, 50.0)
        state = layer(state_of(calibration, bev, feats))
        if limit:
            torch.testing.assert_close(state.calibration.img_aug[..., :2, 2], torch.full((2, 3, 2), limit))
            continue
        assert torch.equal(state.calibration.calib_noise, state.aux['pose_correction'])
        angle = torch.tensor(math.radians(5.0) * math.sqrt(3))  # 5 deg about each axis at once
        trace = state.aux['pose_correction'][..., :3, :3].diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(trace, (1 + 2 * angle.cos()).expand(2, 3), atol=1e-5, rtol=0)


def test_confidence_lowers_the_weight_and_masked_cameras_keep_none():
    calibration = ring(3, missing={0: [1]})
    bev, feats = inputs(calibration)
    state = refine(confidence=True)(state_of(calibration, bev, feats))
    sure = 1 / (1 + math.exp(-2.0))
    torch.testing.assert_close(state.weight, torch.tensor([[sure, 0.0, sure], [sure, sure, sure]]))
    untouched = state_of(calibration, bev, feats)
    assert refine()(untouched) is untouched and list(refine().parameters()) == []


def frames_with_yaw_errors(count: int) -> tuple[FusionState, FusionTruth]:
    """Images that show the BEV 6 m ahead of the camera's plane along the true rays, in rigs that are off by some 4 deg."""
    calibration, bev = ring(2, frames=count), torch.randn(count, BEV_CHANNELS, 16, 16)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing='ij')
    uv = (torch.stack([columns, rows], dim=-1).flatten(0, 1) * 8 + 3.5).expand(count, 2, -1, 2)
    points = calibration.unproject(uv, torch.full(uv.shape[:-1], 6.0))[..., :2] / 16
    feats = torch.nn.functional.grid_sample(bev, points, align_corners=False)[:, :IMG_CHANNELS]
    yaw = math.radians(4.0) * torch.randn(count, 2, 1)
    noise = rigid_from_twist(torch.cat([torch.zeros_like(yaw), yaw, torch.zeros(count, 2, 4)], dim=-1))
    state = state_of(calibration.with_noise(noise), bev, [feats.transpose(1, 2).unflatten(3, (8, 12))])
    return state, FusionTruth(bev[:, :1], noise)


def test_pose_errors_of_unseen_frames_are_found():
    """Image and BEV features that agree are given (both projections are the same), the comparison is learnt."""
    layer = refine(kind='pose', depths_m=(6.0,), grid=(1, 12), limits=(10.0, 0.5, 32.0))
    with torch.no_grad():
        for part in (layer.bev.weight, layer.bev.bias, layer.tokens.proj.bias):
            part.zero_()
        layer.bev.weight[:, :IMG_CHANNELS] = layer.tokens.proj.weight
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    test = frames_with_yaw_errors(32)

    def pose_loss(state: FusionState, truth: FusionTruth) -> torch.Tensor:
        return layer.loss(layer(state).aux, truth)['loss_calib_pose']

    before = pose_loss(*test).item()
    for _ in range(80):
        optimizer.zero_grad()
        pose_loss(*frames_with_yaw_errors(16)).backward()
        optimizer.step()
    assert pose_loss(*test).item() < 0.7 * before
