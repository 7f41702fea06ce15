"""Unit: token grid and FiLM by hand numbers."""

from __future__ import annotations

import math

import torch

from projects.memfusion.fusion.film import FiLM, soft_visibility
from projects.memfusion.fusion.fusion_state import CameraTokens, FusionState
from projects.memfusion.fusion.token_grid import TokenGrid
from projects.memfusion.structures import Calibration

from .conftest import RANGE, camera, randomise


def test_tokens_are_means_of_the_image_without_its_padding():
    # 40 x 72 px in a canvas of 64 x 96: 5 x 9 feature cells of 8 px; the other camera fills its 8 x 12 cells.
    calibration = Calibration.from_info(dict(A=camera(0.0, height=40, width=72), B=camera(1.0), C=camera(2.0)))
    calibration.cam_valid[0, 2] = False
    layer = TokenGrid(2, 2, 8, (2, 3))
    with torch.no_grad():
        layer.proj.weight.copy_(torch.eye(2))
        layer.proj.bias.zero_()
    feats = torch.full((1, 3, 2, 8, 12), 1e6)
    feats[:, :, 0], feats[:, :, 1] = torch.arange(12.0), torch.arange(8.0)[:, None]  # column and row numbers
    feats[0, 0, :, 5:], feats[0, 0, :, :, 9:] = 1e6, 1e6  # padding
    tokens = layer(feats, calibration)
    # full image: rows 0-3 and 4-7, columns 0-3, 4-7, 8-11; the small one: rows 0-2 and 2-4, columns 0-2, 3-5, 6-8
    torch.testing.assert_close(tokens.features[0, 1], torch.tensor(
        [[x, y] for y in (1.5, 5.5) for x in (1.5, 5.5, 9.5)]))
    torch.testing.assert_close(tokens.features[0, 0], torch.tensor([[x, y] for y in (1.0, 3.0) for x in (1.0, 4.0, 7.0)]))
    torch.testing.assert_close(tokens.uv_px[0, :2], tokens.features[0, :2] * 8 + 3.5)
    assert tokens.valid.all(-1).tolist() == [[True, True, False]] and tokens.features[0, 2].abs().max() == 0


def test_tokens_are_adaptive_pooling_of_each_image():
    calibration = Calibration.from_info(dict(A=camera(0.0, height=40, width=72), B=camera(1.0)))
    feats = torch.randn(1, 2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    for grid in (1, 3, (5, 7), 16):  # 16: more tokens than feature cells
        layer = TokenGrid(3, 4, 8, grid)
        for camera_index, part in enumerate((feats[0, 0, :, :5, :9], feats[0, 1])):
            pooled = torch.nn.functional.adaptive_avg_pool2d(part, grid).flatten(1).T
            torch.testing.assert_close(layer(feats, calibration).features[0, camera_index], layer.proj(pooled))


def test_tokens_of_large_values_and_of_maps_that_round_down():
    calibration = Calibration.from_info(dict(A=camera(0.0, height=36, width=36)))
    tokens = TokenGrid(1, 1, 8, 4)(torch.ones(1, 1, 1, 4, 4), calibration)  # 36 / 8 cells, rounded down
    assert tokens.features.unique().numel() == 1 and tokens.uv_px.max() == 27.5
    wide = Calibration.from_info(dict(A=camera(0.0, height=512, width=1408)))
    for dtype, value in ((torch.float16, 50.0), (torch.bfloat16, 50.0)):
        layer = TokenGrid(2, 2, 16, 1).to(dtype)
        pooled = layer(torch.full((1, 1, 2, 32, 88), value, dtype=dtype), wide).features
        torch.testing.assert_close(pooled[0, 0, 0], layer.proj(torch.full((2,), value, dtype=dtype)))


def test_soft_visibility_in_numbers():
    calibration = Calibration.from_info(dict(A=camera(0.0), B=camera(0.0)))
    calibration.cam_valid[0, 1] = False
    # u = 47.5 - 48 y / 8: y = 8 is u = -0.5, on the border; y = 4 is 24 px inside; (0, 0) is 32 px from top and bottom
    points = torch.tensor([[[8.0, 8.0, 0.0], [8.0, 4.0, 0.0], [8.0, 0.0, 0.0], [8.0, 12.0, 0.0], [-8.0, 0.0, 0.0]]])
    seen = soft_visibility(points, calibration, softness_px=8.0)
    wanted = torch.tensor([0.5, 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(3)), 0.0])
    torch.testing.assert_close(seen[0, 0], wanted, atol=1e-5, rtol=0)
    assert seen[0, 1].abs().max() == 0


def film_state(calibration: Calibration, weight) -> FusionState:
    frames, cameras = calibration.cam_valid.shape
    tokens = CameraTokens(torch.randn(frames, cameras, 1, 4), torch.zeros(frames, cameras, 1, 2),
                          calibration.cam_valid[..., None])
    bev = torch.randn(frames, 3, 16, 16)
    return FusionState(bev, bev, [], tokens, calibration, torch.tensor(weight).expand(frames, cameras))


def test_gated_film_changes_what_the_camera_sees():
    calibration = Calibration.from_info(dict(A=camera(0.0), B=camera(math.pi)))
    layer = randomise(FiLM(3, 4, RANGE, 'per_camera_gated', softness_px=1.0))
    state = film_state(calibration, [1.0, 0.0])
    change = (layer(state).bev - state.bev).abs()[0].sum(0)
    assert change[7:9, 12:].min() > 0.01 and change[:, :8].max() == 0, 'x runs along W; only the front camera has weight'
    per_camera = layer.output(layer.hidden(state.tokens.features[0, 0, 0]))
    gate = layer.gate((16, 16), calibration)[0, 0].view(16, 16)
    wanted = state.bev[0] * (1 + per_camera[:3, None, None] * gate) + per_camera[3:, None, None] * gate
    torch.testing.assert_close(layer(state).bev[0], wanted, atol=1e-5, rtol=0)


def test_film_weighs_cameras_by_confidence():
    calibration = Calibration.from_info(dict(A=camera(0.0), B=camera(math.pi)))
    for kind in ('global', 'per_camera_sum', 'per_camera_gated'):
        layer = randomise(FiLM(3, 4, RANGE, kind))
        state = film_state(calibration, [0.0, 0.0])
        assert torch.equal(layer(state).bev, state.bev)
        full = film_state(calibration, [1.0, 1.0])
        assert (layer(full).bev - full.bev).abs().max() > 0.05
