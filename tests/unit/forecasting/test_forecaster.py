"""Unit: clips and agents in, futures out: who is who, whose map it is, batches, nobody, and what learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from forecast_agents import permuted, straight_agents
from mmdet3d.registry import MODELS
from mmengine.structures import BaseDataElement

from projects.memfusion import memory  # noqa: F401 - its networks are built by the registry
from projects.memfusion.forecasting import bev_masks
from projects.memfusion.runtime.checkpoint import load_weights
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures import Agents

RANGE = (-32.0, -24.0, -5.0, 32.0, 24.0, 3.0)


def forecaster(pooling: str = 'masked', **settings: object) -> torch.nn.Module:
    """A small one, with weights that say something."""
    torch.manual_seed(0)
    network = dict(type='BEVMemoryNetwork', in_channels=3, key_dim=4, value_dim=6, hidden_dim=5, feature_dim=8, memory_stride=4)
    features = dict(type='MemoryAgentFeatures', stream=dict(type='AgentStream', network=network), point_cloud_range=RANGE,
                    pooling=pooling, states=('sensory', 'readout'))
    head = dict(type='TrajectoryHead', hidden_dim=16)
    model = MODELS.build(dict(type='AgentForecaster', features=features, head=head, **settings))
    torch.nn.init.normal_(model.head.decode[2].weight, std=0.3)
    return model.eval()


def batch_of(agents: Agents, seed: int = 0) -> dict:
    made = torch.Generator().manual_seed(seed)
    clips, length = agents.valid.shape[0], agents.num_frames
    samples = [BaseDataElement(metainfo=dict(sample_token=str(number))) for number in range(clips * length)]
    rasters = torch.rand(clips, length, 3, 48, 64, generator=made)
    return dict(inputs=dict(rasters=rasters, agents=agents, clip_shape=(clips, length)), data_samples=samples)


@torch.no_grad()
def test_masks_are_boxes_on_the_ground() -> None:
    agents = straight_agents([4.0, 0.0], appears=[0, 1])
    agents.boxes[0, 0, :, :2], agents.boxes[0, 0, :, 6] = torch.tensor([-31.0, -23.0]), 0.0  # cut by two sides of the range
    where = bev_masks(agents, RANGE, (48, 64))
    assert where.masks.shape == (1, 3, 2, 48, 64) and where.there[0, :, 1].tolist() == [False, True, True]
    expected = torch.zeros(48, 64)
    expected[0:2, 0:3] = 1  # x from -33.25 to -28.75, y from -23.95 to -22.05: centres at -31.5 .. -29.5 and -23.5, -22.5
    assert torch.equal(where.masks[0, 0, 0], expected)
    assert not where.masks[0, 0, 1].any() and where.masks[0, 1, 1].any()
    assert where.centers_px[0, 0, 0].tolist() == [1.0, 1.0]


@torch.no_grad()
@pytest.mark.parametrize('pooling', ['masked', 'around', 'center', 'attn', 'mean'])
def test_features_follow_their_agents(pooling: str) -> None:
    """Shuffled features must reach the shuffled agents; one vector for all, which the mean is, cannot tell them apart."""
    model, agents = forecaster(pooling), straight_agents([3.0, 3.0, 3.0], seed=4)
    inputs = batch_of(agents)['inputs']
    features, _ = model.features(inputs, agents)
    order = [2, 0, 1]
    shuffled, _ = model.features({**inputs, 'agents': permuted(agents, order)}, permuted(agents, order))
    assert torch.allclose(shuffled, features[:, order], atol=1e-5)
    assert torch.allclose(features[:, order], features, atol=1e-4) == (pooling == 'mean')


@torch.no_grad()
@pytest.mark.parametrize('pooling', ['masked', 'around'])
def test_samples_do_not_mix_and_padding_changes_nothing(pooling: str) -> None:
    model = forecaster(pooling)
    scenes = [straight_agents([5.0, 9.0], scene='a', seed=1), straight_agents([2.0], scene='b', seed=2)]
    together = batch_of(Agents.cat(scenes))
    forecast = model(**together)
    for row, scene in enumerate(scenes):
        rasters = together['inputs']['rasters'][row:row + 1]
        inputs = dict(rasters=rasters, agents=scene, clip_shape=(1, 3))
        alone = model(inputs, together['data_samples'][:3])
        assert torch.allclose(forecast.modes[row, :len(scene.tokens[0])], alone.modes[0], atol=1e-4)
    found = model(**together, mode='predict')
    assert [one.sample_token for one in found] == ['2', '5']
    assert [one.pred_futures.tokens for one in found] == [('i0_a', 'i1_a'), ('i0_b',)]
    assert found[1].pred_futures.global_xy.shape == (1, 5, 12, 2)
    assert torch.allclose(found[0].pred_futures.probabilities.sum(dim=-1), torch.ones(2))


@torch.no_grad()
def test_another_map_frame_leaves_the_agents_frames_alone() -> None:
    model, agents = forecaster(), straight_agents([5.0, 9.0])
    angle = torch.tensor(0.7)
    moved = torch.eye(4, dtype=torch.float64)
    moved[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    moved[:2, 3] = torch.tensor([500.0, -300.0])
    elsewhere = replace(agents, global_from_agent=moved @ agents.global_from_agent)
    here, there = model(**batch_of(agents)), model(**batch_of(elsewhere))
    assert torch.equal(here.modes, there.modes)
    expected = here.global_xy(agents) @ moved[:2, :2].mT + moved[:2, 3]
    assert torch.allclose(there.global_xy(elsewhere), expected, atol=1e-9)


@torch.no_grad()
def test_nobody_one_agent_one_frame_and_agents_beyond_the_map() -> None:
    model = forecaster()
    assert model(**batch_of(straight_agents([]))).modes.shape == (1, 0, 5, 12, 2)
    assert model(**batch_of(straight_agents([]))).global_xy(straight_agents([])).shape == (1, 0, 5, 12, 2)
    assert model(**batch_of(straight_agents([4.0], frames=1))).modes.isfinite().all()
    far = straight_agents([4.0])
    far.boxes[..., :2] += 1000
    features, flags = model.features(batch_of(far)['inputs'], far)
    assert not flags.any() and not features.any() and model(**batch_of(far)).modes.isfinite().all()


@pytest.mark.parametrize('train_features', [False, True])
def test_what_learns(train_features: bool) -> None:
    model = forecaster('attn', train_features=train_features).train()
    assert model.features.stream.training == train_features
    losses = model(**batch_of(straight_agents([5.0, 9.0], accelerations=[1.0, -1.0])), mode='loss')
    sum(losses.values()).backward()
    stream = [parameter.grad for parameter in model.features.stream.parameters()]
    assert all(grad is not None for grad in stream) if train_features else all(grad is None for grad in stream)
    rest = [*model.features.pooling.parameters(), *model.head.parameters()]
    assert all(parameter.grad is not None for parameter in rest) and model.head.embed.weight.grad.any()
    empty = model(**batch_of(straight_agents([])), mode='loss')
    assert float(sum(empty.values()).detach()) == 0


def test_what_is_missing_is_named() -> None:
    model, agents = forecaster(), straight_agents([4.0])
    inputs = batch_of(agents)['inputs']
    with pytest.raises(ValueError, match='needs rasters, which the batch does not have: put RasterizePoints'):
        model({name: value for name, value in inputs.items() if name != 'rasters'}, [])
    with pytest.raises(ValueError, match='the clips hold 2 frames, but the agents have histories of 3'):
        model({**inputs, 'clip_shape': (1, 2)}, [])
    stream = dict(type='AgentStream', network=dict(type='BEVMemoryNetwork', in_channels=3))
    with pytest.raises(ValueError, match="source='rasters' needs their point_cloud_range"):
        MODELS.build(dict(type='MemoryAgentFeatures', stream=stream))
    with pytest.raises(ValueError, match=r"train_features names \['streams'\], but the parts of features are"):
        forecaster(train_features=['streams'])
    with pytest.raises(ValueError, match='states some of'):
        MODELS.build(dict(type='MemoryAgentFeatures', stream=stream, states=['hidden'], point_cloud_range=RANGE))


def test_features_of_frozen_memory_are_computed_once_a_clip() -> None:
    model, plain = forecaster(cache_features=True), forecaster()
    calls: list[int] = []
    model.features.register_forward_hook(lambda *_: calls.append(1))
    scenes = [straight_agents([5.0, 9.0], scene='a', seed=1), straight_agents([2.0], scene='b', seed=2)]
    batch = batch_of(Agents.cat(scenes))
    first = model(**batch)
    assert torch.equal(first.modes, plain(**batch).modes) and len(calls) == 1
    assert torch.equal(model(**batch).modes, first.modes) and len(calls) == 1
    # in another batch, with other padding
    rasters, samples = batch['inputs']['rasters'][1:], batch['data_samples'][3:]
    alone = model(dict(rasters=rasters, agents=scenes[1], clip_shape=(1, 3)), samples)
    assert torch.allclose(alone.modes[0, 0], first.modes[1, 0], atol=1e-5) and len(calls) == 1
    losses = model.train()(**batch, mode='loss')
    sum(losses.values()).backward()
    assert len(calls) == 1 and model.head.embed.weight.grad.any()
    assert model(**batch_of(straight_agents([]))).modes.shape == (1, 0, 5, 12, 2)
    model.load_state_dict(plain.state_dict())  # other weights, other features
    model(**batch)
    assert len(calls) == 3
    batch['data_samples'][0].set_metainfo(dict(bev_aug=2 * np.eye(4)))
    with pytest.raises(ValueError, match='sample 0: cache_features keeps .* but the clips are augmented'):
        model(**batch)


@pytest.mark.parametrize('wrong', [dict(train_features=True), dict(pooling='attn')])
def test_what_learns_is_not_kept(wrong: dict) -> None:
    with pytest.raises(ValueError, match='needs features of which nothing learns'):
        forecaster(**wrong, cache_features=True)


def test_a_checkpoint_of_another_memory_is_refused() -> None:
    other = dict(type='BEVMemoryNetwork', in_channels=3, key_dim=4, value_dim=6, hidden_dim=5, feature_dim=8, memory_stride=8)
    wider = forecaster().features.stream
    wider.network = MODELS.build(other)
    model = forecaster()
    weights = {f'features.stream.{name}': value for name, value in wider.state_dict().items()}
    with pytest.raises(UserError, match=r'old.pth.*shapes differ: features.stream.network.encoder.0.weight is \(8, 3, 8, 8\)'):
        load_weights(model, dict(state_dict={**model.state_dict(), **weights}), 'old.pth', allow_missing_slots=True)
    kinematics = MODELS.build(dict(type='AgentForecaster', head=dict(type='TrajectoryHead', hidden_dim=16)))
    with pytest.raises(UserError, match=r'old.pth.*shapes differ: head.embed.weight'):
        load_weights(model, dict(state_dict=kinematics.state_dict()), 'old.pth', allow_missing_slots=True)
