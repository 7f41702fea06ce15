"""Unit: which cells are active, how many, which are random, what the score learns from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from projects.memfusion.fusion import FusionTruth
from projects.memfusion.fusion.cell_selection import CellSelection
from projects.memfusion.fusion.fusion_state import CameraTokens, FusionState
from projects.memfusion.losses.fusion_losses import center_focal_loss

from .conftest import RANGE, ring


def state_of(bev_lidar: torch.Tensor, bev: torch.Tensor | None = None) -> FusionState:
    calibration = ring(1, frames=len(bev_lidar))
    nothing = torch.zeros(len(bev_lidar), 1, 1, 2)
    tokens = CameraTokens(nothing, nothing, nothing[..., 0].bool())
    return FusionState(bev_lidar, bev_lidar if bev is None else bev, [], tokens, calibration, nothing[..., 0, 0])


def test_occupancy_takes_the_cells_with_the_largest_norm_of_the_lidar_bev():
    bev = torch.zeros(2, 3, 4, 5)
    bev[0, :, 1, 2], bev[0, 0, 3, 4], bev[1, 2, 0, 0], bev[1, 1, 2, 1] = 1.0, -2.0, 3.0, 0.1
    cells = CellSelection(3, RANGE, 'occupancy', active_ratio=0.1).eval()(state_of(bev, torch.randn(2, 3, 4, 5)))
    assert cells.index.tolist() == [[7, 19], [0, 11]] and cells.score is None


def test_anchors_are_spread_evenly_whatever_their_number():
    """16 of 8 x 8 cells: one in each square of 2 x 2; of a map that is no square, as many in each part as its share."""
    cells = CellSelection(3, RANGE, 'anchor', active_ratio=0.25).eval()(state_of(torch.randn(2, 3, 8, 8))).index
    assert torch.equal(cells[0], cells[1]) and len({(at // 16, at % 8 // 2) for at in cells[0].tolist()}) == 16
    for ratio in (0.05, 0.1, 0.2):
        chosen = torch.zeros(24 * 40)
        chosen[CellSelection(3, RANGE, 'anchor', active_ratio=ratio).eval()(state_of(torch.randn(1, 3, 24, 40))).index[0]] = 1
        shares = chosen.view(3, 8, 5, 8).mean(dim=(1, 3))
        assert (shares - ratio).abs().max() <= 1.5 / 64, 'a part of 64 cells is one and a half cells off at most'


def test_geometric_cells_are_those_that_cameras_see_and_spread_evenly():
    """One camera that looks along x, 90 deg wide: the cells of its wedge; where that is too small, all of it and some more."""
    state = state_of(torch.randn(2, 3, 16, 16))
    x, y = (axis.flatten() for axis in torch.meshgrid(*[2.0 * torch.arange(16) - 15.0] * 2, indexing='xy'))
    angle = torch.atan2(y, x - 0.5) - 0.1
    wedge = set(((angle.abs() < 0.78) & (x > 1)).nonzero().flatten().tolist())
    few = CellSelection(3, RANGE, 'geometric', active_ratio=0.1).eval()(state).index[0]
    assert len(few) == 26 and set(few.tolist()) <= wedge
    rows = torch.bincount(few // 16, minlength=16)
    assert (rows[3:13] > 0).all(), 'all over the wedge, not a corner of it'
    many = set(CellSelection(3, RANGE, 'geometric', active_ratio=0.5).eval()(state).index[0].tolist())
    assert len(many) == 128 and wedge <= many
    state.calibration.cam_valid[1] = False
    half_blind = replace(state, calibration=replace(state.calibration))
    blind = CellSelection(3, RANGE, 'geometric', active_ratio=0.1).eval()(half_blind)
    anchors = CellSelection(3, RANGE, 'anchor', active_ratio=0.1).eval()(state)
    assert torch.equal(blind.index[1], anchors.index[1]) and torch.equal(blind.index[0], few)


@pytest.mark.parametrize('kind', ['random', 'anchor', 'geometric', 'heatmap', 'occupancy', 'learned'])
@pytest.mark.parametrize('training', [False, True])
def test_the_number_is_kept_without_doubles(kind, training):
    select = CellSelection(3, RANGE, kind, active_ratio=0.15, random_share=0.3).train(training)
    index = select(state_of(torch.randn(3, 3, 10, 20))).index
    assert index.shape == (3, 30) and (index.diff(dim=1) > 0).all() and index.min() >= 0 and index.max() < 200


def test_eval_mode_is_deterministic_and_training_draws():
    state = state_of(torch.randn(1, 3, 20, 20))
    select = CellSelection(3, RANGE, 'random', active_ratio=0.2).eval()
    assert torch.equal(select(state).index, select(state).index)
    select.train()
    assert not torch.equal(select(state).index, select(state).index)


def test_some_cells_are_random_in_training():
    """20 active, a quarter of them drawn from the 180 others: every other cell has its turn."""
    state, seen = state_of(torch.randn(1, 3, 10, 20)), torch.zeros(200)
    select = CellSelection(3, RANGE, 'learned', active_ratio=0.1, random_share=0.25)
    best = select.eval()(state).index[0]
    top = select.logits(state.bev).flatten().topk(20).indices
    assert set(best.tolist()) == set(top.tolist())
    select.train()
    for _ in range(400):
        seen[select(state).index[0]] += 1
    assert (seen[top[:15]] == 400).all() and seen.min() > 0
    others = torch.ones(200, dtype=torch.bool)
    others[top[:15]] = False
    assert abs(seen[others].mean() - 400 * 5 / 185) < 1e-3 and seen[others].max() < 40


def test_score_is_that_of_the_cell_and_only_learned_lets_it_through():
    state = state_of(torch.randn(2, 3, 6, 6))
    learned, heatmap = CellSelection(3, RANGE, 'learned').eval(), CellSelection(3, RANGE, 'heatmap').eval()
    cells = learned(state)
    torch.testing.assert_close(cells.score, cells.logits.flatten(1).gather(1, cells.index).sigmoid())
    assert heatmap(state).score is None and heatmap(state).logits.shape == (2, 1, 6, 6)
    assert abs(cells.logits.sigmoid().mean() - 0.1) < 0.08, 'centres are rare'


def test_focal_loss_by_hand():
    logits = torch.tensor([[[[0.0, math.log(3.0)]]]])  # 0.5 and 0.75
    heatmap = torch.tensor([[[[1.0, 0.5]]]])
    # centre: -ln 0.5 * 0.5^2; other: -ln 0.25 * 0.75^2 * 0.5^4
    wanted = 0.25 * math.log(2) + 0.5625 / 16 * math.log(4)
    assert center_focal_loss(logits, heatmap).item() == pytest.approx(wanted, rel=1e-5)
    two = center_focal_loss(logits.expand(2, -1, -1, -1), heatmap.expand(2, -1, -1, -1))
    assert two.item() == pytest.approx(wanted, rel=1e-5), 'per centre'
    with pytest.raises(ValueError, match='heatmap'):
        center_focal_loss(logits, heatmap[..., :1])


def test_selector_learns_the_centre_heatmap():
    """Centres lie where channel 0 is large: 60 steps on the loss alone, and the top cells are the centres."""
    torch.manual_seed(0)
    bev = torch.randn(4, 3, 12, 12)
    heatmap = torch.zeros(4, 144).scatter(1, bev[:, 0].flatten(1).topk(7).indices, 1.0).view(4, 1, 12, 12)
    select = CellSelection(3, RANGE, 'learned', active_ratio=7 / 144).train()
    optimizer = torch.optim.Adam(select.parameters(), lr=0.02)
    for _ in range(60):
        loss = select.loss(dict(heatmap_logits=select(state_of(bev)).logits), FusionTruth(heatmap, torch.eye(4)))
        optimizer.zero_grad()
        loss['loss_fusion_heatmap'].backward()
        optimizer.step()
    found = select.eval()(state_of(bev)).index
    assert heatmap.flatten(1).gather(1, found).mean() > 0.8


def test_bad_ratios_are_errors():
    with pytest.raises(ValueError, match='active_ratio'):
        CellSelection(3, RANGE, 'learned', active_ratio=0.0)
    with pytest.raises(ValueError, match='random_share'):
        CellSelection(3, RANGE, 'learned', random_share=1.0)
