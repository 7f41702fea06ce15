"""Unit: FuTr cannot see the calibration, and its output is one scale and one shift per channel."""

from __future__ import annotations

from dataclasses import replace

import torch

from .conftest import build, inputs, ring


def test_calibration_makes_no_difference():
    layer, calibration = build('futr', grid=2), ring(4)
    bev, feats = inputs(calibration)
    turned = torch.eye(4)[[1, 2, 0, 3]]
    wrong = replace(calibration.with_noise(turned), img_from_cam=calibration.img_from_cam * 3,
                    bev_aug=turned.expand(2, 4, 4), distortion=calibration.distortion + 1)
    assert torch.equal(layer(bev, feats, wrong), layer(bev, feats, calibration))


def test_it_modulates_channels_and_reads_both_sides():
    layer, calibration = build('futr'), ring(4)
    bev, feats = inputs(calibration)
    fused = layer(bev, feats, calibration)
    for v in range(2):
        for c in range(6):  # fused = bev * (1 + scale) + shift: a line through all cells
            x = torch.stack([bev[v, c].flatten(), torch.ones(256)], dim=1)
            line = torch.linalg.lstsq(x, fused[v, c].flatten()[:, None]).solution
            assert (x @ line - fused[v, c].flatten()[:, None]).abs().max() < 1e-4
    assert (layer(bev, [feats[0] + 1], calibration) - fused).abs().max() > 1e-3
    scale = fused[0, 0].std() / bev[0, 0].std()
    other = layer(bev.roll(1, 1), feats, calibration)
    assert (other[0, 1].std() / bev[0, 0].std() - scale).abs() > 1e-4, 'the BEV has a say in the modulation'


def test_tokens_of_a_camera_are_the_mean_of_its_image():
    """One token: features that are moved around within an image are the same to FuTr."""
    layer, calibration = build('futr'), ring(3)
    bev, feats = inputs(calibration)
    shuffled = feats[0].flatten(3)[..., torch.randperm(96)].unflatten(3, (8, 12))
    torch.testing.assert_close(layer(bev, [shuffled], calibration), layer(bev, feats, calibration), atol=1e-5, rtol=0)
