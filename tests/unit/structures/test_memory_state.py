"""MemoryState: select, cat, where, reset and detach on numbers that can be told apart."""

from dataclasses import fields

import torch

from projects.memfusion.structures import MemoryState


def filled(batch=3, seed=0):
    state = MemoryState.empty(batch, (2, 3), key_dim=4, value_dim=5, hidden_dim=6, num_slots=2, like=torch.zeros(1))
    g = torch.Generator().manual_seed(seed)

    def draw(tensor):
        if tensor.dtype == torch.bool:
            return torch.ones_like(tensor)
        return torch.randn(tensor.shape, generator=g, dtype=torch.float64).mul(100).to(tensor.dtype)

    return state._map(draw)


def assert_same(a, b):
    for f in fields(MemoryState):
        assert torch.equal(getattr(a, f.name), getattr(b, f.name)), f.name


def test_select_and_cat_are_inverse():
    state = filled()
    assert_same(MemoryState.cat([state.select([0]), state.select([1, 2])]), state)
    assert_same(state.select([2, 0]).select([1]), state.select([0]))


def test_reset_forgets_only_the_chosen_and_equals_a_fresh_state():
    state = filled()
    after = state.reset(torch.tensor([False, True, False]))
    assert_same(after.select([0, 2]), state.select([0, 2]))
    fresh = MemoryState.empty(1, (2, 3), 4, 5, 6, 2, like=torch.zeros(1))
    assert_same(after.select([1]), fresh)
    assert state.reset(torch.zeros(3, dtype=torch.bool)) is state


def test_where_picks_per_sample():
    a, b = filled(seed=1), filled(seed=2)
    mixed = a.where(torch.tensor([True, False, True]), b)
    assert_same(mixed.select([0, 2]), a.select([0, 2]))
    assert_same(mixed.select([1]), b.select([1]))


def test_detach_cuts_the_graph():
    state = filled()._map(lambda t: t.requires_grad_() if t.dtype == torch.float32 else t)
    assert state.key.requires_grad and not state.detach().key.requires_grad


def test_bytes_are_those_of_the_tensors():
    state = MemoryState.empty(1, (2, 3), key_dim=4, value_dim=5, hidden_dim=6, num_slots=2, like=torch.zeros(1))
    maps = 6 * (6 + 2 * (4 + 1 + 5) + 1) * 4
    slots = 2 * (1 + 8 + 16 * 8)
    assert state.num_bytes == maps + slots + 8 + 8 + 16 * 8
