"""Unit: the head begins as the devkit's constant velocity, holds its state where an agent was not there, and learns."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forecast_agents import permuted, straight_agents
from nuscenes.prediction.models.physics import ConstantVelocityHeading
from pyquaternion import Quaternion

from projects.memfusion.forecasting import TrajectoryHead, constant_velocity
from projects.memfusion.losses.trajectory_losses import TrajectoryLoss
from projects.memfusion.structures import Agents


def helper_of(agents: Agents, at: int) -> SimpleNamespace:
    """What the devkit's PredictHelper says of one agent."""
    pose, now = agents.global_from_agent[0, at].numpy(), agents.kinematics[0, at, -1].numpy()
    yaw = np.arctan2(pose[1, 1], pose[0, 1])  # where the agent's +y points
    annotation = dict(translation=[*pose[:2, 3], 0.0], rotation=list(Quaternion(axis=[0, 0, 1], radians=yaw)))
    return SimpleNamespace(
        get_sample_annotation=lambda instance, sample: annotation, get_velocity_for_agent=lambda instance, sample: now[2],
        get_acceleration_for_agent=lambda instance, sample: now[3],
        get_heading_change_rate_for_agent=lambda instance, sample: now[4])


@pytest.mark.parametrize('kind, modes', [('gru', 5), ('mlp', 10), ('gru', 1)])
def test_before_training_it_is_the_devkits_constant_velocity(kind: str, modes: int) -> None:
    torch.manual_seed(0)
    agents = straight_agents([0.0, 3.3, 27.7], seed=3)
    forecast = TrajectoryHead(4, modes, 16, kind, num_frames=3)(agents, torch.randn(1, 3, 3, 4))
    assert forecast.modes.shape == (1, 3, modes, 12, 2) and forecast.logits.shape == (1, 3, modes)
    xy = forecast.global_xy(agents).detach().numpy()
    for at in range(3):
        expected = ConstantVelocityHeading(6.0, helper_of(agents, at))(f'i{at}_s').prediction[0]
        assert np.abs(xy[0, at] - expected).max() < 1e-6


def trained(head: TrajectoryHead) -> TrajectoryHead:
    """With weights that say something."""
    torch.manual_seed(1)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return head


def test_frames_without_the_agent_hold_the_state() -> None:
    head = trained(TrajectoryHead(4, 5, 16))
    agents, features = straight_agents([5.0, 9.0], frames=4, appears=[0, 2]), torch.randn(1, 2, 4, 4)
    noisy = features.clone()
    noisy[0, 1, :2] = 99.0
    assert torch.equal(head(agents, features).modes, head(agents, noisy).modes)
    cut = Agents(tokens=agents.tokens, **{
        name: tensor[:, :, 2:] if name in ('history_xy', 'history_valid', 'kinematics', 'boxes') else tensor
        for name, tensor in agents.tensors().items()})
    assert torch.allclose(head(agents, features).modes[0, 1], head(cut, features[:, :, 2:]).modes[0, 1], atol=1e-6)
    assert not torch.allclose(head(agents, features).modes[0, 0], head(cut, features[:, :, 2:]).modes[0, 0], atol=1e-3)


@pytest.mark.parametrize('kind', ['gru', 'mlp'])
def test_agents_are_alike_in_any_order_and_beside_any_others(kind: str) -> None:
    head = trained(TrajectoryHead(4, 5, 16, kind, num_frames=3))
    agents, features = straight_agents([1.0, 5.0, 9.0], seed=2), torch.randn(1, 3, 3, 4)
    whole = head(agents, features)
    turned = head(permuted(agents, [2, 0, 1]), features[:, [2, 0, 1]])
    assert torch.allclose(whole.modes[:, [2, 0, 1]], turned.modes, atol=1e-5)
    batch = Agents.cat([straight_agents([2.0, 3.0, 4.0, 6.0], scene='t'), agents])
    padded = torch.cat([torch.randn(1, 4, 3, 4), torch.nn.functional.pad(features, (0, 0, 0, 0, 0, 1))])
    assert torch.allclose(head(batch, padded).modes[1, :3], whole.modes[0], atol=1e-5)
    assert head(straight_agents([]), features[:, :0]).modes.shape == (1, 0, 5, 12, 2)


def test_flags_reach_the_input_valid_and_history_of_one_frame_is_enough() -> None:
    head = trained(TrajectoryHead(4, 5, 16))
    agents, features = straight_agents([5.0], frames=1), torch.randn(1, 1, 1, 4)
    seen, unseen = (head(agents, features, torch.full((1, 1, 1), flag)).modes for flag in (1.0, 0.0))
    assert torch.equal(seen, head(agents, features).modes) and not torch.allclose(seen, unseen)


@pytest.mark.parametrize('modes', [1, 5])
def test_four_agents_are_learned_by_heart(modes: int) -> None:
    torch.manual_seed(0)
    agents = straight_agents([8.0, 8.0, 6.0, 4.0], accelerations=[-2.0, 1.0, -1.0, 0.5])
    head, loss = TrajectoryHead(4, modes, 32), TrajectoryLoss()
    features = torch.randn(1, 4, 3, 4)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(80):
        forecast = head(agents, features)
        total = sum(loss(forecast.modes, forecast.logits, agents.future_xy, agents.future_valid).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    best = head(agents, features)
    likely = best.modes[0, torch.arange(4), best.logits[0].argmax(-1)]
    straight = constant_velocity(agents.kinematics)[0]
    ade, of_velocity = ((path - agents.future_xy[0]).norm(dim=-1).mean(-1) for path in (likely, straight))
    assert of_velocity.min() > 2 and (ade < of_velocity / 3).all()


def test_many_features_are_brought_to_few_and_some_are_left_out_in_training() -> None:
    torch.manual_seed(0)
    agents, features = straight_agents([5.0, 9.0]), torch.randn(1, 2, 3, 40)
    head = trained(TrajectoryHead(40, 5, 16, feature_bottleneck=2, feature_dropout=0.5))
    assert head.embed.in_features == 2 + 8
    plain = trained(TrajectoryHead(2, 5, 16))
    plain.load_state_dict({name: value for name, value in head.state_dict().items() if not name.startswith('squeeze')})
    by_hand = features @ head.squeeze.weight.T + head.squeeze.bias
    assert torch.allclose(head.eval()(agents, features).modes, plain(agents, by_hand).modes, atol=1e-4)
    head.train()
    assert not torch.allclose(head(agents, features).modes, head(agents, features).modes, atol=1e-3)
    for wrong in (8.5, True, -1):
        with pytest.raises(ValueError, match='feature_bottleneck must be a whole number'):
            TrajectoryHead(40, 5, 16, feature_bottleneck=wrong)
    assert TrajectoryHead(0, feature_bottleneck=2, feature_dropout=0.5)(agents).modes.shape == (1, 2, 5, 12, 2)
    with pytest.raises(ValueError, match='feature_dropout in 0..1, got 0 and 1.0'):
        TrajectoryHead(feature_dropout=1.0)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match='num_modes one of'):
        TrajectoryHead(num_modes=3)
    with pytest.raises(ValueError, match='built for 64 features of an agent, got 4'):
        TrajectoryHead()(straight_agents([1.0]), torch.zeros(1, 1, 3, 4))
    with pytest.raises(ValueError, match='built for 5 frames, got 3'):
        TrajectoryHead(0, kind='mlp')(straight_agents([1.0]))
