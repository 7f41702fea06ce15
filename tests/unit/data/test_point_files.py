"""Sweeps shared by the frames of a clip are read once, and give the very points that reading them anew gives."""

from collections import Counter

import numpy as np
import pytest
import torch

from projects.memfusion.data import point_files
from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.point_files import PointFiles, ReadOptions
from projects.memfusion.data.transforms import loading


@pytest.fixture
def opened(monkeypatch):
    """How often each file is opened."""
    counts, original = Counter(), point_files.get

    def get(path, backend_args=None):
        counts[path] += 1
        return original(path, backend_args=backend_args)

    monkeypatch.setattr(point_files, 'get', get)
    return counts


def test_each_file_of_a_clip_is_opened_once(clips, opened):
    dataset = clips(frame_rate='sweep', frame_stride=2, seq_len=8, num_sweeps=10, align='loader', test_mode=True)
    dataset[3]  # ends at reading 30: frames 16, 18 .. 30, each with nine readings before it
    assert len(opened) == 30 - 7 + 1 and set(opened.values()) == {1}
    dataset[3]
    assert set(opened.values()) == {2}, 'nothing is kept between items'
    opened.clear()
    clips(seq_len=4, num_sweeps=11)[4]  # keyframes 10 .. 40 and all that lies before them, down to reading 0
    assert len(opened) == 41 and set(opened.values()) == {1}


@pytest.mark.parametrize('arguments', [
    dict(frame_rate='sweep', frame_stride=2, seq_len=6, num_sweeps=6), dict(seq_len=3, augment=True)])
def test_shared_files_give_the_same_points(clips, monkeypatch, arguments):
    dataset = clips(**arguments)
    dataset.set_epoch(0)
    for index in (1, 4):
        shared = dataset[index]
        with monkeypatch.context() as patch:
            patch.setattr(loading, '_point_files', lambda results: PointFiles())
            alone = dataset[index]
        for a, b in zip(shared, alone, strict=True):
            assert torch.equal(a['inputs']['points'], b['inputs']['points'])
        assert len(shared[-1]['inputs']['points']) > 1000


def test_sweep_form_and_dropped_points_are_the_same_at_every_use(tmp_path):
    points = np.array([[5, 0, 1, 8, 9], [0.9, -0.9, 0, 8, 9], [0.9, -1.1, 0, 8, 9], [np.nan, 3, 0, 8, 9]], np.float32)
    points.tofile(tmp_path / 'a.bin')
    part, options, files = dict(lidar_path=str(tmp_path / 'a.bin')), ReadOptions(5, 'drop_points'), PointFiles()
    for _ in range(2):
        sweep, num_dropped = files.sweep(part, options, True)
        np.testing.assert_array_equal(sweep, [[5, 0, 1, 8, 1], np.float32([0.9, -1.1, 0, 8, 1])])
        assert num_dropped == 1 and len(files.sweep(part, options, False)[0]) == 3
        np.testing.assert_array_equal(files.points(part, options)[0], points[:3])
    with pytest.raises(BadFrameError, match='a.bin has 1 of 4 points'):
        files.points(part, ReadOptions(5))  # another demand on the same file is not answered from memory


@pytest.mark.parametrize('num_sweeps', [1, 4])
def test_num_sweeps_goes_before_the_loader_s_own_number(clips, num_sweeps):
    points = clips(num_sweeps=num_sweeps)[2][0]['inputs']['points']
    assert len(points[:, 4].unique()) == num_sweeps
    assert len(clips()[2][0]['inputs']['points'][:, 4].unique()) == 10
    # The first keyframe has no sweeps: its points are repeated.
    own = clips(num_sweeps=1)[0][0]['inputs']['points']
    repeated = clips(num_sweeps=num_sweeps)[0][0]['inputs']['points']
    close = ((own[:, :2].abs() < 1).all(dim=1)).sum()
    assert len(repeated) == num_sweeps * len(own) - (num_sweeps - 1) * close


def test_more_sweeps_than_are_listed(clips):
    with pytest.raises(ValueError, match='lists at most 10 earlier sweeps .*num_sweeps=13 .*--max-sweeps 12'):
        clips(num_sweeps=13)
    # At sweep rate the scene's whole chain is known.
    points = clips('val', frame_rate='sweep', num_sweeps=25)[3][-1]['inputs']['points']
    assert len(points[:, 4].unique()) == 25


def test_points_with_other_columns_than_the_sweeps(tmp_path):
    np.zeros((3, 6), np.float32).tofile(tmp_path / 'a.bin')
    info = dict(lidar_points=dict(lidar_path=str(tmp_path / 'a.bin')), timestamp=0.0)
    info = loading.LoadLidarPoints(load_dim=6, use_dim=6).transform(info)
    with pytest.raises(ValueError, match='points with 6 values .*load_dim=5'):
        loading.LoadLidarSweeps().transform(info)
