"""mem_policy: which frames working memory holds; batches, scene starts and padding as without it; nobody waits."""

import numpy as np
import pytest
import torch
from sync_counts import counting

STOP_M = [0, 3, 6, 9, 10, 10, 10, 10, 10, 10]


def steps_of(frame, pose, xs, **settings):
    return [frame(t, pose(x=1000.0 + x), **settings) for t, x in enumerate(xs)]


def frames_held(memory, row=0):
    """Numbers of the frames in the slots; None where a slot is empty."""
    return [round((float(stamp) - 1.5e9) / 0.5) if valid else None
            for stamp, valid in zip(memory.slot_time_s[row], memory.slot_valid[row])]


def test_frames_seen_before_a_stop_stay_with_all_that_was_written(build, bev, frame, pose, play):
    steps, bevs = steps_of(frame, pose, STOP_M), [bev(t) for t in range(10)]
    assert frames_held(play(build(max_mem_frames=4), bevs, steps)[1]) == [6, 7, 8, 9]
    module = build(max_mem_frames=4, mem_policy=dict(type='sa'))
    _, memory = play(module, bevs, steps)
    held = frames_held(memory)
    assert held == [0, 1, 2, 9]
    for slot, number in enumerate(held):
        assert torch.equal(memory.slot_global_from_bev[0, slot], steps[number].global_from_bev[0])
        key = module.network.encode_query(bevs[number]).key
        assert torch.allclose(memory.key[0, slot], key[0], atol=1e-6)


def test_memory_that_is_not_full_is_that_without_a_policy_bit_for_bit(build, bev, frame, pose, play):
    steps, bevs = steps_of(frame, pose, STOP_M[:4]), [bev(t) for t in range(4)]
    states = [play(build(max_mem_frames=4, mem_policy=policy), bevs, steps)[1] for policy in (None, dict(type='fps'))]
    assert all(torch.equal(a, b) for a, b in zip(*(state.tensors().values() for state in states)))


def test_every_second_frame(build, bev, frame, pose, play):
    _, memory = play(build(max_mem_frames=3, mem_every=2, mem_policy=dict(type='fps')), [bev(t) for t in range(10)],
                     steps_of(frame, pose, STOP_M))
    assert frames_held(memory) == [0, 2, 8]


@pytest.mark.parametrize('name', ['uniform', 'fps', 'sa'])
def test_interleaved_scenes_are_single_ones_and_a_new_scene_forgets(name, build, bev, frame, pose, play):
    """Two scenes in one batch; the second begins anew at frame 5, in mid drive of the first."""
    module = build(max_mem_frames=3, stored_cells='observed', mem_policy=dict(type=name))
    bevs = [bev(t, batch=2) for t in range(10)]
    observed = [torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(t)) > 0.6 for t in range(10)]
    poses = [[pose(x=1000 + x), pose(x=50 - 0.7 * t, y=0.3 * t, yaw=0.2 * t)] for t, x in enumerate(STOP_M)]
    starts = [[t == 0, t in (0, 5)] for t in range(10)]
    readouts, both = play(module, bevs, [frame(t, poses[t], starts[t]) for t in range(10)], observed=observed)
    for row in (0, 1):
        first = 5 * row
        alone, memory = play(module, [one[row:row + 1] for one in bevs[first:]],
                             [frame(t, poses[t][row], [starts[t][row]]) for t in range(first, 10)],
                             observed=[one[row:row + 1] for one in observed[first:]])
        assert frames_held(both, row) == frames_held(memory)
        assert torch.allclose(readouts[-1].bev[row], alone[-1].bev[0], atol=1e-5)


def test_padding_changes_nothing(build, bev, frame, pose, play):
    module = build(max_mem_frames=3, mem_policy=dict(type='sa'))
    steps, bevs = steps_of(frame, pose, STOP_M), [bev(t) for t in range(10)]
    _, plain = play(module, bevs, steps)
    padding = frame(0, np.eye(4), starts=[False], valid=False)
    _, padded = play(module, [bev(77), *bevs[:6], bev(78), *bevs[6:]], [padding, *steps[:6], padding, *steps[6:]])
    assert all(torch.equal(a, b) for a, b in zip(plain.tensors().values(), padded.tensors().values()))


def test_the_choice_makes_no_host_wait(build, bev, frame, pose, play, advance):
    totals = []
    for policy in (None, dict(type='sa')):
        module = build(max_mem_frames=3, mem_policy=policy)
        steps = steps_of(frame, pose, STOP_M)
        _, memory = play(module, [bev(t) for t in range(9)], steps[:9])
        with torch.no_grad(), counting() as counts:
            advance(module, bev(9), memory, steps[9])
        totals.append(counts.total)
    assert totals[0] == totals[1]


@pytest.mark.parametrize('settings', [dict(long_term=dict(num_prototypes=4)), dict(align='loader')])
def test_rules_that_exclude_each_other(settings, build):
    with pytest.raises(ValueError, match='temporal.mem_policy chooses which frames stay: long_term has a rule of its own'):
        build(mem_policy=dict(type='sa'), **settings)
