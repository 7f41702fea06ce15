"""Ego poses in the memory read: keys by hand, another global frame, long-term memory; what was there stays bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sync_counts import counting

from projects.memfusion.memory.key_position import EgoPose

EGO = dict(type='CaPE6')
POSED = dict(key_position=dict(ego=EGO))


def drive(pose, count):
    """Poses of an ego that turns fast."""
    return [pose(x=5.0 * t, y=0.3 * t * t, yaw=0.6 * t) for t in range(count)]


def far(matrix):
    """The pose told in another global frame, a kilometre off and turned."""
    other = np.eye(4)
    other[:3, :3] = [[0.0, -1, 0], [0.6, 0, -0.8], [0.8, 0, 0.6]]
    other[:3, 3] = [700.0, -700.0, 140.0]
    return other @ matrix


def test_keys_are_points_that_move_with_the_ego():
    turn = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, -10], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    stay = torch.eye(4, dtype=torch.float64)
    layer = EgoPose(8, dict(EGO, layout='P1/2 I1/2'))
    key = torch.arange(1.0, 33).view(1, 8, 4)  # two frames of two cells
    moved = layer(key, torch.stack([stay, turn])[None])
    assert torch.equal(moved[..., :2], key[..., :2]) and torch.equal(moved[:, 4:], key[:, 4:])
    x, y, z, w = key[0, :4, 2:]
    torch.testing.assert_close(moved[0, :4, 2:], torch.stack([-y + 5 / 25 * w, x - 10 / 25 * w, z, w]))


def test_keys_in_float64_do_not_know_the_global_frame(pose):
    poses = torch.stack([torch.as_tensor(one) for one in drive(pose, 4)])
    others = torch.stack([torch.as_tensor(far(one.numpy())) for one in poses])
    layer, key = EgoPose(8, EGO), torch.randn(1, 8, 12, dtype=torch.float64)
    here, there = (layer(key, (torch.linalg.inv(each[-1]) @ each)[None]) for each in (poses, others))
    assert (here - there).abs().max() < 1e-11 and (here - key).abs().max() > 0.1


LONG_TERM = dict(long_term=dict(min_mem_frames=1, num_prototypes=8, max_elements=24))


@torch.no_grad()
@pytest.mark.parametrize('settings', [dict(), LONG_TERM])
def test_a_read_does_not_depend_on_the_global_frame(settings, build, bev, frame, pose, play):
    module = build(max_mem_frames=3, **POSED, **settings)
    poses, turn = drive(pose, 7), pose(yaw=0.5 * np.pi)
    told = dict(here=poses, far=[far(one) for one in poses], first=[np.linalg.inv(poses[0]) @ one for one in poses],
                undone=[one @ turn for one in poses])
    bevs, read = [bev(t) for t in range(7)], {}
    for name, each in told.items():
        aug = turn if name == 'undone' else None
        steps = [frame(t, one, aug=aug) for t, one in enumerate(each)]
        read[name] = play(module, bevs, steps)[0][-1].bev
    for name in ('far', 'first', 'undone'):
        assert (read[name] - read['here']).abs().max() < 2e-6 * read['here'].abs().max(), name
    plain = build(max_mem_frames=3, **settings)
    steps = [frame(t, one) for t, one in enumerate(poses)]
    assert (play(plain, bevs, steps)[0][-1].bev - read['here']).abs().max() > 1e-3, 'poses have a say'


@torch.no_grad()
def test_prototypes_stand_where_their_frames_saw_them(build, bev, frame, pose, play):
    """Moved step by step since they were made, or at once from their own frames: the same keys."""
    module = build(max_mem_frames=3, **POSED, **LONG_TERM)
    steps = [frame(t, one) for t, one in enumerate(drive(pose, 6))]
    _, before = play(module, [bev(t) for t in range(2)], steps[:2])
    _, memory = play(module, [bev(t) for t in range(3)], steps[:3])
    for step in steps[3:]:
        memory = module.align(memory, step)
        memory = type(memory)(**{**vars(memory), 'global_from_bev': step.global_from_bev})
    candidates = module._keys_from_now(before, steps[-1])[:, -2:].transpose(1, 2).flatten(2)
    made = memory.long_key[0][:, memory.long_valid[0]]
    away = (made[:, :, None] - candidates[0][:, None]).abs().amax(0).amin(1)
    assert made.shape[1] == 8 and away.max() < 1e-5 * made.abs().max()


@torch.no_grad()
def test_what_was_there_stays_bit_for_bit(build, bev, frame, pose, play):
    steps, bevs = [frame(t, one) for t, one in enumerate(drive(pose, 4))], [bev(t) for t in range(4)]
    usual, said, content, silent = (build(key_position=one) for one in (
        True, dict(), False, dict(distance=False)))
    for one, other in ((usual, said), (content, silent)):
        assert one.state_dict().keys() == other.state_dict().keys()
        assert torch.equal(play(one, bevs, steps)[0][-1].bev, play(other, bevs, steps)[0][-1].bev)
    assert usual.state_dict().keys() - content.state_dict().keys() == {'log_locality'}
    assert usual.state_dict().keys() == build(**POSED).state_dict().keys(), 'poses have no weights'


@torch.no_grad()
def test_nothing_more_waits_for_the_device(build, bev, frame, pose, play):
    steps, bevs = [frame(t, one) for t, one in enumerate(drive(pose, 3))], [bev(t) for t in range(3)]
    waits = []
    for settings in (dict(), POSED):
        module = build(**settings)
        with counting() as counts:
            play(module, bevs, steps)
        waits.append(counts.total)
    assert waits[0] == waits[1], counts


@pytest.mark.parametrize(('ego', 'align', 'said'), [
    (EGO, 'loader', "key_position.ego needs the ego's poses.*'loader'"),
    (dict(type='PRoPE'), 'network', "ego.type must be CaPE6.*'PRoPE'"),
    (dict(EGO, layout='P1/2 H1/2'), 'network', 'layout has P and I alone'),
    (dict(EGO, layout='P2 I2'), 'network', 'divide by 4'),
])
def test_wrong_settings_are_told(ego, align, said, build):
    with pytest.raises(ValueError, match=said):
        build(align=align, key_position=dict(ego=ego))
