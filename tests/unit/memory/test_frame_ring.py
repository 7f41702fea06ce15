"""FrameRing: what a head sees of earlier frames, where their rigs stand now, scenes of different age, clips as streamed."""

import numpy as np
import pytest
import torch

from projects.geometry.rigid import transform_points
from projects.memfusion.memory import FrameRing
from projects.memfusion.structures import Calibration, FrameBatch, FrameImages, FrameMeta, History, SceneFeatures

RANGE = [-51.2, -51.2, -5, 51.2, 51.2, 3]


def meta(scene, index, turn_deg=0.0, start=None):
    """A frame 2 m further along x than the one before it, turned about z."""
    pose = np.eye(4)
    angle = np.deg2rad(turn_deg)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [1e5 + 2.0 * index, 7.0, 0.0]
    return FrameMeta(f'{scene}{index}', scene, index, index == 0 if start is None else start, False, 1.5e9 + 0.5 * index,
                     pose, np.eye(4), True, True)


def seen(frames, batch=1):
    """Features whose value is their frame's number, and a rig that looks along x."""
    look = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    rig = Calibration.from_matrices(torch.tensor([[20.0, 0, 24], [0, 20, 16], [0, 0, 1]]).repeat(batch, 1, 1, 1),
                                    look.repeat(batch, 1, 1, 1), torch.tensor([32, 48]).repeat(batch, 1, 1))
    numbers = torch.as_tensor(frames, dtype=torch.float32).view(-1, 1, 1, 1, 1)
    return SceneFeatures(levels=(numbers.expand(batch, 1, 2, 4, 6), numbers.expand(batch, 1, 2, 2, 3)), calibration=rig)


def walk(ring, steps):
    """steps: T lists of metas -> the Readout of each, and the last state."""
    readouts, state = [], None
    for t, metas in enumerate(steps):
        frames = FrameBatch.from_metas(metas, torch.device('cpu'))
        features = seen([t + 1] * len(metas), len(metas))
        state = ring.init_state(features) if state is None else state
        state = ring.align(state, frames)
        readouts.append(ring.read(state, features, frames))
        state = ring.write(state, readouts[-1], None, frames).where(frames.there, state)
    return readouts, state


def test_the_newest_comes_first_and_what_is_not_there_shows_nothing():
    readouts, _ = walk(FrameRing(RANGE, num_frames=3), [[meta('a', index)] for index in range(4)])
    found = [[(past.there[0], past.levels[0].unique().tolist(), past.calibration.cam_valid.item(), past.age_s.item())
              for past in readout.past.frames()] for readout in readouts]
    nothing = (False, [0.0], False, 0.0)
    assert found == [[nothing, nothing], [(True, [1.0], True, 0.5), nothing],
                     [(True, [2.0], True, 0.5), (True, [1.0], True, 1.0)], [(True, [3.0], True, 0.5), (True, [2.0], True, 1.0)]]


def test_a_fixed_point_keeps_its_pixel_in_an_earlier_image():
    metas = [[meta('a', 0)], [meta('a', 1, 20.0)], [meta('a', 2, 50.0)]]
    readouts, _ = walk(FrameRing(RANGE, num_frames=3), metas)
    point_global = torch.tensor([[[1e5 + 12.0, 8.0, 1.0]]], dtype=torch.float64)
    now = FrameBatch.from_metas(metas[2], torch.device('cpu'))
    for past, then in zip(readouts[2].past.frames(), (metas[1], metas[0])):
        frames = FrameBatch.from_metas(then, torch.device('cpu'))
        old_px, _, old_valid = seen([0]).calibration.project(transform_points(frames.bev_from_global, point_global).float())
        new_px, _, new_valid = past.calibration.project(transform_points(now.bev_from_global, point_global).float())
        assert old_valid.all() == new_valid.all()
        torch.testing.assert_close(new_px, old_px, atol=2e-3, rtol=0)
    still, _ = walk(FrameRing(RANGE, num_frames=3, align='none'), metas)
    assert torch.equal(still[2].past.frames()[0].calibration.bev_aug[0], torch.eye(4))


def padded(slot, padded_hw, *sizes):
    return slot.padded_to(padded_hw, sizes)


def test_padding_grows_and_goes_with_the_batch():
    ring = FrameRing(RANGE)
    slot = ring._slot(seen([1]))
    more = padded(slot, (64, 48), (8, 6), (4, 3))
    assert [level.sum() for level in more.levels] == [level.sum() for level in slot.levels]
    assert more.rig.padded_hw == (64, 48) and torch.equal(more.levels[0][..., :4, :], slot.levels[0])
    both = FrameImages.join([slot, more])
    assert both.padded_hw == (64, 48) and torch.equal(both.levels[1][0], both.levels[1][1])
    assert torch.equal(more.like(slot, (True,)).levels[0], slot.levels[0])
    large = FrameImages(more.levels, more.rig.with_img_aug(0, torch.eye(4), (60, 48)).padded_to((64, 48)))
    assert large.like(slot, (True,)) is large  # its image would be cut
    assert large.like(slot, (False,)).padded_hw == (32, 48)
    with pytest.raises(ValueError, match=r'padded to \(32, 48\) pixels share a batch .*\(40, 48\).*pad_size_divisor'):
        padded(slot, (40, 48), (5, 6), (3, 3))


def test_levels_that_nobody_reads_are_not_kept():
    readouts, state = walk(FrameRing(RANGE, levels=(-1,)), [[meta('a', index)] for index in range(2)])
    (past,) = readouts[1].past.frames()
    assert [tuple(level.shape) for level in past.levels] == [(1, 1, 2, 0, 0), (1, 1, 2, 2, 3)]
    assert past.levels[1].unique().tolist() == [1.0]
    assert walk(FrameRing(RANGE), [[meta('a', 0)]])[1].num_bytes - state.num_bytes == 4 * 2 * 4 * 6


def test_scenes_of_different_age_and_a_reset_share_a_batch():
    steps = [[meta('a', index), meta(*other)] for index, other in enumerate([('b', 0), ('b', 1), ('c', 0), ('c', 1)])]
    together, state = walk(FrameRing(RANGE, num_frames=3), steps)
    alone, _ = walk(FrameRing(RANGE, num_frames=3), [[row[0]] for row in steps])
    for both, one in zip(together, alone):
        for mine, single in zip(both.past.frames(), one.past.frames()):
            assert mine.there[:1] == single.there and torch.equal(mine.levels[1][:1], single.levels[1])
            assert torch.equal(mine.calibration.bev_aug[:1], single.calibration.bev_aug)
    assert [past.there for past in together[2].past.frames()] == [(True, False), (True, False)]
    assert [past.there for past in together[3].past.frames()] == [(True, True), (True, False)]
    rejoined = type(state).cat([state.select([1]), state.select([0])])
    assert rejoined.ages == (2, 4) and torch.equal(rejoined.slots[1].levels[0][:1], state.slots[1].levels[0][1:])
    assert state.put([0], state.select([1])).ages == (2, 2)


def test_a_clip_shows_what_its_steps_showed_and_copies_only_what_is_asked_for():
    steps = [[meta('a', index), meta('b', index)] for index in range(3)]
    readouts, _ = walk(FrameRing(RANGE, num_frames=3), steps)
    clip = History.of_clips([readout.past for readout in readouts])
    for row in (0, 2, 4, 5):
        b, t = divmod(row, 3)
        for mine, step in zip(clip.take([row]).frames(), readouts[t].past.frames()):
            assert mine.there == step.there[b:b + 1] and torch.equal(mine.levels[0], step.levels[0][b:b + 1])
    mixed = clip.take([5, 1, 2]).frames()[0]
    assert mixed.levels[0][:, 0, 0, 0, 0].tolist() == [2, 1, 2] and mixed.age_s.tolist() == [0.5] * 3


def test_gradient_reaches_earlier_images_until_it_is_cut():
    ring = FrameRing(RANGE)
    first, second = (FrameBatch.from_metas([meta('a', index)], torch.device('cpu')) for index in range(2))
    features = seen([1])
    weight = torch.ones((), requires_grad=True)
    learning = SceneFeatures(levels=tuple(level * weight for level in features.levels), calibration=features.calibration)
    state = ring.init_state(learning)
    state = ring.write(state, ring.read(state, learning, first), None, first)
    readout = ring.read(state, learning, second)
    assert readout.past.frames()[0].levels[0].requires_grad
    assert not readout.without_gradient().past.frames()[0].levels[0].requires_grad
    assert not ring.read(state.detach(), learning, second).past.frames()[0].levels[0].requires_grad


def test_bad_settings_and_frames_are_named():
    with pytest.raises(ValueError, match='num_frames must be at least 2'):
        FrameRing(RANGE, num_frames=1)
    with pytest.raises(ValueError, match='FrameRing keeps image features.*img_backbone'):
        FrameRing(RANGE).init_state(SceneFeatures(bev=torch.zeros(1, 2, 4, 4)))
    with pytest.raises(ValueError, match=r'temporal.levels=\[0, 3\] has \[3\], but img_neck gives \d levels'):
        walk(FrameRing(RANGE, levels=[0, 3]), [[meta('a', 0)]])
