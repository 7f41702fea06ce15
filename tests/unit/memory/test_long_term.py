"""Long-term memory: caps, bytes, who leaves, where prototypes lie, and how samples of different age share a batch."""

from dataclasses import fields

import pytest
import torch

from projects.memfusion.memory.long_term import LongTermPolicy
from projects.memfusion.structures import MemoryState, SceneFeatures

LONG = dict(min_mem_frames=2, num_prototypes=5, max_elements=12)


@pytest.fixture
def steps(frame, pose):
    return lambda count, **k: [frame(t, pose(x=3000 + 0.8 * t, y=50 - 0.1 * t, yaw=0.02 * t), **k) for t in range(count)]


def each_step(module, bevs, steps, advance, memory=None, observed=None):
    memory = module.init_state(SceneFeatures(bevs[0])) if memory is None else memory
    with torch.no_grad():
        for t, frames in enumerate(steps):
            seen = None if observed is None else observed[t]
            readout, aligned, memory = advance(module, bevs[t], memory, frames, observed=seen)
            yield readout, aligned, memory


def test_caps_hold_and_memory_that_is_exactly_full_works(build, bev, steps, advance):
    module = build(max_mem_frames=4, long_term=LONG)
    filled, sizes = [], set()
    maps = [bev(t) for t in range(60)]
    for t, (readout, _, memory) in enumerate(each_step(module, maps, steps(60), advance)):
        assert torch.isfinite(readout.bev).all()
        filled.append(int(memory.long_valid.sum()))
        slots = int(memory.slot_valid.sum())
        # Slots fill to three; the fourth is the moment at which the two oldest become prototypes.
        assert slots == (t + 1 if t < 3 else 2 + (t - 3) % 2)
        sizes.add(memory.num_bytes)
    assert filled[:3] == [0, 0, 0] and filled[3] == 5 and filled[5] == 10 and set(filled[7:]) == {12}
    assert len(sizes) == 1


def test_a_long_term_memory_of_one_consolidation_is_always_exactly_full(build, bev, steps, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=6, max_elements=6))
    for t, (readout, _, memory) in enumerate(each_step(module, [bev(t) for t in range(9)], steps(9), advance)):
        assert int(memory.long_valid.sum()) == (6 if t >= 2 else 0) and torch.isfinite(readout.bev).all()


def test_bytes_are_constant_to_frame_five_hundred(build, bev, frame, pose, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=3, max_elements=7), ego_channels=True)
    maps = [bev(t, shape=(4, 6)) for t in range(7)]
    steps = [frame(t, pose(x=0.5 * t)) for t in range(500)]
    sizes = {memory.num_bytes for _, _, memory in each_step(module, [maps[t % 7] for t in range(500)], steps, advance)}
    assert len(sizes) == 1


def test_old_frames_are_still_read(build, bev, steps, advance, frame, pose):
    """What left working memory answers through its prototypes: another first frame gives another readout, much later."""
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=10, max_elements=200))
    outputs = []
    for seed in (0, 100):
        maps = [bev(seed), *[bev(t) for t in range(1, 8)]]
        memory = list(each_step(module, maps, steps(8), advance))[-1][2]
        memory = MemoryState(**{**{f.name: getattr(memory, f.name) for f in fields(MemoryState)},
                                'sensory': torch.zeros_like(memory.sensory)})  # it remembers too
        outputs.append(module.read(memory, SceneFeatures(bev(50)), steps(9)[8]).bev)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-5


def test_prototypes_lie_where_stored_cells_lay(build, bev, frame, pose, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=6, max_elements=24))
    poses = [pose(x=3000 + 0.8 * t, y=50 - 0.1 * t, yaw=0.3 * t) for t in range(9)]
    steps = [frame(t, p) for t, p in enumerate(poses)]
    memory = list(each_step(module, [bev(t) for t in range(9)], steps, advance))[-1][2]
    centers = torch.tensor([[-5 + 2 * c, -3 + 2 * r, 0, 1] for r in range(4) for c in range(6)], dtype=torch.float64)
    world = torch.cat([centers @ torch.from_numpy(p).T for p in poses])[:, :3]
    found = memory.long_position[0].T[memory.long_valid[0]]
    assert len(found) == 24
    distances = (found[:, None] - world).norm(dim=-1)  # cdist expands squares, of 3000 m
    assert distances.amin(dim=1).max() < 1e-9  # metres; a step of float64 is 5e-13 there
    assert (distances < 1e-9).any(dim=0).sum() > 12  # not all the same cell


def test_prototypes_keep_their_place_while_the_car_drives_on(build, bev, frame, pose, advance):
    """A prototype at a world point is as near to a query over that point as a stored cell there."""
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=6, max_elements=6))
    steps = [frame(t, pose(x=100 + 2.0 * t, y=-20.0)) for t in range(4)]
    memory = list(each_step(module, [bev(t) for t in range(3)], steps[:3], advance))[-1][2]
    aligned = module.align(memory, steps[3])
    key = module._elements(aligned, steps[3])[0]
    place = key[0, -2:, :6]  # in memory cells, of the current frame
    expected = (memory.long_position[0, :2] - torch.tensor([[106.0], [-20.0]])) / 2
    assert (place - expected).abs().max() < 1e-5


def test_usage_counts_what_was_read(build, bev, steps, advance):
    module = build(max_mem_frames=4, long_term=LONG)
    cells = 4 * 6
    for t, (readout, aligned, memory) in enumerate(each_step(module, [bev(t) for t in range(12)], steps(12), advance)):
        given = readout.carried.usage.sum()
        assert given == pytest.approx(cells if t else 0, abs=1e-3)  # each query gives a weight of 1
        before = aligned.usage.sum() + aligned.long_usage.sum()
        after = memory.usage.sum() + memory.long_usage.sum()
        if t < 3:
            assert after - before == pytest.approx(float(given), abs=1e-3)
            assert memory.life[0, 4 - t - 1:].tolist() == [float(t - i) for i in range(t + 1)]
        assert (memory.usage[~memory.slot_valid] == 0).all() and (memory.long_usage[~memory.long_valid] == 0).all()


def test_the_most_used_cells_of_the_oldest_frames_become_prototypes(build, bev, steps, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=4, max_elements=4))
    history = list(each_step(module, [bev(t) for t in range(3)], steps(3), advance))
    aligned, readout, memory = history[2][1], history[2][0], history[2][2]
    usage = aligned.usage.clone()
    usage[:, -2:] += readout.carried.usage[:, 4:].view(1, -1, 4, 6)  # after the 4 empty elements of long-term memory
    life = torch.tensor([2.0, 1.0]).view(2, 1, 1)  # reads that the two frames lived through
    rate = usage[0, -2:] / life
    chosen = rate.flatten().topk(4).indices
    keys = aligned.key[0, -2:].transpose(0, 1).flatten(1)[:, chosen]
    assert torch.equal(memory.long_key[0].sort(dim=1).values, keys.sort(dim=1).values)
    assert memory.slot_valid[0].tolist() == [False, False, True]
    assert memory.slot_time_s[0, 2] == 1.5e9 + 1.0  # the newest stayed


def test_the_least_used_prototypes_make_room(build, bev, steps, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=4, max_elements=10))
    history = list(each_step(module, [bev(t) for t in range(9)], steps(9), advance))
    memories = [memory for _, _, memory in history]
    full = next(t for t, m in enumerate(memories) if int(m.long_valid.sum()) == 10)
    later = next(t for t in range(full + 1, 9) if not torch.equal(memories[t].long_key, memories[t - 1].long_key))
    before, aligned = history[later][0].carried.usage[0, :10], history[later][1]
    rate = (aligned.long_usage[0] + before) / (aligned.long_life[0] + 1)
    stay = rate.topk(6).indices.sort().values
    assert torch.equal(memories[later].long_key[0, :, :6], memories[later - 1].long_key[0][:, stay])
    assert torch.equal(memories[later].long_position[0, :, :6], memories[later - 1].long_position[0][:, stay])
    assert (memories[later].long_usage[0, 6:] == 0).all()


@torch.no_grad()
def test_a_younger_scene_beside_an_old_one_equals_each_alone(build, bev, frame, pose, advance, play):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=4, max_elements=10))
    poses = [[pose(x=0.7 * t), pose(y=-0.4 * t, yaw=0.1 * t)] for t in range(10)]
    maps = [bev(t, batch=2) for t in range(10)]
    memory, outputs = module.init_state(SceneFeatures(maps[0])), []
    for t in range(10):
        out, _, memory = advance(module, maps[t], memory, frame(t, poses[t], starts=[t == 0, t in (0, 5)]))
        outputs.append(out.bev)
    for b, times in enumerate((range(10), range(5, 10))):
        steps = [frame(t, poses[t][b], starts=[t == times[0]]) for t in times]
        alone, last = play(module, [maps[t][b:b + 1] for t in times], steps)
        for t, out in zip(times, alone):
            assert (outputs[t][b] - out.bev[0]).abs().max() < 3e-5  # kernels for two and for one: 1.5e-6
        assert torch.equal(last.long_valid[0], memory.long_valid[b])
        assert (last.long_key[0] - memory.long_key[b]).abs().max() < 1e-5
    assert memory.long_valid.sum(dim=1).tolist() == [10, 8]


def test_cells_without_points_become_no_prototypes(build, bev, steps, advance):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=6, max_elements=12),
                   stored_cells='observed')
    observed = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    observed[0, 0, 0, :4] = True  # two memory cells a frame
    history = list(each_step(module, [bev(t) for t in range(3)], steps(3), advance, observed=[observed] * 3))
    memory = history[-1][2]
    assert int(memory.long_valid.sum()) == 4  # 2 cells of 2 frames, though 6 were wanted
    for name in ('long_key', 'long_shrinkage', 'long_value', 'long_position'):
        assert (getattr(memory, name)[..., ~memory.long_valid[0]] == 0).all(), name
    for readout, _, _ in each_step(module, [bev(t) for t in range(9)], steps(9), advance, observed=[observed] * 9):
        assert torch.isfinite(readout.bev).all()


def test_one_frame_needs_no_consolidation(build, bev, steps, play):
    module = build(max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=5, max_elements=12))
    _, memory = play(module, [bev(0)], steps(1))
    assert memory.slot_valid[0].tolist() == [False, True] and not memory.long_valid.any()


def test_gradients_reach_consolidated_values(build, bev, steps, advance):
    """In training clips longer than working memory, prototypes carry gradients to the frames they were made of."""
    module = build(max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=5, max_elements=12)).train()
    first = bev(0).requires_grad_()
    memory = module.init_state(SceneFeatures(first))
    for t, frames in enumerate(steps(4)):
        readout, _, memory = advance(module, first if t == 0 else bev(t), memory, frames)
    memory.long_value.sum().backward()
    assert torch.isfinite(first.grad).all() and first.grad.abs().max() > 0


@pytest.mark.parametrize('settings, frames, word', [
    (dict(min_mem_frames=3), 3, 'min_mem_frames'), (dict(min_mem_frames=0), 3, 'min_mem_frames'), (dict(), 1, 'min_mem_frames'),
    (dict(num_prototypes=0), 3, 'num_prototypes'), (dict(num_prototypes=9, max_elements=8), 3, 'max_elements=8')])
def test_bad_policies_are_named(settings, frames, word):
    with pytest.raises(ValueError, match=word):
        LongTermPolicy(max_mem_frames=frames, **settings)


def test_more_prototypes_than_cells_are_an_error_before_the_first_frame(build, bev):
    module = build(max_mem_frames=3, long_term=dict(min_mem_frames=2, num_prototypes=25, max_elements=100))
    with pytest.raises(ValueError, match='num_prototypes=25, but only 24 cells'):
        module.init_state(SceneFeatures(bev(0)))
