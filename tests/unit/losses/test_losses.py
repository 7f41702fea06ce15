"""Occupancy loss by hand; shared normalisers equal mmdet's losses in one process and make ranks add up in two."""

import math

import pytest
import torch
from mmdet.models.losses import GaussianFocalLoss, L1Loss

from projects.memfusion.losses import center_losses, ranks
from projects.memfusion.losses.center_losses import SyncGaussianFocalLoss, SyncL1Loss
from projects.memfusion.losses.occupancy_loss import OccupancyLoss


def test_occupancy_loss_by_hand():
    logits = torch.tensor([0.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    losses = OccupancyLoss(hard_fraction=0.5, warmup_iters=(0, 0))(logits, target)
    assert losses['loss_occ_bce'].item() == pytest.approx(math.log(2))
    # 1 - (2 * 0.5 + 1) / (2 + 1 + 1)
    assert losses['loss_occ_dice'].item() == pytest.approx(0.5)


def test_only_the_hardest_cells_count():
    logits = torch.tensor([-20.0] * 9 + [5.0]).view(1, 1, 2, 5)
    losses = OccupancyLoss(hard_fraction=0.1, warmup_iters=(0, 0))(logits, torch.zeros(1, 1, 2, 5))
    assert losses['loss_occ_bce'].item() == pytest.approx(5.0067, abs=1e-4)
    with pytest.raises(ValueError, match='hard_fraction'):
        OccupancyLoss(hard_fraction=0.0)


def test_cross_entropy_narrows_from_all_cells_to_the_hardest():
    loss = OccupancyLoss(hard_fraction=0.2, warmup_iters=(2, 6)).train()
    fractions = []
    for _ in range(9):
        fractions.append(loss.current_fraction())
        loss(torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 2, 5))
    assert fractions == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    loss.eval()(torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 2, 5))
    assert int(loss.state_dict()['iteration']) == 9
    with pytest.raises(ValueError, match='warmup_iters'):
        OccupancyLoss(warmup_iters=(5, 1))


def test_frames_are_averaged():
    logits, target = torch.randn(3, 1, 4, 4), torch.rand(3, 1, 4, 4).round()
    loss = OccupancyLoss()
    single = [loss(logits[i:i + 1], target[i:i + 1]) for i in range(3)]
    for key, value in loss(logits, target).items():
        assert value.item() == pytest.approx(sum(s[key].item() for s in single) / 3, rel=1e-5)


def heat(seed):
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(1, 2, 8, 8, generator=g) * 0.9
    target.view(-1)[torch.randperm(128, generator=g)[:seed + 1]] = 1.0
    return torch.rand(1, 2, 8, 8, generator=g).clamp(0.05, 0.95), target


def test_one_process_is_mmdets_loss_bit_for_bit():
    pred, target = heat(2)
    assert torch.equal(SyncGaussianFocalLoss()(pred, target, avg_factor=3), GaussianFocalLoss()(pred, target, avg_factor=3))
    box, truth, weight = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.rand(2, 5, 8)
    factor = torch.tensor(7.0)
    assert torch.equal(SyncL1Loss(loss_weight=0.25)(box, truth, weight, avg_factor=factor),
                       L1Loss(loss_weight=0.25)(box, truth, weight, avg_factor=factor))


def test_two_ranks_average_to_the_loss_of_both(monkeypatch):
    """Rank losses with a shared normaliser have the mean that one process with both samples has."""
    (pred_a, target_a), (pred_b, target_b) = heat(1), heat(6)
    whole = GaussianFocalLoss()(torch.cat([pred_a, pred_b]), torch.cat([target_a, target_b]), avg_factor=2 + 7)
    for module in (ranks, center_losses):
        monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    monkeypatch.setattr(center_losses, 'mean_over_ranks', lambda value: torch.tensor((2 + 7) / 2))
    loss = SyncGaussianFocalLoss()
    shares = [loss(pred_a, target_a, avg_factor=2), loss(pred_b, target_b, avg_factor=7)]
    assert (sum(shares) / 2).item() == pytest.approx(whole.item(), rel=1e-6)


def test_init_bias_reaches_the_heatmaps(repo):
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet3d')
    model = MODELS.build(Config.fromfile(repo / 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py').model)
    model.init_weights()
    biases = [head.heatmap[-1].bias for head in model.pts_bbox_head.task_heads]
    assert all((bias == -2.19).all() for bias in biases)
