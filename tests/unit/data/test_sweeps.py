"""The sweep transform: a hand answer, the devkit on a turning ego, and mmdet3d's stock transform beside it."""

import copy

import numpy as np
import pytest
from mmdet3d.datasets.transforms import LoadPointsFromMultiSweeps
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud

from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.nuscenes_infos import create_infos, load_info_file
from projects.memfusion.data.transforms import LoadLidarPoints, LoadLidarSweeps

MINI = 'v1.0-mini'
EXTRA = ('global_from_lidar', 'timestamp', 'sample_data_token')


@pytest.fixture(scope='module')
def nusc(nano_root):
    return NuScenes(MINI, str(nano_root), verbose=False)


@pytest.fixture(scope='module')
def frames(nano_root, tmp_path_factory):
    """Infos of all keyframes that have 10 sweeps, with absolute paths as mmdet3d's data set makes them."""
    infos = []
    for path in create_infos(nano_root, MINI, tmp_path_factory.mktemp('infos')).values():
        infos += load_info_file(path)[0]
    infos = [info for info in infos if len(info.get('lidar_sweeps', [])) == 10]
    for info in infos:
        info['lidar_points']['lidar_path'] = str(nano_root / 'samples/LIDAR_TOP' / info['lidar_points']['lidar_path'])
        for sweep in info['lidar_sweeps']:
            folder, name = sweep['lidar_points']['lidar_path'].split('/')[-3], sweep['lidar_points']['lidar_path']
            sweep['lidar_points']['lidar_path'] = str(nano_root / folder / 'LIDAR_TOP' / name.split('/')[-1])
    assert infos
    return infos


def accumulate(sweeps, info):
    return sweeps.transform(LoadLidarPoints().transform(copy.deepcopy(info)))['points'].numpy()


def devkit_points(nusc, info, nsweeps):
    """(N, 5) points of the devkit: x, y, z, intensity, time lag; the keyframe first, its own close points removed."""
    cloud, times = LidarPointCloud.from_file_multisweep(nusc, nusc.get('sample', info['token']), 'LIDAR_TOP',
                                                        'LIDAR_TOP', nsweeps=nsweeps)
    return np.concatenate([cloud.points, times]).T


def without_close_keyframe_points(points):
    return points[(points[:, 4] > 0) | (np.abs(points[:, 0]) >= 1) | (np.abs(points[:, 1]) >= 1)]


def worst_distance(points, expected):
    assert points.shape == expected.shape
    return np.linalg.norm(points[:, :3] - expected[:, :3], axis=1).max()


def turn_rad(info):
    """Angle between the LiDAR's heading now and at the oldest sweep."""
    now, then = (np.array(frame['global_from_lidar'])[:3, :3] for frame in (info, info['lidar_sweeps'][-1]))
    return float(np.arccos(np.clip((np.trace(now.T @ then) - 1) / 2, -1, 1)))


@pytest.mark.parametrize('strip', [False, True], ids=['our infos', 'stock keys only'])
def test_equal_to_the_devkit(nusc, frames, strip):
    sweeps, worst = LoadLidarSweeps(sweeps_num=10, use_dim=5, remove_close=True, test_mode=True), 0.0
    for info in frames:
        info = copy.deepcopy(info)
        for part in (info, *info['lidar_sweeps']) if strip else ():
            part.pop('global_from_lidar')
        if strip:
            info['lidar_points'].pop('timestamp')
        ours, expected = without_close_keyframe_points(accumulate(sweeps, info)), devkit_points(nusc, info, 11)
        worst = max(worst, worst_distance(ours, expected))
        np.testing.assert_array_equal(ours[:, 3], expected[:, 3].astype(np.float32))
        np.testing.assert_allclose(ours[:, 4], expected[:, 4], rtol=0, atol=2.5e-6)  # stamps have steps of 2.4e-7 s
    print(f'worst distance to the devkit: {worst * 1000:.4f} mm')
    assert max(turn_rad(info) for info in frames) > np.radians(2), 'the nano world must have a turning ego'
    assert worst < 1e-3


def test_stock_transform_is_off_where_the_ego_turns(nusc, frames):
    info = max(frames, key=turn_rad)
    options = dict(sweeps_num=10, use_dim=5, remove_close=True, test_mode=True)
    expected = devkit_points(nusc, info, 11)
    stock = without_close_keyframe_points(accumulate(LoadPointsFromMultiSweeps(**options), info))
    ours = without_close_keyframe_points(accumulate(LoadLidarSweeps(**options), info))
    print(f'turn {np.degrees(turn_rad(info)):.1f} deg: stock {worst_distance(stock, expected) * 1000:.1f} mm, '
          f'ours {worst_distance(ours, expected) * 1000:.4f} mm')
    assert worst_distance(stock, expected) > 0.05
    assert worst_distance(ours, expected) < 1e-3


def turned_frame(tmp_path):
    """The sweep's LiDAR was at (3, 4), 5 m away, turned left by 90 degrees; now it is at the origin, not turned."""
    key, past = tmp_path / 'key.bin', tmp_path / 'past.bin'
    np.array([[20, 0, 0, 7, 9]], np.float32).tofile(key)
    np.array([[5, 0, 1, 8, 9], [0.9, -0.9, 0, 8, 9], [0.9, -1.1, 0, 8, 9]], np.float32).tofile(past)
    global_from_sweep = np.array([[0., -1, 0, 3], [1, 0, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]])
    # all of it a million metres away, where float32 poses are useless
    far = np.eye(4)
    far[:3, 3] = 1e6, -1e6, 100
    sweep_from_key = np.linalg.inv(global_from_sweep)
    return dict(timestamp=1.5e9 + 0.25, global_from_lidar=far.tolist(),
                lidar_points=dict(lidar_path=str(key), lidar2ego=np.eye(4).tolist()),
                lidar_sweeps=[dict(timestamp=1.5e9, global_from_lidar=(far @ global_from_sweep).tolist(),
                                   lidar_points=dict(lidar_path=str(past), lidar2sensor=sweep_from_key.tolist()))])


def test_hand_answer(tmp_path):
    points = accumulate(LoadLidarSweeps(use_dim=5, remove_close=True), turned_frame(tmp_path))
    # 5 m ahead of a sensor at (3, 4) that looks along +y is (3, 9); (0.9, -1.1) is at (3 + 1.1, 4 + 0.9)
    np.testing.assert_allclose(points, [[20, 0, 0, 7, 0], [3, 9, 1, 8, 0.25], [4.1, 4.9, 0, 8, 0.25]], atol=1e-5)
    stock = accumulate(LoadPointsFromMultiSweeps(use_dim=5, remove_close=True), turned_frame(tmp_path))
    np.testing.assert_allclose(stock[1, :3], [4, 2, 1], atol=1e-5)  # R p + R^T t: the wrong way round


@pytest.mark.parametrize('test_mode', [False, True])
def test_choice_of_sweeps_is_mmdet3d_s(frames, test_mode):
    lags = []
    for sweeps in (LoadLidarSweeps, LoadPointsFromMultiSweeps):
        np.random.seed(3)
        points = accumulate(sweeps(sweeps_num=4, use_dim=5, test_mode=test_mode), frames[0])
        lags.append(points[:, 4])
    np.testing.assert_array_equal(*lags)
    assert len(np.unique(lags[0])) == 5
    stamps = [frames[0]['timestamp'] - sweep['timestamp'] for sweep in frames[0]['lidar_sweeps'][:4]]
    assert np.allclose(np.unique(lags[0])[1:], stamps) == test_mode


@pytest.mark.parametrize('remove_close', [False, True])
@pytest.mark.parametrize('pad', [False, True])
def test_padding_is_mmdet3d_s(frames, pad, remove_close):
    first = copy.deepcopy(frames[0])
    del first['lidar_sweeps']
    options = dict(sweeps_num=3, pad_empty_sweeps=pad, remove_close=remove_close)
    np.testing.assert_array_equal(accumulate(LoadLidarSweeps(**options), first),
                                  accumulate(LoadPointsFromMultiSweeps(**options), first))


def test_bad_sweep_files(tmp_path):
    info = turned_frame(tmp_path)
    past = tmp_path / 'past.bin'
    content = past.read_bytes()
    past.write_bytes(content[:-3])
    with pytest.raises(BadFrameError, match='past.bin is truncated: 57 bytes'):
        accumulate(LoadLidarSweeps(), info)
    past.unlink()
    with pytest.raises(BadFrameError, match='past.bin cannot be read'):
        accumulate(LoadLidarSweeps(), info)
    points = np.frombuffer(content, np.float32).reshape(-1, 5).copy()
    points[0, 2] = np.nan
    points.tofile(past)
    with pytest.raises(BadFrameError, match='past.bin has 1 of 3 points'):
        accumulate(LoadLidarSweeps(), info)
    results = LoadLidarSweeps(on_bad_points='drop_points').transform(LoadLidarPoints().transform(info))
    assert results['num_dropped_points'] == 1 and len(results['points']) == 3


def test_too_few_columns(tmp_path):
    with pytest.raises(ValueError, match='load_dim=4'):
        LoadLidarSweeps(load_dim=4, use_dim=4)
    info = LoadLidarPoints(use_dim=4).transform(turned_frame(tmp_path))
    with pytest.raises(ValueError, match='load the keyframe with use_dim=5'):
        LoadLidarSweeps().transform(info)
