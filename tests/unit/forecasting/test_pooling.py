"""Unit: what is pooled of maps: hand answers, empty masks, and whose vector it is."""

from __future__ import annotations

import pytest
import torch

from projects.memfusion.forecasting import AgentPooling
from projects.memfusion.forecasting.detector_features import maps_of_agents


def maps_of(agents: int = 3) -> tuple[torch.Tensor, ...]:
    """maps (1, 2, A, 4, 3, 5), shares, centers, there."""
    torch.manual_seed(0)
    return (torch.randn(1, 2, agents, 4, 3, 5), torch.rand(1, 2, agents, 3, 5), torch.rand(1, 2, agents, 2) - 0.5,
            torch.ones(1, 2, agents, dtype=torch.bool))


def test_masked_weighs_by_the_covered_share() -> None:
    maps, shares, centers, there = maps_of(1)
    shares = torch.zeros_like(shares)
    shares[..., 1, 2], shares[..., 1, 3] = 0.75, 0.25
    pooled, flags = AgentPooling('masked', 4)(maps, shares, centers, there)
    assert torch.allclose(pooled, (0.75 * maps[..., 1, 2] + 0.25 * maps[..., 1, 3]).transpose(1, 2))
    assert flags.tolist() == [[[1, 1]]]


def test_an_empty_mask_is_a_sample_at_the_centre_and_says_so() -> None:
    maps, shares, centers, there = maps_of(2)
    shares[0, :, 1] = 0
    centers[0, :, 1] = torch.tensor([0.2, 0.0])  # of five columns, half way from the third to the fourth
    pooled, flags = AgentPooling('masked', 4)(maps, shares, centers, there)
    assert flags.tolist() == [[[1, 1], [0, 0]]]
    assert torch.allclose(pooled[0, 1], (maps[0, :, 1, :, 1, 2] + maps[0, :, 1, :, 1, 3]) / 2, atol=1e-6)
    always, inside = AgentPooling('center', 4)(maps, shares, centers, there)
    assert torch.allclose(always[0, 1], pooled[0, 1]) and inside.all()
    outside, flag = AgentPooling('center', 4)(maps, shares, centers + 5, there)
    assert not outside.any() and not flag.any()


@pytest.mark.parametrize('kind', ['masked', 'center', 'attn', 'mean'])
def test_whose_vector_it_is(kind: str) -> None:
    """One vector for all agents is the naive baseline's alone."""
    maps, shares, centers, there = maps_of()
    there[0, 0, 2] = False
    pool, order = AgentPooling(kind, 4), [2, 0, 1]
    pooled, _ = pool(maps, shares, centers, there)
    turned, _ = pool(maps[:, :, order], shares[:, :, order], centers[:, :, order], there[:, :, order])
    assert torch.allclose(pooled[:, order], turned, atol=1e-6) and not pooled[0, 2, 0].any()
    same = torch.allclose(pooled[:, 0], pooled[:, 1])
    assert same == (kind == 'mean')
    if kind == 'mean':
        assert torch.allclose(pooled[0, 0, 0], maps[0, 0, :2].mean(dim=(0, 2, 3)), atol=1e-6)


def test_attention_looks_at_the_mask_and_learns() -> None:
    maps, shares, centers, there = maps_of(1)
    pool = AgentPooling('attn', 4)
    torch.nn.init.zeros_(pool.score.weight)
    sharp = (shares > 0.5).float()
    plain = (maps * (sharp + 0.01)[:, :, :, None]).sum(dim=(-2, -1)) / (sharp + 0.01).sum(dim=(-2, -1))[..., None]
    pooled, _ = pool(maps, sharp, centers, there)
    assert torch.allclose(pooled, plain.transpose(1, 2), atol=1e-5)
    pooled.sum().backward()
    assert pool.score.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="pooling must be one of .* got 'max'"):
        AgentPooling('max', 4)


@pytest.mark.parametrize('kind', ['masked', 'center', 'attn', 'mean'])
def test_nobody(kind: str) -> None:
    pooled, flags = AgentPooling(kind, 4)(*maps_of(0))
    assert pooled.shape == (1, 0, 2, 4) and flags.shape == (1, 0, 2)


def test_an_agent_is_looked_up_in_the_map_whose_mask_covers_it() -> None:
    maps, masks, shares = torch.randn(1, 1, 3, 4, 2, 2), torch.zeros(1, 1, 3, 4, 4), torch.zeros(1, 1, 3, 2, 2)
    masks[0, 0, 0, :2, :2], masks[0, 0, 1, 2:, :] = 1, 0.6
    shares[0, 0, 0, 0, 0], shares[0, 0, 1, 1, 0], shares[0, 0, 1, 0, 0], shares[0, 0, 2, 0, 1] = 1, 1, 0.5, 1
    own = maps_of_agents(maps, masks, shares)
    assert torch.equal(own[0, 0], maps[0, 0, [0, 1, 2]])  # the third is covered by none: the last map holds all others
    assert torch.equal(maps_of_agents(maps[:, :, :1], masks[:, :, :1], shares)[0, 0], maps[0, 0, [0, 0, 0]])
