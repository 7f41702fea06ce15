"""Which frame leaves a full memory: by hand on drives that stop, and against slow loops."""

import numpy as np
import pytest
import torch
from sync_counts import counting

from projects.geometry.frame_sampling import FRAME_KEEPERS, KeptFrames, build_keeper

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)


def drive(keeper, x_m, slots, times=None, yaw=None, cells=None):
    """Frames of a drive along x -> numbers of the frames that memory holds in the end."""
    count = len(x_m)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 3] = torch.tensor(x_m, dtype=torch.float64)
    angle = torch.zeros(count, dtype=torch.float64) if yaw is None else torch.tensor(yaw, dtype=torch.float64)
    poses[:, 0, 0], poses[:, 1, 1], poses[:, 1, 0], poses[:, 0, 1] = angle.cos(), angle.cos(), angle.sin(), -angle.sin()
    stamps = torch.arange(count, dtype=torch.float64) if times is None else torch.tensor(times, dtype=torch.float64)
    cells = torch.ones(count, 4, 6, dtype=torch.bool) if cells is None else cells
    held = [None] * slots
    for frame in range(count):
        both = [*held, frame]
        at = torch.tensor([0 if one is None else one for one in both])
        stays = build_keeper(keeper).keep(KeptFrames(
            torch.tensor([[one is not None for one in both]]), stamps[at][None], poses[at][None], cells[at][None], RANGE))
        held = [both[place] for place in stays[0].tolist()]
        assert held[-1] == frame and len(held) == slots
    return held


def test_names_are_those_of_samplers():
    assert set(FRAME_KEEPERS.module_dict) == {'uniform', 'fps', 'sa'}


@pytest.mark.parametrize('name', ['fps', 'sa'])
def test_a_stop_does_not_wash_out_what_was_seen_before(name):
    stop = [0, 3, 6, 9, *[10] * 30]
    assert drive(dict(type=name), stop, 4)[-1] == 33
    places = [stop[frame] for frame in drive(dict(type=name), stop, 4)]
    assert len(set(places)) == 4 and places[0] == 0


def test_evenly_spread_in_time_whatever_the_ego_does():
    assert drive(dict(type='uniform'), [0] * 10, 5) == [0, 2, 4, 6, 9]
    assert drive(dict(type='uniform'), [0] * 7, 3, times=[0, 1, 2, 3, 4, 20, 21]) == [0, 4, 6]


def test_a_turn_on_the_spot_counts_as_a_place_of_its_own():
    yaw = np.radians([0, 0, 90, 90, 90, 180, 180])
    for name in ('fps', 'sa'):
        assert drive(dict(type=name), [0] * 7, 3, yaw=yaw) == [1, 4, 6]


def test_what_only_one_frame_saw_is_kept():
    """All stand at one place; frame 1 alone saw behind the wall."""
    cells = torch.zeros(9, 4, 6, dtype=torch.bool)
    cells[:, :2] = True
    cells[1, 3, 4] = True
    assert drive(dict(type='sa'), [0] * 9, 3, cells=cells) == [1, 7, 8]


def test_frames_out_of_reach_go_first_the_oldest_of_them():
    far = [0, 1, 2, 40, 41, 41]
    assert drive(dict(type='fps'), far[:5], 4) == [1, 2, 3, 4] and drive(dict(type='sa'), far, 4) == [2, 3, 4, 5]
    assert drive(dict(type='fps', reach_m=100.0), [0, 2, 3, 40, 41, 41], 4) == [0, 2, 3, 5]


def slow_lost(poses, cells, own):
    """Cells of frame `own` that no other frame sees, one by one."""
    lost = 0
    for row, column in np.argwhere(cells[own]):
        here = np.array([-6 + 2 * (column + 0.5), -4 + 2 * (row + 0.5), 0, 1])
        seen = False
        for other in range(len(poses)):
            x, y = (np.linalg.inv(poses[other]) @ poses[own] @ here)[:2]
            i, j = int(np.floor((y + 4) / 2)), int(np.floor((x + 6) / 2))
            seen |= other != own and 0 <= i < 4 and 0 <= j < 6 and bool(cells[other][i, j])
        lost += not seen
    return lost


def random_frames(seed, batch=3, count=5):
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (batch, count, 1, 1))
    yaw = rng.uniform(0, 6, (batch, count))
    poses[..., :2, :2] = np.moveaxis(np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]), (0, 1), (2, 3))
    poses[..., :2, 3] = 1000 + rng.uniform(-3, 3, (batch, count, 2))
    return poses, rng.random((batch, count, 4, 6)) > 0.4, np.sort(rng.uniform(0, 9, (batch, count)))


def kept_frames(poses, cells, times):
    return KeptFrames(torch.ones(times.shape, dtype=torch.bool), *map(torch.from_numpy, (times, poses, cells)), RANGE)


@pytest.mark.parametrize('seed', range(3))
def test_costs_are_those_of_slow_loops_and_scenes_do_not_see_each_other(seed):
    poses, cells, times = random_frames(seed)
    frames = kept_frames(poses, cells, times)
    lost = build_keeper(dict(type='sa')).cost(frames, frames.valid)
    assert lost.floor().tolist() == [[slow_lost(p, c, own) for own in range(5)] for p, c in zip(poses, cells)]
    nearest = build_keeper(dict(type='fps', theta0_deg=20.0, scale_m=2.0)).cost(frames, frames.valid)
    for p, found in zip(poses, nearest):
        cosine = [[(np.trace(a[:3, :3].T @ b[:3, :3]) - 1) / 2 for b in p] for a in p]
        metres = [[np.linalg.norm(a[:3, 3] - b[:3, 3]) for b in p] for a in p]
        apart = np.degrees(np.arccos(np.clip(cosine, -1, 1))) / 20 + np.array(metres) / 2
        assert found.tolist() == pytest.approx((apart + np.diag([np.inf] * 5)).min(axis=1), abs=1e-6)
    for name in FRAME_KEEPERS.module_dict:
        keeper = build_keeper(dict(type=name))
        single = [keeper.keep(kept_frames(p[None], c[None], t[None]))[0].tolist() for p, c, t in zip(poses, cells, times)]
        assert keeper.keep(frames).tolist() == single


@pytest.mark.parametrize('name', ['uniform', 'fps', 'sa'])
def test_no_host_waits(name):
    frames = kept_frames(*random_frames(0))
    with counting() as counts:
        build_keeper(dict(type=name)).keep(frames)
    assert counts.total == 0, counts


@pytest.mark.parametrize('cfg, message', [
    (dict(type='mergeaware_sa'), "there is no frame keeper 'mergeaware_sa'. Known: fps, sa, uniform"),
    (dict(type='uniform', scale_m=1.0), "frame keeper 'uniform': .*unexpected keyword argument 'scale_m'"),
    (dict(type='sa', reach_m=0.0), 'of a frame keeper must be positive, got 0.0, 30.0 and 10.0'),
    (dict(type='fps', scale_m=0.0), 'of a frame keeper must be positive, got None, 30.0 and 0.0'),
])
def test_what_cannot_keep_is_named(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_keeper(cfg)
