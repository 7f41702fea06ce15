"""What stands in for torch's sampling and pooling where sums must come in the same order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from projects.geometry import pool_adaptive, sample_bilinear
from projects.geometry.resampling import _pool_in_order, _sample_in_order


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def values_and_gradients(function, *inputs):
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad((out * draw(*out.shape, seed=7).detach()).sum(), inputs)]


@pytest.mark.parametrize('mode', ['zeros', 'border'])
@pytest.mark.parametrize('shape', [(5, 7), (1, 4)])
def test_sampling_in_order_is_torchs(mode, shape):
    """1e-5: sums of four products of order 1, in another order."""
    maps, grid = draw(3, 4, *shape), draw(3, 6, 8, 2, seed=1)  # a third of the positions lie outside
    theirs = values_and_gradients(lambda *x: F.grid_sample(*x, padding_mode=mode, align_corners=False), maps, grid)
    for mine, expected in zip(values_and_gradients(lambda *x: _sample_in_order(*x, mode), maps, grid), theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(sample_bilinear(maps, grid, mode), theirs[0]), 'on a CPU it is torch\'s own'


def test_positions_far_away_and_not_finite_read_nothing():
    grid = torch.tensor([[[[1e9, 0.0], [-1e9, 1e9], [0.0, 3.0]]]])
    assert not _sample_in_order(torch.ones(1, 2, 4, 4), grid, 'zeros').any()
    assert (_sample_in_order(torch.ones(1, 2, 4, 4), grid, 'border') == 1).all()


@pytest.mark.parametrize('shape', [(4, 4), (3, 5), (1, 1), (10, 14)])
def test_pooling_in_order_is_torchs(shape):
    """1e-6: means of numbers of order 1."""
    maps = draw(2, 3, 9, 12)
    theirs = values_and_gradients(lambda x: F.adaptive_avg_pool2d(x, shape), maps)
    for mine, expected in zip(values_and_gradients(lambda x: _pool_in_order(x, shape), maps), theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(pool_adaptive(maps, shape), theirs[0])
