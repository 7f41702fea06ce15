"""read_memory: what it refuses, and that elements that are not valid may hold anything."""

from __future__ import annotations

import pytest
import torch

from projects.memfusion.memory.similarity import read_memory


def inputs(batch=2, ck=4, m=5, n=7, cv=3):
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    return [draw(batch, ck, m), draw(batch, ck, m).sigmoid(), draw(batch, ck, n), draw(batch, 1, n).square() + 1,
            draw(batch, cv, n)]


@pytest.mark.parametrize('changes', [
    dict(memory_valid=torch.ones(2, 8, dtype=torch.bool)), dict(memory_valid=torch.ones(2, 7)),
    dict(memory_valid=torch.ones(1, 7, dtype=torch.bool)), dict(memory_value=torch.zeros(1, 3, 7)),
    dict(query_key=torch.zeros(3, 4, 5), query_selection=torch.zeros(3, 4, 5))])
def test_shapes_that_do_not_belong_together(changes):
    names = ('query_key', 'query_selection', 'memory_key', 'memory_shrinkage', 'memory_value')
    with pytest.raises(ValueError, match='shapes do not belong together.*memory_valid'):
        read_memory(**{**dict(zip(names, inputs())), **changes})


@pytest.mark.parametrize('top_k', [None, 2])
@pytest.mark.parametrize('gradient', [False, True])
def test_elements_that_are_not_valid_may_hold_anything(top_k, gradient):
    given = inputs()
    valid = torch.tensor([[True] * 7, [True, False, True, True, False, True, False]])
    expected = read_memory(*given, top_k=top_k, memory_valid=valid)
    spoiled = [part.clone() for part in given]
    for part, value in zip(spoiled[2:], (torch.inf, torch.nan, torch.nan)):
        part.transpose(1, 2)[~valid] = value
    if gradient:
        spoiled = [part.requires_grad_() for part in spoiled]
    found = read_memory(*spoiled, top_k=top_k, memory_valid=valid)
    torch.testing.assert_close(found, expected)
    if gradient:
        found.sum().backward()
        assert all(torch.isfinite(part.grad).all() for part in spoiled)
