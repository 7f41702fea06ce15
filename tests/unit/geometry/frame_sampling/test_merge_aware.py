"""Pairs: whom an anchor may be paired with, and whom it gets."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import Video, WorldPoints, build_sampler


def line(seen, x_m=None):
    """A video whose frame t sees the voxels seen[t] of a row of voxels of 1 m, one point each, at x_m[t]."""
    widest = max(map(len, seen))
    points = np.full((len(seen), widest, 3), np.nan)
    for frame, voxels in enumerate(seen):
        points[frame, :len(voxels)] = [[voxel + 0.5, 0.5, 0.5] for voxel in voxels]
    poses = np.tile(np.eye(4), (len(seen), 1, 1))
    poses[:, 0, 3] = np.zeros(len(seen)) if x_m is None else x_m
    return Video(len(seen), 'line', world_from_cam=poses, visible=WorldPoints(points, voxel_m=1.0))


def pairs(name, video, num_frames, **settings):
    frames, report = build_sampler(dict(type=name, num_frames=num_frames, **settings))(video)
    return frames.reshape(-1, 2).tolist(), report


@pytest.mark.parametrize('name', ['mergeaware_uniform', 'mergeaware_sa'])
@pytest.mark.parametrize('delta', [1, 4, 30])
def test_partners_are_near_and_anchors_ascend(name, delta, room):
    found, report = pairs(name, room, 16, pair=dict(delta=delta))
    anchors = [anchor for anchor, _ in found]
    assert len(found) == 8 and anchors == sorted(anchors) and len({frame for pair in found for frame in pair}) == 16
    assert all(1 <= abs(anchor - partner) <= delta for anchor, partner in found)
    assert report['pair_angle_deg_max'] <= 30 and report['pair_baseline_m_max'] <= 1 and report['pairs_beyond_bounds'] == 0


def test_largest_overlap_within_the_bounds_wins():
    seen = [{0, 1, 2, 3}, {0, 1}, {0, 1, 2, 3}, {0, 1, 2}, {9}, {9}]
    assert pairs('mergeaware_uniform', line(seen), 2)[0] == [[0, 2]]
    assert pairs('mergeaware_uniform', line(seen, [0, 0, 5, 0, 0, 0]), 2)[0] == [[0, 3]]  # frame 2 is 5 m away
    assert pairs('mergeaware_uniform', line(seen, [0, 0, 5, 0, 0, 0]), 2, pair=dict(max_baseline_m=6.0))[0] == [[0, 2]]
    assert pairs('mergeaware_uniform', line(seen), 2, pair=dict(delta=1))[0] == [[0, 1]]


def test_equal_overlap_nearest_then_later():
    assert pairs('mergeaware_sa', line([{0}, {1}, {0, 1, 2}, {1}, {0}]), 2)[0] == [[2, 3]]  # all of 2's overlaps are 1/3
    seen = [{0, 5}, {7}, {7}, {7}, {0, 6}]
    assert pairs('mergeaware_uniform', line(seen), 4)[0] == [[0, 1], [4, 3]]  # nothing of 0 or 4 is in 1 to 3: the nearest


def test_a_partner_outside_the_video_is_clamped_and_none_within_bounds_is_said():
    video = line([{0}] * 4, [0, 0, 0, 50])
    found, report = pairs('mergeaware_uniform', video, 4)
    assert found == [[0, 1], [3, 2]] and report['pairs_beyond_bounds'] == 1
    assert pairs('mergeaware_uniform', line([{0}, {0}]), 2)[0] == [[0, 1]]


def test_all_frames_of_a_short_video_are_used_once():
    found, _ = pairs('mergeaware_uniform', line([{0}] * 8), 8)
    assert sorted(sum(found, [])) == list(range(8))


def test_greedy_on_what_a_pair_sees_together():
    seen = [{0, 1}, {0, 1}, {5, 6, 7}, {5, 6, 7, 8}, {20}, {20}]
    found, report = pairs('mergeaware_sa', line(seen), 4)
    assert found == [[0, 1], [2, 3]] and report['order'] == [2, 3, 0, 1] and report['gains'] == [4, 2]


def test_early_stop_and_fill():
    video = line([{0, 1}] * 20, np.linspace(0, 1, 20))
    found, report = pairs('mergeaware_sa', video, 8)
    assert found == [[0, 1]] and report['returned'] == 2
    found, report = pairs('mergeaware_sa', video, 8, fill=True)
    assert report['returned'] == 8 and len({frame for pair in found for frame in pair}) == 8
    assert all(abs(anchor - partner) <= 30 for anchor, partner in found)


def test_no_bounds_need_no_poses():
    video = line([{0}, {0}, {3}])
    free = Video(3, visible=video.visible)
    assert pairs('mergeaware_uniform', free, 2, pair=dict(max_angle_deg=None, max_baseline_m=None))[0] == [[0, 1]]
