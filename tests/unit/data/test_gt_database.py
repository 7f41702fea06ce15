"""The ground-truth database against mmdet3d's own; killed and interrupted runs leave nothing that looks whole."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from projects.memfusion.data import gt_database
from projects.memfusion.data.errors import BadFrameError, DataError
from projects.memfusion.data.gt_database import create_gt_database
from projects.memfusion.data.nuscenes_infos import create_infos

MINI = 'v1.0-mini'
REPO = Path(__file__).parents[3]


def read(path):
    return pickle.loads(Path(path).read_bytes())


@pytest.fixture
def root(world):
    create_infos(world, MINI, world)
    return world


def points_of(root, entry):
    return np.fromfile(root / entry['path'], np.float32).reshape(-1, 5)


def test_equal_to_mmdet3d_but_for_the_sweeps(root, stock_dir):
    stock_root = stock_dir / 'data' / 'nuscenes'
    infos = read(root / 'nuscenes_infos_train.pkl')['data_list']
    ours, stock = read(create_gt_database(root, root)), read(stock_root / 'nuscenes_dbinfos_train.pkl')

    def is_one_of_ten(entry):  # mmdet3d files ignored objects (label -1) under its last class, 'barrier'
        valid = [instance for instance in infos[entry['image_idx']]['instances'] if instance['bbox_3d_isvalid']]
        return valid[entry['gt_idx']]['bbox_label_3d'] >= 0

    stock = {name: [entry for entry in entries if is_one_of_ten(entry)] for name, entries in stock.items()}
    assert ours.keys() == {name for name, entries in stock.items() if entries}
    num_same = 0
    for name, entries in ours.items():
        assert len(entries) == len(stock[name])
        for mine, theirs in zip(entries, stock[name]):
            assert mine.keys() == theirs.keys()
            for key in mine.keys() - {'num_points_in_gt', 'box3d_lidar'}:
                assert mine[key] == theirs[key], key
            np.testing.assert_array_equal(mine['box3d_lidar'], theirs['box3d_lidar'])
            assert mine['box3d_lidar'].dtype == theirs['box3d_lidar'].dtype
            assert len(points_of(root, mine)) == mine['num_points_in_gt']
            if 'lidar_sweeps' not in infos[mine['image_idx']]:  # nothing to accumulate: the very same points
                np.testing.assert_array_equal(points_of(root, mine), points_of(stock_root, theirs))
                num_same += 1
    assert num_same
    assert {path.name for path in (root / 'nuscenes_gt_database').iterdir()} == {
        Path(entry['path']).name for entries in ours.values() for entry in entries}


def test_points_lie_in_their_boxes(root):
    num_points = 0
    for entry in (entry for entries in read(create_gt_database(root, root)).values() for entry in entries):
        points, yaw = points_of(root, entry), entry['box3d_lidar'][6]
        along = points[:, 0] * np.cos(yaw) + points[:, 1] * np.sin(yaw)
        across = -points[:, 0] * np.sin(yaw) + points[:, 1] * np.cos(yaw)
        length, width, height = entry['box3d_lidar'][3:6] + 1e-3
        assert (np.abs(along) <= length / 2).all() and (np.abs(across) <= width / 2).all()
        assert (points[:, 2] >= -1e-3).all() and (points[:, 2] <= height).all()  # from the bottom of the box
        assert ((points[:, 4] >= 0) & (points[:, 4] < 1)).all()
        num_points += len(points)
    assert num_points


def test_two_workers_write_the_same(root):
    def content():
        files = sorted((root / 'nuscenes_gt_database').iterdir())
        return repr(read(root / 'nuscenes_dbinfos_train.pkl')), [(file.name, file.read_bytes()) for file in files]

    create_gt_database(root, root, workers=1)
    one = content()
    create_gt_database(root, root, workers=2)
    assert content() == one


def test_another_out_dir_and_tag(world, tmp_path):
    create_infos(world, MINI, tmp_path, tag='mine')
    entries = read(create_gt_database(world, tmp_path, tag='mine'))
    entry = next(iter(entries.values()))[0]
    assert entry['path'].startswith('mine_gt_database/') and (tmp_path / entry['path']).is_file()
    assert not list(world.glob('*.pkl')) and not list(world.glob('*_gt_database'))


def test_bad_input_is_named(root):
    infos = read(root / 'nuscenes_infos_train.pkl')['data_list']
    first = next(info['lidar_sweeps'][0] for info in infos if 'lidar_sweeps' in info)
    sweep = root / 'sweeps' / 'LIDAR_TOP' / Path(first['lidar_points']['lidar_path']).name
    content = sweep.read_bytes()
    sweep.unlink()
    for workers in (1, 2):
        with pytest.raises(BadFrameError) as error:
            create_gt_database(root, root, workers=workers)
        assert error.value.path == str(sweep) and 'No such file' in error.value.reason
    sweep.write_bytes(content[:-2])
    with pytest.raises(BadFrameError, match=f'{sweep} is truncated'):
        create_gt_database(root, root)
    (root / 'nuscenes_infos_train.pkl').unlink()
    with pytest.raises(DataError, match='cannot read .*nuscenes_infos_train.pkl.*tools/create_data.py'):
        create_gt_database(root, root)
    assert_nothing_looks_whole(root)


def assert_nothing_looks_whole(root):
    assert not (root / 'nuscenes_dbinfos_train.pkl').exists() and not (root / 'nuscenes_gt_database').exists()


def test_interrupted_run_keeps_the_old_database(root, monkeypatch):
    create_gt_database(root, root)
    before = {path.name: path.read_bytes() for path in (root / 'nuscenes_gt_database').iterdir()}
    index = (root / 'nuscenes_dbinfos_train.pkl').read_bytes()
    cut = gt_database._cut_objects

    def stop_at_third(dataset, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        return cut(dataset, number, *arguments)

    monkeypatch.setattr(gt_database, '_cut_objects', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        create_gt_database(root, root)
    assert {path.name: path.read_bytes() for path in (root / 'nuscenes_gt_database').iterdir()} == before
    assert (root / 'nuscenes_dbinfos_train.pkl').read_bytes() == index
    assert not list(root.glob('.*'))


def test_new_database_replaces_the_old_one(root):
    create_gt_database(root, root)
    stale = root / 'nuscenes_gt_database' / '999_car_0.bin'
    stale.write_bytes(b'')
    create_gt_database(root, root)
    assert not stale.exists()


SLOW_RUN = """
import sys, time
from pathlib import Path
from projects.memfusion.data import gt_database
cut = gt_database._cut_objects
def slow(dataset, number, *arguments):
    cut(dataset, number, *arguments)
    print('cut', flush=True)
    time.sleep(60)
gt_database._cut_objects = slow
gt_database.create_gt_database(Path(sys.argv[1]), Path(sys.argv[1]))
"""


def test_killed_run_leaves_nothing_that_looks_whole(root):
    with subprocess.Popen([sys.executable, '-c', SLOW_RUN, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env={**os.environ, 'PYTHONPATH': str(REPO)}) as run:
        while (line := run.stdout.readline()) and line != 'cut\n':
            pass
        run.send_signal(signal.SIGKILL)
        run.communicate()
    assert line == 'cut\n'
    assert_nothing_looks_whole(root)
    assert list(root.glob('.nuscenes_gt_database.partial/*.bin'))  # half of it is there, under a name nobody reads
    create_gt_database(root, root)
    assert not list(root.glob('.*')) and read(root / 'nuscenes_dbinfos_train.pkl')
