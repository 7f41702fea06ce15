"""CopyMemory and the stack's controls: against every cell written out, identities, hand answers, reset, batch, bytes."""

import math

import numpy as np
import pytest
import torch

from projects.geometry import warp_bev
from projects.memfusion.memory.cell_cues import CellCues, CopyGate, convolve_once, copy_into
from projects.memfusion.memory.cell_values import CellValue, ProjectedValue
from projects.memfusion.structures import SceneFeatures

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)
SETTINGS = {
    'projection': dict(value_dim=2), 'bev, keys': dict(value='bev', key_dim=4, num_slots=2),
    'learned': dict(value='learned', value_dim=4, copy=False, mem_every=2),
    'deep': dict(value='deep', value_dim=4, copy=False), 'copy alone': dict(value='bev', mix_dim=None),
    'half': dict(value_dim=2, half=True),
}


@pytest.fixture(scope='module')
def memory(build):
    """memory(name or settings): a CopyMemory with random weights."""

    def make(name='projection', random_weights=True, **settings):
        chosen = {**SETTINGS[name], **settings} if isinstance(name, str) else name
        return build('CopyMemory', hidden_dim=None, random_weights=random_weights, **chosen)

    return make


@pytest.fixture(scope='module')
def build(build):
    from mmdet3d.registry import MODELS

    def make(kind, hidden_dim=8, random_weights=True, seed=0, **settings):
        if hidden_dim is not None:
            return build(kind, random_weights=random_weights, seed=seed, hidden_dim=hidden_dim, **settings)
        torch.manual_seed(seed)
        module = MODELS.build({**dict(type=kind, in_channels=3, point_cloud_range=RANGE), **settings}).eval()
        for parameter in module.parameters() if random_weights else ():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
        return module

    return make


def seen(seed, batch=1, share=0.5):
    return torch.rand(batch, 1, 8, 12, generator=torch.Generator().manual_seed(100 + seed)) < share


def poses_of(pose, count):
    return [pose(x=500 + 0.7 * t, y=-20 + 0.2 * t, yaw=0.9 + 0.1 * t) for t in range(count)]


def moved(maps, cur, then):
    return warp_bev(maps, torch.from_numpy(np.linalg.inv(cur) @ then)[None], RANGE)[0]


@torch.no_grad()
@pytest.mark.parametrize('name', ['projection', 'bev, keys', 'learned', 'copy alone'])
def test_every_cell_reads_its_own_place_in_the_stored_frames(name, memory, bev, frame, pose, play):
    module = memory(name)
    poses = poses_of(pose, 6)
    steps = [frame(t, p) for t, p in enumerate(poses)]
    maps, observed = [bev(t) for t in range(6)], [seen(t) for t in range(6)]
    readouts, _ = play(module, maps, steps, observed=observed)
    for t in range(1, 6):
        stored = [back for back in range(t) if back % module.mem_every == 0][-module.num_slots:]
        both = torch.cat([maps[t], observed[t].float()], dim=1)
        null = module.cues(both)[0, 0].double()
        total, remembered = null.exp(), 0.0
        for back in stored:
            then = torch.cat([maps[back], observed[back].float()], dim=1)
            parts = [module.value(maps[back]), module.cues(then)[:, 1:], torch.ones(1, 1, 8, 12)]
            if module.keys is not None:
                parts.append(module.keys.key(maps[back]))
            dims = [part.shape[1] for part in parts]
            value, worth, inside, *key = moved(torch.cat(parts, 1), poses[t], poses[back]).double().split(dims)
            logit = worth[0] - module.log_decay.exp() * 0.5 * (t - back)
            if key:
                query, selection = module.keys.key(maps[t])[0], module.keys.selection(maps[t])[0].sigmoid()
                distance = sum(selection[c] * (key[0][c] - query[c]) ** 2 for c in range(len(query)))
                logit = logit - distance / 2  # sqrt of 4 channels
            weight = inside[0] * logit.exp()
            total, remembered = total + weight, remembered + weight * value
        remembered, share = (remembered / total)[None].float(), (1 - null.exp() / total)[None, None].float()
        expected = maps[t].clone()
        if module.gate is not None:
            expected += module.gate(both) * (module.value.decode(remembered, share) - share * maps[t])
        if module.mix is not None:
            narrow = [module.narrow(part) for part in (module.value(maps[t]), remembered)]
            expected += module.proj(module.mix(torch.cat([*narrow, share, observed[t].float()], dim=1)))
        assert (readouts[t].bev - expected).abs().max() < 1e-4, t


@torch.no_grad()
@pytest.mark.parametrize('name', SETTINGS)
def test_without_history_or_alpha_it_is_the_plain_detector_bit_for_bit(name, memory, bev, frame, pose, play, advance):
    module = memory(name)
    first = play(module, [bev(1)], [frame(0, pose())], observed=[seen(1)])[0][0]
    assert torch.equal(first.bev, bev(1))
    module.alpha = 0.0
    steps = [frame(t, pose(x=t)) for t in range(3)]
    last = play(module, [bev(t) for t in range(3)], steps, observed=[seen(t) for t in range(3)])
    assert torch.equal(last[0][2].bev, bev(2))
    # beside a scene that has a history
    module.alpha = 1.0
    _, state = play(module, [bev(5, batch=2)], [frame(0, [pose(), pose()])], observed=[seen(5, 2)])
    frames = frame(1, [pose(x=1.0), pose()], starts=[False, True])
    both, _, _ = advance(module, bev(6, batch=2), state, frames, observed=seen(6, 2))
    assert torch.equal(both.bev[1], bev(6, batch=2)[1]) and not torch.equal(both.bev[0], bev(6, batch=2)[0])


@torch.no_grad()
def test_untrained_it_copies_what_was_seen_to_where_nothing_is_seen(memory, bev, frame, pose, play):
    """Two frames, an ego that stands: weights e (seen, 0.5 s old: times e^-0.5) and e^-2 for null, gate 0.88 or 0.12."""
    module = memory(dict(value='bev'), random_weights=False)
    now = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    now[..., 3:, :] = True
    readouts, _ = play(module, [bev(0), bev(1)], [frame(t, pose()) for t in range(2)], observed=[torch.ones_like(now), now])
    share = math.exp(0.5) / (math.exp(0.5) + math.exp(-2))
    gate = torch.where(now, 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2)))
    assert (readouts[1].bev - (bev(1) + gate * share * (bev(0) - bev(1)))).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('name', SETTINGS)
def test_scenes_of_different_age_in_one_batch_equal_each_alone(name, memory, bev, frame, pose, advance, play):
    module = memory(name)
    poses = [[pose(x=t), pose(x=50 - 2 * t, yaw=0.2 * t), pose(y=0.5 * t, yaw=1.0)] for t in range(6)]
    maps, observed = [bev(t, batch=3) for t in range(6)], [seen(t, 3) for t in range(6)]
    state, outputs = module.init_state(SceneFeatures(maps[0])), []
    for t in range(6):
        frames = frame(t, poses[t], starts=[t == 0, t in (0, 2), t == 0]).with_there([True, True, t != 4])
        out, _, state = advance(module, maps[t], state, frames, observed=observed[t])
        outputs.append(out.bev)
    for b, times in enumerate((range(6), range(2, 6), (0, 1, 2, 3, 5))):
        steps = [frame(t, poses[t][b], starts=[t == times[0]]) for t in times]
        alone, last = play(module, [maps[t][b:b + 1] for t in times], steps, observed=[observed[t][b:b + 1] for t in times])
        for t, out in zip(times, alone):
            assert (outputs[t][b] - out.bev[0]).abs().max() < 1e-5, (b, t)
        for field in last.tensors():
            mine, alone = getattr(state, field)[b].double(), getattr(last, field)[0].double()
            assert torch.allclose(mine, alone, atol=1e-5, rtol=0), field


@torch.no_grad()
def test_a_scene_start_equals_a_fresh_state_bit_for_bit(memory, bev, frame, pose, advance, play):
    module, start = memory(), frame(0, pose(x=9.0))
    steps = [frame(t, pose(x=t)) for t in range(5)]
    _, old = play(module, [bev(t) for t in range(5)], steps, observed=[seen(t) for t in range(5)])
    _, _, after = advance(module, bev(9), old, start, observed=seen(9))
    _, _, expected = advance(module, bev(9), module.init_state(SceneFeatures(bev(9))), start, observed=seen(9))
    for field in after.tensors():
        assert torch.equal(getattr(after, field), getattr(expected, field)), field


@torch.no_grad()
def test_bytes_are_constant_and_half_halves_those_of_the_maps(memory, bev, frame, pose, advance):
    maps, sizes = [bev(t, shape=(4, 6)) for t in range(5)], {}
    for name in ('projection', 'half'):
        module = memory(name)
        state = module.init_state(SceneFeatures(maps[0]))
        for t in range(300 if name == 'projection' else 8):
            sizes.setdefault(name, set()).add(state.num_bytes - state.maps.nbytes if name == 'half' else state.num_bytes)
            _, _, state = advance(module, maps[t % 5], state, frame(t, pose(x=0.1 * t)), observed=seen(0)[..., :4, :6])
        assert len(sizes[name]) == 1
    whole = next(iter(sizes['projection'])) - next(iter(sizes['half']))
    assert state.maps.nbytes * 2 == whole == 3 * (2 + 3) * 24 * 4  # slots, channels, cells, bytes


@pytest.mark.parametrize('settings', [dict(), dict(key_dim=4), dict(mem_every=2), dict(long_term=True, point_cloud_range=(
    -4.0, -4.0, -5.0, 4.0, 4.0, 3.0))], ids=['slots', 'keys', 'every second', 'map'])
@torch.no_grad()
def test_half_precision_maps_are_written_where_bfloat16_is_computed(settings, memory, bev, frame, pose, advance):
    module = memory('half', **settings)
    read = {}
    for enabled in (False, True):
        state = None
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            for t in range(4):
                maps = bev(t, shape=(8, 8))
                state = module.init_state(SceneFeatures(maps)) if state is None else state
                out, _, state = advance(module, maps, state, frame(t, pose(x=0.1 * t)), observed=seen(t)[..., :8])
        assert state.maps.dtype == torch.float16
        read[enabled] = out.bev.float()
    assert (read[True] - read[False]).abs().max() < 0.1 * read[False].abs().max()


@torch.no_grad()
def test_attention_sums_to_one_and_reads_nothing_beyond_the_map_or_of_empty_slots(memory, bev, frame, pose, play):
    module = memory()
    steps, maps = [frame(0, pose()), frame(1, pose(x=3.0))], [bev(0), bev(1)]
    _, state = play(module, maps, steps, observed=[seen(0), seen(1)])
    found = module.attention(SceneFeatures(bev(2), observed=seen(2)), state, frame(2, pose(x=3.0)))
    assert found.shape == (1, 4, 8, 12) and (found.sum(dim=1) - 1).abs().max() < 1e-6
    assert found[:, 0].abs().max() == 0  # the third slot is empty
    assert found[0, 1, :, -3:].abs().max() == 0 and found[0, 1, :, :-3].min() > 0  # 3 m further: three columns are new
    fresh = module.attention(SceneFeatures(bev(2), observed=seen(2)), module.init_state(SceneFeatures(bev(2))), steps[0])
    assert torch.equal(fresh[:, -1], torch.ones(1, 8, 12)) and fresh[:, :-1].abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize('alpha', [1.0, 0.3, 0.0])
def test_copied_says_how_much_of_a_cell_is_what_was_remembered(alpha, memory, bev, frame, pose, play, advance):
    """Where all stored frames show the same, each cell is (1 - copied) of what is there and copied of what was."""
    module = memory('copy alone', alpha=alpha)
    steps = [frame(t, pose()) for t in range(3)]
    _, state = play(module, [bev(0)] * 2, steps[:2], observed=[seen(0), seen(1)])
    features = SceneFeatures(bev(2), observed=seen(2))
    copied = module.copied(features, module.align(state, steps[2]), steps[2])
    readout, _, _ = advance(module, bev(2), state, steps[2], observed=seen(2))
    assert copied.shape == (1, 1, 8, 12) and (readout.bev - (bev(2) + copied * (bev(0) - bev(2)))).abs().max() < 1e-5
    assert (copied.max() > 0.2 * alpha) == (alpha > 0)
    assert not module.copied(features, module.init_state(features), steps[0]).any()


def test_the_fitted_projection_loses_nothing_of_features_in_a_plane_and_learns_by_itself():
    generator = torch.Generator().manual_seed(0)
    plane, offset = torch.randn(2, 6, generator=generator), torch.randn(6, generator=generator)
    features = torch.randn(200, 2, generator=generator) @ plane + offset
    bev = features.view(8, 25, 6, 1).transpose(1, 2)
    value = ProjectedValue(6, 2)
    before = float(value.loss(bev)['loss_value'].detach())
    value.fit(features)
    assert float(value.loss(bev)['loss_value'].detach()) < 1e-9 < before
    assert (value.decode(value(bev), torch.ones_like(bev[:, :1])) - bev).abs().max() < 1e-4
    half = torch.full_like(bev[:, :1], 0.5)  # sums whose weights sum to a half
    assert (value.decode(value(bev) * half, half) - 0.5 * bev).abs().max() < 1e-4
    learner = ProjectedValue(6, 2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        learner.loss(bev)['loss_value'].backward()
        optimizer.step()
    assert float(learner.loss(bev)['loss_value'].detach()) < 0.05 * before
    assert float(value.loss(bev[:0])['loss_value'].detach()) == 0  # no labelled frame


@torch.no_grad()
@pytest.mark.parametrize('kind', [CellValue(6), ProjectedValue(6, 2)], ids=['features', 'projection'])
def test_copying_in_few_passes_is_the_formula_and_bit_for_bit_nothing_where_nothing_is_copied(kind):
    draw = torch.Generator().manual_seed(3)
    bev, remembered = torch.randn(2, 6, 4, 5, generator=draw), torch.randn(2, kind.dim, 4, 5, generator=draw)
    share, gate = torch.rand(2, 2, 1, 4, 5, generator=draw).unbind(1)
    for parameter in kind.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw))
    features = remembered
    if kind.dim == 2:
        features = torch.einsum('vc,bvhw->bchw', kind.weight, remembered) + share * kind.mean.view(1, -1, 1, 1)
    out = copy_into(bev, kind, remembered, share, gate)
    assert (out - (bev + gate * (features - share * bev))).abs().max() < 1e-5
    assert torch.equal(copy_into(bev, kind, remembered, share, 0 * gate), bev)
    seen = torch.randn(2, 7, 4, 5, generator=draw)
    cues, opened = CellCues(6), CopyGate(6)
    for layer in (cues, opened):
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw))
    said, logit = convolve_once(seen, cues, opened)
    assert (said - cues(seen)).abs().max() < 1e-5 and (logit.sigmoid() - opened(seen)).abs().max() < 1e-5


def test_no_gradient_of_the_boxes_reaches_what_is_copied(memory, bev, frame, pose, advance):
    """The projection stays what the head knows; the other weights learn."""
    module, state = memory(), None
    for t in range(3):
        state = module.init_state(SceneFeatures(bev(0))) if state is None else state
        readout, _, state = advance(module, bev(t), state, frame(t, pose(x=0.3 * t)), observed=seen(t))
    readout.bev.square().sum().backward()
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    assert without == ['value.weight', 'value.mean']
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters() if parameter.grad is not None)


@torch.no_grad()
def test_the_stack_that_is_given_observed_and_the_same_start(build, bev, frame, pose, play):
    module = build('StackFusion', num_frames=3, observed=True, copy=True, hidden_dim=2)
    poses, maps, observed = poses_of(pose, 4), [bev(t) for t in range(4)], [seen(t) for t in range(4)]
    readouts, _ = play(module, maps, [frame(t, p) for t, p in enumerate(poses)], observed=observed)
    for t in range(4):
        stack = [torch.cat([module.reduce(maps[i]), observed[i].float()], dim=1) for i in range(t + 1)]
        parts, kept = [stack[t]], []
        for back in (2, 1):
            stored = torch.zeros_like(parts[0])
            if t >= back:
                stored = moved(stack[t - back], poses[t], poses[t - back])[None]
                kept.append(stored[:, :2])
            parts.append(stored)
        expected = maps[t] + module.proj(module.mix(torch.cat(parts, dim=1)))
        if kept:
            gate = module.gate(torch.cat([maps[t], observed[t].float()], dim=1))
            expected += gate * (module.reduce.decode(sum(kept) / len(kept), torch.ones(1, 1, 8, 12)) - maps[t])
        assert (readouts[t].bev - expected).abs().max() < 1e-4


SQUARE = (-6.0, -6.0, -5.0, 6.0, 6.0, 3.0)


def square(seed, batch=1, share=0.5):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 12, 12, generator=draw), torch.rand(batch, 1, 12, 12, generator=draw) < share


@torch.no_grad()
def test_what_left_the_slots_lies_still_in_the_world_and_is_read(memory, frame, pose, play):
    """One frame with points, then none for long: twice bilinear, whatever the ego did in between."""
    module = memory(dict(value='bev', num_slots=2, long_term=True, point_cloud_range=SQUARE), random_weights=False)
    poses = [pose(x=700.3 + 0.37 * t, y=-31.7 + 0.21 * t, yaw=0.4 + 0.05 * t) for t in range(9)]
    first, everywhere = square(0)[0], torch.ones(1, 1, 12, 12, dtype=torch.bool)
    maps = [first, *[torch.zeros_like(first)] * 8]
    observed = [everywhere, *[~everywhere] * 8]
    _, state = play(module, maps[:8], [frame(t, p) for t, p in enumerate(poses[:8])], observed=observed[:8])
    # settled when frame 2 was written, in a map at the ego's corner of cells; since then shifted by whole cells
    corner = np.eye(4)
    corner[:3, 3] = np.floor(poses[2][:3, 3])
    corner_from_first = torch.from_numpy(np.linalg.inv(corner) @ poses[0])[None]
    settled = warp_bev(torch.cat([first, everywhere.float()], dim=1), corner_from_first, SQUARE)
    settled = torch.where(settled[:, -1:] > 0.5, settled / settled[:, -1:].clamp(min=1e-3), 0)
    settled[:, -1] = (settled[:, -1] > 0.5).float()
    later = corner.copy()
    later[:3, 3] = np.floor(poses[7][:3, 3])  # where the map lay when the last frame settled
    settled = warp_bev(settled, torch.from_numpy(np.linalg.inv(later) @ corner)[None], SQUARE)
    now = warp_bev(settled, torch.from_numpy(np.linalg.inv(poses[8]) @ later)[None], SQUARE)
    frames = frame(8, poses[8])
    weights, found = module._attend(module.align(state, frames), maps[8], torch.full((1, 1, 12, 12), -2.0), frames, 2)
    inner = now[0, -1] > 0.999
    assert inner.sum() > 40
    assert (found[0, 0, :3] - now[0, :3])[:, inner].abs().max() < 1e-3
    age = 8 * 0.5
    logit = 1.0 - math.exp(-1.5) * age  # seen, and as old as that
    others = math.exp(-0.5) + math.exp(-1.0) + math.exp(-2.0)
    whole = inner & (found[0, 1:, -1] > 0.999).all(dim=0)
    assert whole.sum() > 40
    assert (weights[0, 0][whole] - math.exp(logit) / (math.exp(logit) + others)).abs().max() < 1e-3
    assert module.attention(SceneFeatures(maps[8], observed=observed[8]), state, frames).shape == (1, 4, 12, 12)


@torch.no_grad()
def test_the_world_map_keeps_the_newest_frame_in_which_something_was_seen(memory, frame, pose, play):
    module = memory(dict(value='bev', num_slots=1, long_term=True, point_cloud_range=SQUARE), random_weights=False)
    nothing = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    corner = nothing.clone()
    corner[..., :2, :2] = True
    maps = [torch.full((1, 3, 12, 12), float(value)) for value in (1, 2, 3, 4)]
    _, state = play(module, maps, [frame(t, pose()) for t in range(4)], observed=[~nothing, nothing, corner, nothing])
    kept = state.world[0, 0]
    assert (kept[:4, :4] - 3).abs().max() < 1e-4  # seen within two cells
    assert max((kept[4:] - 1).abs().max(), (kept[:, 4:] - 1).abs().max()) < 1e-4  # frame 1 had no points


@torch.no_grad()
def test_long_memory_of_scenes_in_one_batch_equals_each_alone_and_a_start_forgets_it(memory, frame, pose, advance, play):
    module = memory(dict(value_dim=2, num_slots=2, mem_every=2, long_term=True, point_cloud_range=SQUARE))
    poses = [[pose(x=t), pose(x=50 - 2 * t, yaw=0.2 * t)] for t in range(9)]
    inputs = [square(t, 2) for t in range(9)]
    state = module.init_state(SceneFeatures(inputs[0][0]))
    size = state.num_bytes
    for t in range(9):
        frames = frame(t, poses[t], starts=[t == 0, t in (0, 3)])
        out, _, state = advance(module, inputs[t][0], state, frames, observed=inputs[t][1])
        assert state.num_bytes == size
    for b, times in enumerate((range(9), range(3, 9))):
        steps = [frame(t, poses[t][b], starts=[t == times[0]]) for t in times]
        maps, observed = ([inputs[t][part][b:b + 1] for t in times] for part in (0, 1))
        alone, last = play(module, maps, steps, observed=observed)
        assert (out.bev[b] - alone[-1].bev[0]).abs().max() < 1e-5
        assert (state.world[b] - last.world[0]).abs().max() < 1e-4
    assert state.world[0].abs().max() > 0 and state.reset([True, True]).world.abs().max() == 0


@torch.no_grad()
def test_a_policy_says_which_frames_stay(memory, bev, frame, pose, play):
    """An ego that drives and then waits: the newest frames show one place, a policy keeps another."""
    module = memory(dict(value_dim=2, num_slots=2, mem_policy=dict(type='sa')))
    plain = memory(dict(value_dim=2, num_slots=2))
    steps = [frame(t, pose(x=min(3.0 * t, 6.0))) for t in range(7)]
    maps, observed = [bev(t) for t in range(7)], [seen(t) for t in range(7)]
    kept, newest = (play(one, maps, steps, observed=observed)[1].slot_time_s[0] - 1.5e9 for one in (module, plain))
    assert newest.tolist() == [2.5, 3.0] and kept[-1] == 3.0 and kept[0] < 2.5


def test_what_does_not_go_together_is_named(memory, build, bev, frame, pose):
    for settings, word in (
            (dict(value='pixels'), 'temporal.value'), (dict(value_dim=9), 'value_dim'), (dict(num_slots=0), 'num_slots'),
            (dict(long_term=True), 'every direction'), (dict(mem_policy=dict(type='sa'), align='none'), 'mem_policy'),
            (dict(long_term=True, point_cloud_range=SQUARE, align='none'), 'network'), (dict(value='deep'), 'temporal.copy'),
            (dict(value='deep', copy=False, mix_dim=None), 'mix_dim')):
        with pytest.raises(ValueError, match=word):
            memory(dict(dict(value_dim=2), **settings))
    with pytest.raises(ValueError, match='observed=True'):
        build('StackFusion', copy=True)
    module = memory()
    for blind in (module, build('StackFusion', observed=True)):
        with pytest.raises(ValueError, match='no LiDAR'):
            blind.read(blind.init_state(SceneFeatures(bev())), SceneFeatures(bev()), frame(0, pose()))


@torch.no_grad()
@pytest.mark.parametrize('name', [*SETTINGS, 'stack', 'stack control'])
def test_a_frame_that_nobody_reads_leaves_the_same_memory(name, memory, build, bev, frame, pose, advance):
    stack = dict(stack={}, **{'stack control': dict(observed=True, copy=True, hidden_dim=2)})
    module = build('StackFusion', **stack[name]) if name in stack else memory(name)
    states = [module.init_state(SceneFeatures(bev(0)))] * 2
    for t in range(3):
        frames, features = frame(t, pose(x=0.4 * t)), SceneFeatures(bev(t), observed=seen(t))
        _, aligned, read = advance(module, bev(t), states[0], frames, observed=seen(t))
        states = [read, module.write(aligned, module.record(features), None, frames)]
        for field in read.tensors():
            assert torch.equal(getattr(states[0], field), getattr(states[1], field)), field
