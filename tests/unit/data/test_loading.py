"""Point loading: equal to mmdet3d's on good files; every bad file is an error that names it."""

import pickle

import numpy as np
import pytest
from mmdet3d.datasets.transforms import LoadPointsFromFile
from mmdet3d.registry import TRANSFORMS
from torch._utils import ExceptionWrapper

from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.point_files import PointFiles, ReadOptions
from projects.memfusion.data.transforms import LoadLidarPoints, LoadLidarSweeps

POINTS = np.arange(50, dtype=np.float32).reshape(10, 5)


@pytest.fixture
def point_file(tmp_path):
    path = tmp_path / 'frame.pcd.bin'
    POINTS.tofile(path)
    return path


def load(path, **options):
    return LoadLidarPoints(**options).transform(dict(lidar_points=dict(lidar_path=str(path)), timestamp=0.0))


@pytest.mark.parametrize('use_dim', [5, 4, [0, 1, 2, 4]])
def test_good_file_equals_mmdet3d(point_file, use_dim):
    ours = load(point_file, use_dim=use_dim, norm_intensity=True)
    stock = LoadPointsFromFile('LIDAR', 5, use_dim, norm_intensity=True)(
        dict(lidar_points=dict(lidar_path=str(point_file))))
    assert type(ours['points']) is type(stock['points'])
    np.testing.assert_array_equal(ours['points'].numpy(), stock['points'].numpy())
    assert ours['num_dropped_points'] == 0


def test_transforms_are_registered():
    assert isinstance(TRANSFORMS.build(dict(type='LoadLidarPoints')), LoadLidarPoints)
    assert isinstance(TRANSFORMS.build(dict(type='LoadLidarSweeps', sweeps_num=3)), LoadLidarSweeps)


def test_missing_file(tmp_path):
    with pytest.raises(BadFrameError, match='cannot be read .No such file.*data_root') as error:
        load(tmp_path / 'no.bin')
    assert error.value.path == str(tmp_path / 'no.bin') and str(error.value).startswith(error.value.path)


@pytest.mark.parametrize('num_bytes', [199, 198, 4])
def test_truncated_file(point_file, num_bytes):
    point_file.write_bytes(POINTS.tobytes()[:num_bytes])
    with pytest.raises(BadFrameError, match=f'is truncated: {num_bytes} bytes is not a multiple of 20') as error:
        load(point_file)
    assert error.value.path == str(point_file)


def test_empty_file(point_file):
    point_file.write_bytes(b'')
    for option in ('error', 'drop_points'):
        with pytest.raises(BadFrameError, match='frame.pcd.bin has no points'):
            load(point_file, on_bad_points=option)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite(point_file, bad):
    points = POINTS.copy()
    points[2, 0], points[2, 1], points[7, 3] = bad, bad, bad
    points.tofile(point_file)
    with pytest.raises(BadFrameError, match="has 2 of 10 points with NaN .*on_bad_points='drop_points'"):
        load(point_file)
    results = load(point_file, on_bad_points='drop_points')
    assert results['num_dropped_points'] == 2
    np.testing.assert_array_equal(results['points'].numpy(), np.delete(POINTS, [2, 7], axis=0))
    np.full((3, 5), bad, np.float32).tofile(point_file)
    with pytest.raises(BadFrameError, match='has no finite points among 3'):
        load(point_file, on_bad_points='drop_points')


def test_unknown_option():
    for transform in (LoadLidarPoints, LoadLidarSweeps):
        with pytest.raises(ValueError, match="on_bad_points='ignore': use one of error, drop_points"):
            transform(on_bad_points='ignore')


def test_loaded_points_can_be_written_to_and_the_shared_ones_stay(point_file):
    files = PointFiles()
    for _ in range(2):
        results = dict(lidar_points=dict(lidar_path=str(point_file)), timestamp=0.0, point_files=files)
        points = LoadLidarPoints().transform(results)['points'].tensor
        np.testing.assert_array_equal(points.numpy(), POINTS)
        points[:] = 0
    assert files.points(dict(lidar_path=str(point_file)), ReadOptions(5))[0].max() == 49


def test_error_survives_processes():
    error = BadFrameError('a.bin', 'is truncated', 'copy it again')
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason, again.remedy) == (error.path, error.reason, error.remedy)
    assert str(again) == 'a.bin is truncated; copy it again'
    try:
        raise error
    except BadFrameError:
        wrapped = ExceptionWrapper(where='in worker 0')  # what a DataLoader worker sends back
    with pytest.raises(BadFrameError, match='a.bin is truncated; copy it again'):
        wrapped.reraise()
