"""TemporalMemory against slow oracles: what is read, where a cell looks, what one warp does, what is stored and when."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from projects.geometry import warp_bev
from projects.memfusion.memory import temporal_memory
from projects.memfusion.structures import SceneFeatures

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)
MAP = (4, 6)  # memory cells of 2 x 2 m


def poses_of(pose, count):
    return [pose(x=1000 + 0.7 * t, y=-2000 + 0.2 * t, yaw=0.9 + 0.1 * t) for t in range(count)]


def remembered_of(module, bev, memory, frames):
    """(B, K, CV, Hm, Wm): what the memory read gives to the decoder."""
    seen, decode = [], module.network.decode
    module.network.decode = lambda query, remembered, sensory: seen.append(remembered) or decode(query, remembered, sensory)
    try:
        module.read(memory, SceneFeatures(bev), frames)
    finally:
        del module.network.decode
    return seen[0]


def center_m(row, column):
    return np.array([-6 + 2 * (column + 0.5), -4 + 2 * (row + 0.5), 0.0, 1.0])


def slow_read(module, query, memory, frames, cell, top_k=None):
    """One cell's affinities (F, Hm, Wm), element by element in float64, from the definition."""
    row, column = cell
    key, selection = (part[0, :, row, column].double().numpy() for part in (query.key, query.selection))
    if module.log_locality is not None:
        weight = math.exp(float(module.log_locality))
        key = np.concatenate([key, center_m(row, column)[:2] / 2])
        selection = np.concatenate([selection, [weight, weight]])
    bev_from_global = np.linalg.inv(frames.global_from_bev[0].numpy())
    similarity = np.full((memory.key.shape[1], *MAP), -np.inf)
    for f in range(memory.key.shape[1]):
        for i in range(MAP[0]):
            for j in range(MAP[1]):
                if not (memory.slot_valid[0, f] and memory.cell_valid[0, f, i, j]):
                    continue
                stored = memory.key[0, f, :, i, j].double().numpy()
                if module.log_locality is not None:
                    here = center_m(i, j)
                    if module.alignment == 'network':
                        here = bev_from_global @ memory.slot_global_from_bev[0, f].numpy() @ here
                    stored = np.concatenate([stored, here[:2] / 2])
                distance = (selection * (stored - key) ** 2).sum()
                similarity[f, i, j] = -float(memory.shrinkage[0, f, 0, i, j]) * distance / math.sqrt(len(key))
    if top_k is not None:
        similarity[similarity < np.sort(similarity, axis=None)[-top_k]] = -np.inf
    affinity = np.exp(similarity - similarity.max())
    return affinity / affinity.sum()


@torch.no_grad()
@pytest.mark.parametrize('settings', [
    dict(), dict(key_position=False), dict(align='none'), dict(align='loader'), dict(top_k=5), dict(stored_cells='observed')])
def test_a_read_equals_the_definition(settings, build, bev, frame, pose, play):
    module = build(max_mem_frames=3, **settings)
    poses = poses_of(pose, 4)
    steps = [frame(t, poses[t]) for t in range(3)]
    observed = [torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(t)) > 0.7 for t in range(3)]
    _, memory = play(module, [bev(t) for t in range(3)], steps, observed=observed)
    now = frame(3, poses[3])
    aligned = module.align(memory, now)
    query, remembered = module.network.encode_query(bev(3)), remembered_of(module, bev(3), aligned, now)
    for cell in ((0, 0), (1, 4), (3, 5)):
        expected = slow_read(module, query, memory, now, cell, settings.get('top_k'))
        affinity = module.attention(bev(3), aligned, now, cell)[0]
        assert np.abs(affinity.numpy() - expected).max() < 1e-5
        value = np.einsum('fij,fcij->c', expected, memory.value[0, :, 0].double().numpy())
        assert np.abs(remembered[0, 0, :, cell[0], cell[1]].numpy() - value).max() < 1e-5 * (1 + np.abs(value).max())


@torch.no_grad()
def test_a_cell_finds_itself_in_a_world_that_stands_still(build, bev, frame, pose, play):
    """Keys without content and a great weight of place: each cell looks at where it was, by the ego's motion."""
    module = build(max_mem_frames=2)
    module.log_locality.data.fill_(6.0)
    for layer in (module.network.key_proj, module.network.shrinkage_proj):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    forward = [pose(x=4.0 * t, yaw=0.0) for t in range(3)]  # two memory cells a frame
    steps = [frame(t, p) for t, p in enumerate(forward)]
    _, memory = play(module, [bev(t) for t in range(2)], steps[:2])
    affinity = module.attention(bev(2), module.align(memory, steps[2]), steps[2], (1, 1))[0]
    # Column 1 now was column 3 a frame ago and column 5 two frames ago.
    expected = torch.zeros(2, *MAP)
    expected[1, 1, 3] = expected[0, 1, 5] = 0.5
    assert (affinity - expected).abs().max() < 1e-4
    for align in ('none', 'loader'):
        module.alignment = align
        affinity = module.attention(bev(2), module.align(memory, steps[2]), steps[2], (1, 1))[0]
        expected = torch.zeros(2, *MAP)
        expected[:, 1, 1] = 0.5
        assert (affinity - expected).abs().max() < 1e-4
    module.alignment = 'network'
    half_turn = frame(2, pose(x=4.0, yaw=math.pi))  # on the spot, after the second frame
    affinity = module.attention(bev(2), module.align(memory, half_turn), half_turn, (1, 1))[0]
    assert affinity[1, 2, 4] == pytest.approx(1.0, abs=1e-4)  # the second frame alone: in the first it was off the map


@torch.no_grad()
def test_no_content_finds_memory_without_place(build, bev, frame, pose, play):
    """The same keys without place know nothing of the motion: all stored cells answer alike."""
    module = build(max_mem_frames=2, key_position=False)
    for layer in (module.network.key_proj, module.network.shrinkage_proj):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    steps = [frame(t, pose(x=4.0 * t)) for t in range(3)]
    _, memory = play(module, [bev(t) for t in range(2)], steps[:2])
    affinity = module.attention(bev(2), module.align(memory, steps[2]), steps[2], (1, 1))[0]
    assert (affinity - 1 / 48).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize('extra', [dict(), dict(motion_gate=dict(cues=['difference']))])
def test_what_lies_in_the_last_grid_takes_one_warp_a_step(extra, build, bev, frame, pose, play, monkeypatch):
    module = build(**extra)
    poses = poses_of(pose, 3)
    _, memory = play(module, [bev(t) for t in range(2)], [frame(t, poses[t]) for t in range(2)])
    calls = []
    monkeypatch.setattr(temporal_memory, 'warp_bev', lambda *args: calls.append(args[0].shape[1]) or warp_bev(*args))
    now = frame(2, poses[2])
    aligned = module.align(memory, now)
    module.read(aligned, SceneFeatures(bev(2)), now)
    assert sum(calls) == 6 + 1 + (8 if extra else 0)  # channels of the sensory state, the mask, the feature: each once
    cur_from_prev = torch.from_numpy(np.linalg.inv(poses[2]) @ poses[1])[None]
    assert (aligned.sensory[:, 0] - warp_bev(memory.sensory[:, 0], cur_from_prev, RANGE)).abs().max() < 1e-6
    assert (aligned.mask - warp_bev(memory.mask, cur_from_prev, RANGE)).abs().max() < 1e-6
    assert (aligned.sensory - memory.sensory).abs().max() > 0.01
    if extra:
        assert (aligned.feature - warp_bev(memory.feature, cur_from_prev, RANGE)).abs().max() < 1e-6
    for name in ('key', 'value', 'shrinkage', 'slot_global_from_bev'):  # stored frames keep their own grid
        assert torch.equal(getattr(aligned, name), getattr(memory, name))
    for align in ('none', 'loader'):
        module.alignment = align
        untouched = module.align(memory, now)
        assert all(torch.equal(getattr(untouched, name), value) for name, value in memory.tensors().items())
    assert sum(calls) == 6 + 1 + (8 if extra else 0)


@torch.no_grad()
def test_frames_are_stored_every_so_often_oldest_first(build, bev, frame, pose, play):
    module = build(max_mem_frames=3, mem_every=2)
    steps = [frame(t, pose(x=t)) for t in range(8)]
    for seen, kept in ((1, [0]), (2, [0]), (3, [0, 2]), (6, [0, 2, 4]), (7, [2, 4, 6]), (8, [2, 4, 6])):
        _, memory = play(module, [bev(t) for t in range(seen)], steps[:seen])
        assert memory.slot_valid[0].tolist() == [False] * (3 - len(kept)) + [True] * len(kept)
        assert memory.slot_time_s[0, 3 - len(kept):].tolist() == [1.5e9 + 0.5 * t for t in kept]
        assert memory.slot_global_from_bev[0, 3 - len(kept):, 0, 3].tolist() == kept
        assert memory.num_frames.tolist() == [seen]
        query = module.network.encode_query(bev(kept[-1]))
        assert torch.equal(memory.key[:, -1], query.key) and torch.equal(memory.shrinkage[:, -1], query.shrinkage)


@torch.no_grad()
def test_what_a_frame_writes_is_its_value_and_its_deeper_sensory_state(build, bev, frame, pose, advance, play):
    module = build()
    steps = [frame(t, pose(x=t)) for t in range(2)]
    _, memory = play(module, [bev(0)], steps[:1])
    readout, _, after = advance(module, bev(1), memory, steps[1])
    query, written = module.network.encode_query(bev(1)), readout.carried.agent_logits.sigmoid()
    value, deep = module.network.encode_value(query, written, readout.carried.sensory)
    assert torch.equal(after.value[:, -1], value) and torch.equal(after.sensory, deep)
    assert (deep - readout.carried.sensory).abs().max() > 0.01


@torch.no_grad()
def test_frames_that_are_not_written_still_move_the_sensory_state(build, bev, frame, pose, play):
    module = build(mem_every=3)
    steps = [frame(t, pose(x=t)) for t in range(2)]
    _, one = play(module, [bev(0)], steps[:1])
    readouts, two = play(module, [bev(0), bev(1)], steps)
    assert torch.equal(two.sensory, readouts[1].carried.sensory)
    assert (two.sensory - one.sensory).abs().max() > 0.01 and torch.equal(one.key, two.key)


@torch.no_grad()
@pytest.mark.parametrize('settings', [
    dict(), dict(ego_channels=True, motion_gate={}), dict(top_k=7), dict(align='none'), dict(mem_every=2),
    dict(max_mem_frames=3, long_term=dict(num_prototypes=4, max_elements=8))])
def test_scenes_of_different_age_in_one_batch_equal_each_alone(settings, build, bev, frame, pose, advance, play):
    """The second scene starts at the third step, over an old one's memory in its row; the third is padding at the fifth."""
    module = build(**settings)
    poses = [[pose(x=t), pose(x=50 - 2 * t, yaw=0.2 * t), pose(y=0.5 * t, yaw=1.0)] for t in range(7)]
    maps = [bev(t, batch=3) for t in range(7)]
    memory, outputs = module.init_state(SceneFeatures(maps[0])), []
    for t in range(7):
        frames = frame(t, poses[t], starts=[t == 0, t in (0, 2), t == 0])
        frames = frames.with_there([True, True, t != 4])
        out, _, memory = advance(module, maps[t], memory, frames)
        outputs.append(out.bev)
    for b, times in enumerate((range(7), range(2, 7), (0, 1, 2, 3, 5, 6))):
        steps = [frame(t, poses[t][b], starts=[t == times[0]]) for t in times]
        alone, last = play(module, [maps[t][b:b + 1] for t in times], steps)
        for t, out in zip(times, alone):
            assert (outputs[t][b] - out.bev[0]).abs().max() < 3e-5, (b, t)  # kernels for three and for one: 2e-6
        for name in memory.tensors():
            mine, other = getattr(memory, name)[b].double(), getattr(last, name)[0].double()
            assert (mine - other).abs().amax() < 1e-4 if mine.numel() else True, name


@torch.no_grad()
def test_a_scene_start_equals_a_fresh_state_bit_for_bit(build, bev, frame, pose, advance, play):
    module = build(ego_channels=True, motion_gate={}, max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=4,
                                                                                      max_elements=8))
    _, old = play(module, [bev(t) for t in range(5)], [frame(t, pose(x=t)) for t in range(5)])
    assert old.long_valid.any()
    start = frame(0, pose(x=9.0))
    after, _, memory = advance(module, bev(9), old, start)
    fresh, _, expected = advance(module, bev(9), module.init_state(SceneFeatures(bev(9))), start)
    assert torch.equal(after.bev, fresh.bev) and torch.equal(after.aux['occ_logits'], fresh.aux['occ_logits'])
    for name in memory.tensors():
        assert torch.equal(getattr(memory, name), getattr(expected, name)), name


@torch.no_grad()
def test_only_cells_that_held_points_answer(build, bev, frame, pose, play):
    module = build(stored_cells='observed', align='none')
    seen = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    seen[0, 0, 5, 9] = True  # of memory cell (2, 4)
    steps = [frame(t, pose()) for t in range(3)]
    _, memory = play(module, [bev(0), bev(1)], steps[:2], observed=[seen, torch.zeros_like(seen)])
    for cell in ((0, 0), (3, 5)):
        affinity = module.attention(bev(2), memory, steps[2], cell)[0]
        assert affinity[-2, 2, 4] == pytest.approx(1.0, abs=1e-6) and affinity.sum() == pytest.approx(1.0, abs=1e-6)
    _, blind = play(module, [bev(0), bev(1)], steps[:2], observed=[torch.zeros_like(seen)] * 2)
    assert module.attention(bev(2), blind, steps[2], (0, 0)).abs().max() == 0
    assert remembered_of(module, bev(2), blind, steps[2]).abs().max() == 0
    with pytest.raises(ValueError, match='stored_cells'):
        play(module, [bev(0)], steps[:1])


@torch.no_grad()
@pytest.mark.parametrize('top_k', [None, 3])
def test_attention_sums_to_one_over_what_is_stored(top_k, build, bev, frame, pose, play):
    module = build(max_mem_frames=4, top_k=top_k)
    steps = [frame(t, pose(x=t)) for t in range(3)]
    assert module.attention(bev(0), module.init_state(SceneFeatures(bev(0))), steps[0], (0, 0)).abs().max() == 0
    _, memory = play(module, [bev(0), bev(1)], steps[:2])
    affinity = module.attention(bev(2), module.align(memory, steps[2]), steps[2], (2, 3))
    assert affinity.shape == (1, 4, *MAP) and affinity.sum() == pytest.approx(1.0, abs=1e-5)
    assert affinity[0, :2].abs().max() == 0  # slots that hold nothing
    assert top_k is None or (affinity > 0).sum() == top_k


@torch.no_grad()
def test_attention_of_a_module_with_ego_channels_is_what_read_uses(build, bev, frame, pose, play):
    module = build(ego_channels=True)
    steps = [frame(t, pose(x=3.0 * t)) for t in range(3)]
    _, memory = play(module, [bev(0), bev(1)], steps[:2])
    aligned = module.align(memory, steps[2])
    remembered = remembered_of(module, bev(2), aligned, steps[2])
    affinity = module.attention(bev(2), aligned, steps[2], (1, 2))[0]
    value = torch.einsum('fij,fcij->c', affinity, memory.value[0, :, 0])
    assert (value - remembered[0, 0, :, 1, 2]).abs().max() < 1e-5


@torch.no_grad()
def test_memory_is_float32_and_reads_are_not_rounded_under_autocast(build, bev, frame, pose, play):
    module = build(max_mem_frames=2)
    steps = [frame(t, pose(x=t)) for t in range(3)]
    _, memory = play(module, [bev(0), bev(1)], steps[:2])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        _, rounded = play(module, [bev(0), bev(1)], steps[:2])
    for name in memory.tensors():
        assert getattr(rounded, name).dtype == getattr(memory, name).dtype, name
    assert rounded.key.dtype == torch.float32


def test_bytes_do_not_grow(build, bev, frame, pose, play):
    module = build(max_mem_frames=2)
    sizes = {play(module, [bev(0)] * n, [frame(t, pose(x=t)) for t in range(n)])[1].num_bytes for n in (1, 2, 5)}
    assert sizes == {module.init_state(SceneFeatures(bev(0))).num_bytes}


@pytest.mark.parametrize('settings, word', [
    (dict(max_mem_frames=0), 'max_mem_frames'), (dict(mem_every=0), 'mem_every'), (dict(align='both'), 'temporal.align'),
    (dict(stored_cells='some'), 'stored_cells'), (dict(mask_source='oracle'), 'mask_source'),
    (dict(network=dict(memory_stride=0)), 'memory_stride'), (dict(top_k=0), 'top_k')])
def test_bad_settings_are_named_when_the_model_is_built(settings, word, build):
    with pytest.raises((ValueError, TypeError), match=word):
        settings = dict(settings)
        network = settings.pop('network', None)
        if network:
            from mmdet3d.registry import MODELS
            MODELS.build(dict(type='BEVMemoryNetwork', in_channels=3, **network))
        build(**settings)


def test_a_map_that_the_stride_does_not_divide_is_named(build, bev):
    with pytest.raises(ValueError, match='9x12.*memory_stride 2'):
        build().init_state(SceneFeatures(bev(0, shape=(9, 12))))


@torch.no_grad()
def test_a_state_is_not_changed_by_a_step(build, bev, frame, pose, advance, play):
    """States go in and come out: the old one must stay as it was."""
    module = build(max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=4, max_elements=8), motion_gate={})
    steps = [frame(t, pose(x=t)) for t in range(4)]
    _, memory = play(module, [bev(t) for t in range(3)], steps[:3])
    before = memory._map(torch.clone)
    advance(module, bev(3), memory, steps[3])
    for name in memory.tensors():
        assert torch.equal(getattr(memory, name), getattr(before, name)), name
    assert replace(memory).num_bytes == before.num_bytes
