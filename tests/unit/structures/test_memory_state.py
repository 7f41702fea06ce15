"""MemoryState: select, put, cat, where, reset and detach on numbers that can be told apart."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projects.memfusion.structures import MemorySizes, MemoryState, TemporalState, empty_clock

SIZES = MemorySizes(map_shape=(2, 3), key_dim=4, value_dim=5, hidden_dim=6, num_slots=2, num_agents=2, feature_dim=7,
                    long_term=8)


def filled(batch=3, seed=0, sizes=SIZES):
    state = MemoryState.empty(batch, sizes, like=torch.zeros(1))
    g = torch.Generator().manual_seed(seed)

    def draw(tensor):
        if tensor.dtype == torch.bool:
            return torch.ones_like(tensor)
        return torch.randn(tensor.shape, generator=g, dtype=torch.float64).mul(100).to(tensor.dtype)

    return replace(state._map(draw), ages=tuple(torch.randint(9, (batch,), generator=g).tolist()))


def assert_same(a, b):
    assert a.ages == b.ages
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, getattr(b, name)), name


def test_select_and_cat_are_inverse():
    state = filled()
    assert_same(MemoryState.cat([state.select([0]), state.select([1, 2])]), state)
    assert_same(state.select([2, 0]).select([1]), state.select([0]))


def test_put_replaces_only_the_chosen():
    state, other = filled(seed=1), filled(batch=2, seed=2)
    mixed = state.put([2, 0], other)
    assert_same(mixed.select([1]), state.select([1]))
    assert_same(mixed.select([2, 0]), other)


def test_a_selection_is_a_copy():
    state = filled()
    part = state.select([0])
    part.key.zero_()
    assert state.key[0].abs().max() > 0


def test_reset_forgets_only_the_chosen_and_equals_a_fresh_state():
    state = filled()
    after = state.reset([False, True, False])
    assert_same(after.select([0, 2]), state.select([0, 2]))
    assert_same(after.select([1]), MemoryState.empty(1, SIZES, like=torch.zeros(1)))
    assert state.reset([False] * 3) is state


@dataclass(frozen=True)
class Odd(TemporalState):
    """A pose under a name of its own, and a field that is none although its name says so."""

    POSES = (*TemporalState.POSES, 'place')

    place: Tensor
    is_global_from_map: Tensor


def test_what_a_pose_is_is_declared_not_guessed():
    state = Odd(**empty_clock(2, torch.zeros(1)), place=torch.full((2, 5, 4, 4), 3.0, dtype=torch.float64),
                is_global_from_map=torch.ones(2, 4, 4))
    after = state.reset([True, False])
    assert torch.equal(after.place[0], torch.eye(4, dtype=torch.float64).expand(5, 4, 4))
    assert not after.is_global_from_map[0].any()
    assert torch.equal(after.place[1], state.place[1]) and after.is_global_from_map[1].all()
    assert torch.equal(after.global_from_lidar[0], torch.eye(4, dtype=torch.float64))


def test_where_picks_per_sample():
    a, b = filled(seed=1), filled(seed=2)
    mixed = a.where([True, False, True], b)
    assert_same(mixed.select([0, 2]), a.select([0, 2]))
    assert_same(mixed.select([1]), b.select([1]))


def test_detach_cuts_the_graph():
    state = filled()._map(lambda t: t.requires_grad_() if t.dtype == torch.float32 else t)
    assert state.key.requires_grad and not state.detach().key.requires_grad


def test_poses_of_an_empty_state_are_identities_and_the_rest_is_zero():
    state = MemoryState.empty(2, SIZES, like=torch.zeros(1, dtype=torch.bfloat16))
    assert state.ages == (0, 0)
    for name, tensor in state.tensors().items():
        if name in MemoryState.POSES:
            assert torch.equal(tensor, torch.eye(4, dtype=torch.float64).expand_as(tensor)), name
        else:
            assert not tensor.any() and tensor.dtype != torch.bfloat16, name


def test_bytes_are_those_of_the_tensors():
    state = MemoryState.empty(1, SIZES, like=torch.zeros(1))
    cells, agents, slots, long = 6, 2, 2, 8
    now = cells * (agents * (6 + 1) + 7) * 4  # sensory, mask, feature
    slot_maps = slots * cells * ((4 + 1 + 4 + agents * 5 + 1) * 4 + 1)  # key, shrinkage, selection, value, usage; cell_valid
    slot_rest = slots * (1 + 8 + 16 * 8 + 4)  # valid, time, pose, life
    long_term = long * ((4 + 1 + agents * 5 + 2) * 4 + 3 * 8 + 1)  # key, shrinkage, value, usage, life; position; valid
    clock = 8 + 8 + 2 * 16 * 8
    assert state.num_bytes == now + slot_maps + slot_rest + long_term + clock + agents * 3 * 8


def test_what_is_switched_off_takes_no_bytes():
    small = MemoryState.empty(1, MemorySizes((2, 3), 4, 5, 6, 2), like=torch.zeros(1))
    for name in ('feature', 'selection', 'long_key', 'long_value', 'long_position', 'long_valid', 'long_usage'):
        assert getattr(small, name).nbytes == 0, name
