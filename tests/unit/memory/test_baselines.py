"""ConvGRUFusion, StackFusion, BEVFormerTemporal: against what they compute written out; reset, batch, bytes."""


import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.geometry import warp_bev
from projects.memfusion.memory import baselines
from projects.memfusion.structures import SceneFeatures

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)
KINDS = ('ConvGRUFusion', 'StackFusion', 'BEVFormerTemporal')


def poses_of(pose, count):
    return [pose(x=500 + 0.7 * t, y=-20 + 0.2 * t, yaw=0.9 + 0.1 * t) for t in range(count)]


@torch.no_grad()
@pytest.mark.parametrize('align', ['network', 'none', 'loader'])
def test_the_stack_is_the_concatenation_of_maps_moved_once(align, build, bev, frame, pose, play, monkeypatch):
    module = build('StackFusion', num_frames=3, align=align)
    poses, calls = poses_of(pose, 5), []
    monkeypatch.setattr(baselines, 'warp_bev', lambda *args: calls.append(1) or warp_bev(*args))
    readouts, _ = play(module, [bev(t) for t in range(5)], [frame(t, p) for t, p in enumerate(poses)])
    assert len(calls) == (5 if align == 'network' else 0)
    for t, readout in enumerate(readouts):
        parts = [module.reduce(bev(t))]
        for back in (2, 1):  # oldest first
            stored = torch.zeros_like(parts[0]) if t < back else module.reduce(bev(t - back))
            if align == 'network' and t >= back:
                cur_from_then = torch.from_numpy(np.linalg.inv(poses[t]) @ poses[t - back])[None]
                stored = warp_bev(stored, cur_from_then, RANGE)
            parts.append(stored)
        expected = bev(t) + module.proj(module.mix(torch.cat(parts, dim=1)))
        assert (readout.bev - expected).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('align', ['network', 'none', 'loader'])
def test_the_gru_is_the_recurrence_written_out(align, build, bev, frame, pose, play):
    module = build('ConvGRUFusion', align=align)
    poses = poses_of(pose, 4)
    readouts, memory = play(module, [bev(t) for t in range(4)], [frame(t, p) for t, p in enumerate(poses)])
    hidden = torch.zeros(1, 8, 8, 12)
    for t, readout in enumerate(readouts):
        if align == 'network' and t:
            hidden = warp_bev(hidden, torch.from_numpy(np.linalg.inv(poses[t]) @ poses[t - 1])[None], RANGE)
        x = F.conv2d(bev(t), module.reduce.weight, module.reduce.bias)
        gates = torch.sigmoid(F.conv2d(torch.cat([x, hidden], 1), module.gates.weight, module.gates.bias, padding=1))
        r, z = gates[:, :8], gates[:, 8:]
        new = torch.tanh(F.conv2d(torch.cat([x, r * hidden], 1), module.candidate.weight, module.candidate.bias, padding=1))
        hidden = (1 - z) * hidden + z * new
        expected = bev(t) + F.conv2d(hidden, module.proj.weight, module.proj.bias, padding=1)
        assert (readout.bev - expected).abs().max() < 1e-5
    assert (memory.hidden - hidden).abs().max() < 1e-5


@torch.no_grad()
def test_the_bev_before_is_attended_to_and_the_current_one_stands_in_for_what_it_lacks(build, bev, frame, pose, play):
    module = build('BEVFormerTemporal', num_layers=2)
    steps = [frame(t, pose(x=3.0 * t)) for t in range(2)]
    readouts, memory = play(module, [bev(t) for t in range(2)], steps)
    carried = None
    for t, readout in enumerate(readouts):
        current = module.reduce(bev(t))
        past = current.clone()
        if t:  # 3 m, three cells, further: the last three columns were not seen before
            past[..., :-3] = carried[..., 3:]
        query, past = (one.flatten(2).transpose(1, 2) for one in (current, past))
        centres = torch.stack(torch.meshgrid(torch.arange(8) + 0.5, torch.arange(12) + 0.5, indexing='ij')[::-1], dim=-1)
        position = module.position((2 * centres / torch.tensor([12.0, 8.0]) - 1).flatten(0, 1))
        for layer in module.layers:
            query = layer.norms[0](query + layer.attention(query, position, (8, 12), past))
            query = layer.norms[1](query + layer.feed_forward(query))
        carried = query.transpose(1, 2).unflatten(2, (8, 12))
        torch.testing.assert_close(readout.bev, bev(t) + module.proj(carried), atol=1e-5, rtol=0)
    torch.testing.assert_close(memory.bev, carried, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_scenes_of_different_age_in_one_batch_equal_each_alone(kind, build, bev, frame, pose, advance, play):
    module = build(kind)
    poses = [[pose(x=t), pose(x=50 - 2 * t, yaw=0.2 * t), pose(y=0.5 * t, yaw=1.0)] for t in range(6)]
    maps = [bev(t, batch=3) for t in range(6)]
    memory, outputs = module.init_state(SceneFeatures(maps[0])), []
    for t in range(6):
        frames = frame(t, poses[t], starts=[t == 0, t in (0, 2), t == 0]).with_there([True, True, t != 4])
        out, _, memory = advance(module, maps[t], memory, frames)
        outputs.append(out.bev)
    for b, times in enumerate((range(6), range(2, 6), (0, 1, 2, 3, 5))):
        steps = [frame(t, poses[t][b], starts=[t == times[0]]) for t in times]
        alone, last = play(module, [maps[t][b:b + 1] for t in times], steps)
        for t, out in zip(times, alone):
            assert (outputs[t][b] - out.bev[0]).abs().max() < 1e-5, (b, t)
        for name in last.tensors():
            assert (getattr(memory, name)[b].double() - getattr(last, name)[0].double()).abs().max() < 1e-5, name


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_a_scene_start_equals_a_fresh_state_bit_for_bit(kind, build, bev, frame, pose, advance, play):
    module = build(kind)
    _, old = play(module, [bev(t) for t in range(5)], [frame(t, pose(x=t)) for t in range(5)])
    start = frame(0, pose(x=9.0))
    after, _, memory = advance(module, bev(9), old, start)
    fresh, _, expected = advance(module, bev(9), module.init_state(SceneFeatures(bev(9))), start)
    assert torch.equal(after.bev, fresh.bev)
    for name in memory.tensors():
        assert torch.equal(getattr(memory, name), getattr(expected, name)), name
    kept, _, _ = advance(module, bev(9), old, frame(5, pose(x=9.0)))
    assert (kept.bev - fresh.bev).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS[:2])
def test_bytes_are_constant_to_frame_five_hundred(kind, build, bev, frame, pose, advance):
    module = build(kind)
    maps, memory, sizes = [bev(t, shape=(4, 6)) for t in range(5)], None, set()
    for t in range(500):
        memory = module.init_state(SceneFeatures(maps[0])) if memory is None else memory
        sizes.add(memory.num_bytes)
        _, _, memory = advance(module, maps[t % 5], memory, frame(t, pose(x=0.1 * t)))
    assert len(sizes) == 1


@torch.no_grad()
def test_the_stack_forgets_what_is_older_than_its_frames(build, bev, frame, pose, play):
    module = build('StackFusion', num_frames=3)
    steps = [frame(t, pose(x=t)) for t in range(4)]
    last = [play(module, [bev(seed), bev(1), bev(2), bev(3)], steps)[0][3].bev for seed in (0, 99)]
    assert torch.equal(*last)
    last = [play(module, [bev(0), bev(seed), bev(2), bev(3)], steps)[0][3].bev for seed in (1, 99)]
    assert (last[0] - last[1]).abs().max() > 1e-3


def test_a_stack_of_one_frame_is_named(build):
    with pytest.raises(ValueError, match='num_frames'):
        build('StackFusion', num_frames=1)
