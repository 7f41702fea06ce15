"""Unit: the batched loss equals the devkit's MTPLoss, agent by agent, and counts what is known alone."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from projects.memfusion.losses.trajectory_losses import TrajectoryLoss


@pytest.fixture
def devkit_loss(monkeypatch):
    """The devkit's MTPLoss; its file imports torchvision, which is not needed for it."""
    for name in ('torchvision', 'torchvision.models', 'torchvision.models.mobilenet', 'torchvision.models.resnet'):
        module = ModuleType(name)
        module.__getattr__ = lambda attribute: object  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
    for name in [name for name in sys.modules if name.startswith('nuscenes.prediction.models')]:
        monkeypatch.delitem(sys.modules, name)
    from nuscenes.prediction.models.mtp import MTPLoss
    return MTPLoss


def futures(agents: int, modes: int, gated: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    truth = torch.randn(1, agents, 12, 2, generator=made).cumsum(dim=2) + torch.arange(1, 13)[:, None]
    apart = torch.randn(1, agents, modes, 12, 2, generator=made) * 0.3
    modes_m = truth[:, :, None] * torch.linspace(0.6, 1.4, modes)[:, None, None] + apart
    if gated:  # one mode of each agent ends far off: no winner, though it may be near on the way
        modes_m[:, :, 0, -1] = -modes_m[:, :, 0, -1]
    return modes_m, torch.randn(1, agents, modes, generator=made), truth


@pytest.mark.parametrize('modes', [5, 10])
def test_it_equals_the_devkits(devkit_loss, modes: int) -> None:
    modes_m, logits, truth = futures(40, modes, gated=True)
    losses = TrajectoryLoss(regression_weight=0.7)(modes_m, logits, truth, torch.ones(1, 40, 12, dtype=torch.bool))
    flat = torch.cat([modes_m[0].flatten(1), logits[0]], dim=1)
    expected = devkit_loss(modes, 0.7)(flat, truth[0][:, None])
    assert abs(float(sum(losses.values())) - expected.item()) < 1e-5


def test_the_gate_chooses_and_without_a_mode_in_it_the_nearest_wins() -> None:
    truth = torch.stack([torch.zeros(12), torch.arange(1., 13)], dim=-1)[None, None]
    turned, ahead = truth.flip(-1), truth * 2
    there = torch.ones(1, 1, 12, dtype=torch.bool)
    pick = TrajectoryLoss().winners

    def winner(*modes: torch.Tensor) -> int:
        stacked = torch.stack(modes, dim=2)
        return int(pick(stacked, truth, there, (stacked - truth[:, :, None]).norm(dim=-1).mean(-1)))

    near = truth.clone()
    near[..., -1, :] = torch.tensor([12.0, 0.0])  # nearest on the way, but it ends on the right
    assert winner(near, ahead) == 1 and winner(near, turned) == 0
    standing = torch.zeros_like(truth)
    assert winner(turned, standing) == 1  # an end at the agent has no angle


def test_one_mode_is_ade_and_only_known_steps_count() -> None:
    modes_m, logits, truth = futures(3, 1, gated=False)
    there = torch.ones(1, 3, 12, dtype=torch.bool)
    there[0, 1, 4:], there[0, 2] = False, False
    truth = truth.masked_fill(~there[..., None], 1e3)
    loss = TrajectoryLoss()(modes_m, logits, truth, there)
    apart = (modes_m[:, :, 0] - truth).norm(dim=-1)
    assert torch.allclose(loss['loss_ade'], (apart[0, 0].mean() + apart[0, 1, :4].mean()) / 2)
    modes_m, logits, truth = futures(3, 5, gated=False)
    all_of_two = TrajectoryLoss()(modes_m[:, :2], logits[:, :2], truth[:, :2], there[:, :1].expand(-1, 2, -1))
    there[0, 1] = True
    padded = TrajectoryLoss()(modes_m, logits, truth, there)
    assert all(torch.allclose(padded[name], all_of_two[name]) for name in padded)


@pytest.mark.parametrize('modes', [1, 5])
def test_nobody_to_learn_from_is_zero_with_a_gradient(modes: int) -> None:
    for count in (0, 2):
        modes_m = torch.zeros(1, count, modes, 12, 2, requires_grad=True)
        logits = torch.zeros(1, count, modes, requires_grad=True)
        losses = TrajectoryLoss()(modes_m, logits, torch.zeros(1, count, 12, 2), torch.zeros(1, count, 12, dtype=torch.bool))
        total = sum(losses.values())
        total.backward()
        assert float(total) == 0 and not modes_m.grad.any() and not logits.grad.any()


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match='gate_deg must lie in'):
        TrajectoryLoss(gate_deg=0)
