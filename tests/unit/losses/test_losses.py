"""Occupancy loss by hand; the masked L1 loss is mmdet's."""

import math

import pytest
import torch
from mmdet.models.losses import L1Loss

from projects.memfusion.losses.center_losses import MaskedL1Loss
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


def test_masked_l1_is_mmdets_where_targets_are_numbers_and_finite_where_they_are_not():
    g = torch.Generator().manual_seed(0)
    box, truth = torch.randn(2, 5, 8, generator=g), torch.randn(2, 5, 8, generator=g)
    weight, factor = torch.rand(2, 5, 8, generator=g) * (torch.rand(2, 5, 1, generator=g) > 0.5), torch.tensor(7.0)
    loss, expected = MaskedL1Loss(loss_weight=0.25), L1Loss(loss_weight=0.25)(box, truth, weight, avg_factor=factor)
    assert torch.equal(loss(box, truth, weight, factor), expected) and expected > 0
    assert torch.equal(loss(box, truth.masked_fill(weight == 0, torch.nan), weight, factor), expected)
    assert loss(box, truth, torch.zeros_like(weight), torch.tensor(1e-4)) == 0


def test_the_count_of_iterations_is_resumed():
    """What the host counts is the buffer in the checkpoint."""
    trained, resumed = OccupancyLoss(warmup_iters=(0, 4)).train(), OccupancyLoss(warmup_iters=(0, 4))
    for _ in range(3):
        trained(torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 2, 5))
    resumed.load_state_dict(trained.state_dict())
    assert resumed.current_fraction() == trained.current_fraction() < 1


def test_init_bias_reaches_the_heatmaps(repo):
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet3d')
    model = MODELS.build(Config.fromfile(repo / 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py').model)
    model.init_weights()
    biases = [head.heatmap[-1].bias for head in model.pts_bbox_head.task_heads]
    assert all((bias == -2.19).all() for bias in biases)
