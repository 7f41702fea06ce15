"""Fixtures of the data tests: throw-away copies of the nano world, and mmdet3d's own conversion of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdet3d
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

MINI = 'v1.0-mini'


def link_world(nano_root, target):
    """A folder like the nano world's: tables copied (tests may damage them), sensor files linked one by one."""
    for folder in ('samples', 'sweeps'):
        for channel in (path for path in sorted((nano_root / folder).iterdir()) if path.is_dir()):
            (target / folder / channel.name).mkdir(parents=True)
            for file in channel.iterdir():
                os.symlink(file.resolve(), target / folder / channel.name / file.name)
    os.symlink((nano_root / 'maps').resolve(), target / 'maps')
    (target / MINI).mkdir()
    for table in (nano_root / MINI).glob('*.json'):
        (target / MINI / table.name).write_bytes(table.read_bytes())
    return target


@pytest.fixture
def world(nano_root, tmp_path):
    """A nano world that the test may damage: files are links, so unlink one before writing to it."""
    return link_world(nano_root, tmp_path / 'world')


@pytest.fixture(scope='session')
def stock_dir(nano_root, tmp_path_factory):
    """A working directory in which mmdet3d's own create_data.py has converted ./data/nuscenes."""
    tools = Path(mmdet3d.__file__).parent / '.mim' / 'tools'
    if not (tools / 'create_data.py').is_file():
        pytest.skip('this mmdet3d is installed without its tools')
    cwd = tmp_path_factory.mktemp('stock')
    link_world(nano_root, cwd / 'data' / 'nuscenes')
    command = [sys.executable, str(tools / 'create_data.py'), 'nuscenes', '--root-path', './data/nuscenes',
               '--out-dir', './data/nuscenes', '--extra-tag', 'nuscenes', '--version', MINI]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, 'PYTHONPATH': str(tools.parent)}, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return cwd


@pytest.fixture
def edit_table():
    """A function that rewrites one table of a world: `edit_table(world, name, function of the records)`."""
    def edit(root, name, change, version=MINI):
        path = root / version / f'{name}.json'
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return edit


class Tables:
    """A world's JSON tables, read without any of the project's code: the oracle for poses, chains and annotations."""

    def __init__(self, root):
        self.root = root
        names = ('scene', 'sample', 'sample_data', 'sensor', 'calibrated_sensor', 'ego_pose', 'sample_annotation')
        self.of = {name: {r['token']: r for r in json.loads((root / MINI / f'{name}.json').read_text())} for name in names}
        lidar = {r['token'] for r in self.of['calibrated_sensor'].values()
                 if self.of['sensor'][r['sensor_token']]['channel'] == 'LIDAR_TOP'}
        records = [r for r in self.of['sample_data'].values() if r['calibrated_sensor_token'] in lidar]
        self.lidar = sorted(records, key=lambda r: r['timestamp'])

    def chain(self, scene_token):
        """LiDAR readings of a scene in time order."""
        samples = {r['token'] for r in self.of['sample'].values() if r['scene_token'] == scene_token}
        return [r for r in self.lidar if r['sample_token'] in samples]

    def pose(self, record):
        """(4, 4) global_from_lidar of a sample_data record."""
        total = np.eye(4)
        for part in (self.of['ego_pose'][record['ego_pose_token']],
                     self.of['calibrated_sensor'][record['calibrated_sensor_token']]):
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_quat(np.roll(part['rotation'], -1)).as_matrix()
            matrix[:3, 3] = part['translation']
            total = total @ matrix
        return total

    def points(self, record):
        return np.fromfile(self.root / record['filename'], np.float32).reshape(-1, 5)


@pytest.fixture(scope='session')
def tables(nano_infos_root):
    return Tables(nano_infos_root)


LOADERS = [dict(type='LoadLidarPoints', load_dim=5, use_dim=5),
           dict(type='LoadLidarSweeps', sweeps_num=9, use_dim=5, pad_empty_sweeps=True, remove_close=True)]
ANNOTATIONS = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
TRAIN_PIPELINE = [*LOADERS, ANNOTATIONS, dict(type='AlignToClipEnd'),
                  dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d'])]
TEST_PIPELINE = [LOADERS[0], dict(**LOADERS[1], test_mode=True), dict(type='AlignToClipEnd'),
                 dict(type='PackClipFrame', keys=['points'])]
AUGMENT = dict(type='ClipBEVAugmentation', rot_range=[-3.1, 3.1], translation_std=[0.5, 0.5, 0.2])


@pytest.fixture(scope='session')
def clips(nano_infos_root):
    """Builds a NuScenesSequenceDataset on the nano world: clips(split, **arguments); no augmentation unless asked."""
    from projects.memfusion.runtime.launch import init_registry
    init_registry()
    from mmdet3d.registry import DATASETS

    def make(split='train', kind='NuScenesSequenceDataset', augment=False, **changes):
        test = changes.get('test_mode', split == 'val')
        pipeline = list(TEST_PIPELINE if test else TRAIN_PIPELINE)
        if augment:
            pipeline.insert(-1, AUGMENT)
        arguments = dict(
            type=kind, data_root=f'{nano_infos_root}/', ann_file=f'nuscenes_infos_{split}.pkl', pipeline=pipeline,
            modality=dict(use_lidar=True, use_camera=False), use_valid_flag=True, test_mode=test,
            data_prefix=dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP'))
        return DATASETS.build({**arguments, **changes})

    return make
