"""What frames see: by hand, and against each other."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import DepthMaps, Frustums, PointClouds, WorldPoints, voxelise

K = np.array([[2.0, 0, 1], [0, 2, 0.5], [0, 0, 1]])


def seen(sets, row):
    return set(map(tuple, sets.keys[sets.members(row)].tolist()))


def test_median_confidence_and_a_twentieth_of_the_shortest_side():
    points = np.array([[[0, 0, 0], [40, 50, 20.0]], [[1.5, 0.5, 0], [90, 90, 90]]], np.float32)
    confidence = np.array([[3.0, 2], [2, 0.05]], np.float32)
    sets, grid = voxelise(points, confidence)
    assert grid.threshold == 2 and grid.voxel_m == 1 and grid.bounds_m.tolist() == [[0, 0, 0], [40, 50, 20]]
    assert seen(sets, 0) == {(0, 0, 0), (40, 50, 20)} and seen(sets, 1) == {(1, 0, 0)}
    faint = voxelise(points, confidence / 20, voxel_m=1.0)[0]  # the median is 0.1 now, and that is not more than 0.1
    assert faint.counts.tolist() == [1, 0]


def test_depth_is_world_points(room):
    frames = np.array([3, 70, 399])
    depth = room.visible
    points = depth.points(np.arange(400))
    again = WorldPoints(points, voxel_m=0.5)(frames)
    assert (depth(frames).words == again.words).all() and (depth(frames).keys == again.keys).all()
    on_a_wall = np.isclose(points, [0, 0, 0], atol=1e-6) | np.isclose(points, [8, 6, 3], atol=1e-6)
    assert on_a_wall.any(axis=-1).all()


def test_depth_by_hand_and_where_there_is_none():
    pose = np.eye(4)[None].copy()
    pose[0, :3, 3] = [10, 0, 0]
    depth = DepthMaps(np.array([[[4.0, 0, np.nan], [-1, 4, 2]]]), K, pose, voxel_m=0.25)
    points = depth.points(np.array([0]))[0]
    assert points[0, 0].tolist() == [8, -1, 4] and points[1, 1].tolist() == [10, 1, 4] and points[1, 2].tolist() == [11, 0.5, 2]
    assert np.isnan(points[0, 1:]).all() and np.isnan(points[1, 0]).all()
    assert depth(np.array([0])).counts.tolist() == [3]


def test_a_frustum_is_full_and_ends_where_it_should():
    pose = np.tile(np.eye(4), (2, 1, 1))
    pose[1, :3, 3] = [0, 0, 4]  # farther ahead by its own range
    sets = Frustums(2, 0.5, pose, np.array([[8.0, 0, 7.5], [0, 8, 7.5], [0, 0, 1]]), (16, 16), 4.0)(np.arange(2))
    centers = sets.centers_m[sets.members(0)]
    assert (np.abs(centers[:, :2]) <= centers[:, 2:] + 0.5).all() and centers[:, 2].max() == 3.75
    inside = np.stack(np.meshgrid(*[np.arange(-4, 4, 0.5) + 0.25] * 2, np.arange(0, 4, 0.5) + 0.25), axis=-1).reshape(-1, 3)
    inside = inside[(np.abs(inside[:, :2]) <= inside[:, 2:]).all(axis=1)]
    assert {tuple(point) for point in inside} <= {tuple(point) for point in centers}
    assert not (sets.members(0) & sets.members(1)).any()


def test_point_clouds_are_read_once_and_only_where_asked():
    asked = []

    def load(frame):
        asked.append(frame)
        return np.array([[frame + 0.5, 0, 0], [frame + 0.6, 0, 0.1]])

    clouds = PointClouds(9, 1.0, load)
    assert seen(clouds(np.array([2, 5])), 1) == {(5, 0, 0)} and clouds(np.array([5])).counts.tolist() == [1]
    assert asked == [2, 5]


@pytest.mark.parametrize('make, message', [
    (lambda: voxelise(np.zeros((2, 4, 2)), None, name='a.npz'), r'a.npz: world points must be \(frames, ..., 3\)'),
    (lambda: voxelise(np.zeros((2, 4, 3)), np.zeros((2, 5)), name='a.npz'), r'\(2, 4, 3\) and \(2, 5\)'),
    (lambda: voxelise(np.zeros((2, 4, 3)), np.full((2, 4), np.nan), name='a.npz'), 'a.npz: the confidence is not finite in 8'),
    (lambda: voxelise(np.zeros((2, 4, 3)), np.zeros((2, 4)), name='a.npz'), 'a.npz: no point counts in 2 frames'),
    (lambda: voxelise(np.random.rand(2, 4, 3) * [1, 1, 0], None, name='a.npz'), 'a.npz: the points lie in a plane'),
    (lambda: DepthMaps(np.ones((2, 3)), K, np.eye(4)[None]), r'depth must be \(frames, height, width\), got \(2, 3\)'),
    (lambda: DepthMaps(np.ones((2, 3, 3)), K, np.eye(4)[None]), r'world_from_cam must be \(2, 4, 4\)'),
    (lambda: DepthMaps(np.ones((2, 3, 3)), K, np.stack([np.eye(4), 2 * np.eye(4)])), 'world_from_cam of frame 1 is not'),
    (lambda: DepthMaps(np.ones((1, 3, 3)), K[:2], np.eye(4)[None]), r'must be \(3, 3\) or \(1, 3, 3\), got \(2, 3\)'),
    (lambda: DepthMaps(np.ones((1, 3, 3)), -K, np.eye(4)[None]), 'intrinsics must be finite with positive focal lengths'),
    (lambda: DepthMaps(np.ones((2, 3, 3)), K, np.stack([np.eye(4)] * 2), np.ones((1, 3, 3)), name='a.npz'),
     r'a.npz: confidence must be \(2, 3, 3\), got \(1, 3, 3\)'),
    (lambda: WorldPoints(np.ones((2, 3, 3)), np.ones((2, 4)), name='a.npz'),
     r'a.npz: confidence must be \(2, 3\), got \(2, 4\)'),
    (lambda: PointClouds(1, 0.0, lambda frame: np.zeros((1, 3))), 'voxel_m must be positive, got 0'),
    (lambda: PointClouds(1, 1.0, lambda frame: np.zeros((1, 4)))(np.array([0])), r'point cloud of frame 0 must be \(P, 3\)'),
    (lambda: Frustums(1, 1.0, np.eye(4)[None], K, (2, 3), 0.0), 'range_m must be positive, got 0'),
])
def test_what_cannot_be_used_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.filterwarnings('error')
def test_depth_without_end_is_none():
    depth = np.ones((1, 2, 2))
    depth[0, 0, 0] = np.inf
    assert np.isfinite(DepthMaps(depth, K, np.eye(4)[None]).points(np.array([0]))).all(axis=-1).tolist() == [
        [[False, True], [True, True]]]
