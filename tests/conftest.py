"""Shared by all tests: one nano world made once, and packed frames made by hand."""

from __future__ import annotations

import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # read when torch is loaded
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:  # cores are shared out among the processes of `pytest -n`
    _WORKERS = int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // _WORKERS)))

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from mmengine.registry import init_default_scope

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module', autouse=True)
def scope_of_mmdet3d() -> None:
    """As in a run of ours; a Runner in a test before may have left another."""
    init_default_scope('mmdet3d')


@pytest.fixture(scope='session')
def repo() -> Path:
    return REPO


@pytest.fixture(scope='session')
def synthetic_keyframe_dir(tmp_path_factory) -> Path:
    """Do not write into it."""
    from synthetic_keyframe import make_synthetic_keyframe

    folder = tmp_path_factory.mktemp('worlds')
    make_synthetic_keyframe(folder / 'world', folder / 'keyframe')
    return folder / 'keyframe'


@pytest.fixture(scope='session', params=['synthetic', 'real'])
def keyframe_dir(request) -> Path:
    """One keyframe in nuScenes' own form: a synthetic one, and a real one where it is (its licence keeps it out of here)."""
    if request.param == 'synthetic':
        return request.getfixturevalue('synthetic_keyframe_dir')
    folder = REPO.parent / 'shared' / 'data' / 'nuscenes_keyframe'
    if not folder.is_dir():
        pytest.skip(f'no real keyframe at {folder}')
    return folder


def run_tool(*arguments: str | Path, cwd: Path = REPO, **env: str) -> subprocess.CompletedProcess:
    """Runs a tool as a user would; the caller checks the return code."""
    return subprocess.run([sys.executable, '-W', 'ignore', *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **env}, stdin=subprocess.DEVNULL)


@pytest.fixture(scope='session')
def tool():
    return run_tool


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, once for all processes of `pytest -n`."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
    folder, done = base / name, base / f'{name}.done'
    with FileLock(base / f'{name}.lock'):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope='session')
def nano_root(tmp_path_factory) -> Path:
    """A nano synthetic nuScenes without infos. Do not write into it."""
    def make(out: Path) -> None:
        made = run_tool('tools/create_synthetic_nuscenes.py', '--preset', 'nano', '--out', out, '--seed', 0, '--workers', 2)
        assert made.returncode == 0, made.stderr

    return made_once(tmp_path_factory, 'nano', make)


@pytest.fixture(scope='session')
def nano_infos_root(nano_root, tmp_path_factory) -> Path:
    """The nano world with infos and GT database: its own folder that shares the sensor files by links. Do not write into it."""
    def make(root: Path) -> None:
        root.mkdir()
        for entry in nano_root.iterdir():
            (root / entry.name).symlink_to(entry)
        made = run_tool('tools/create_data.py', 'nuscenes', '--root-path', root, '--version', 'v1.0-mini')
        assert made.returncode == 0, made.stderr

    return made_once(tmp_path_factory, 'nano_infos', make)


@pytest.fixture(scope='session')
def forecast_root(tmp_path_factory) -> Path:
    """Two scenes of the forecast world (one of train, one of val), 18 keyframes each, with infos. Do not write into it."""
    def make(out: Path) -> None:
        from projects.memfusion.data.nuscenes_infos import create_infos
        from projects.synthetic_nuscenes.generate import generate_dataset
        from projects.synthetic_nuscenes.settings import make_settings

        settings = make_settings('forecast_nano', scene_names=('scene-0348', 'scene-0012'), keyframes=18, azimuth_steps=96,
                                 image_wh_px=(48, 27))
        generate_dataset(out, settings, progress=False)
        create_infos(out, 'v1.0-trainval', out)

    return made_once(tmp_path_factory, 'forecast', make)


RIG_CHANNELS = dict(LIDAR_TOP='ROOF', CAM_FRONT='FRONT_WIDE', CAM_BACK_LEFT='LEFT', CAM_BACK='REAR')
RIG_VERSION = 'v1.0-rig'


def make_rig(nano_root: Path, root: Path) -> Path:
    """A rig of one's own out of the nano world: three cameras and a LiDAR, scenes and tables of other names, links to files."""
    root.mkdir()
    (root / 'maps').symlink_to((nano_root / 'maps').resolve())
    for folder in ('samples', 'sweeps'):
        (root / folder).mkdir()
        for old, new in RIG_CHANNELS.items():
            if (nano_root / folder / old).is_dir():
                (root / folder / new).symlink_to((nano_root / folder / old).resolve())
    tables = {path.stem: json.loads(path.read_text()) for path in (nano_root / 'v1.0-mini').glob('*.json')}
    kept = {record['token'] for record in tables['sensor'] if record['channel'] in RIG_CHANNELS}
    tables['sensor'] = [{**record, 'channel': RIG_CHANNELS[record['channel']]} for record in tables['sensor']
                        if record['token'] in kept]
    tables['calibrated_sensor'] = [record for record in tables['calibrated_sensor'] if record['sensor_token'] in kept]
    kept = {record['token'] for record in tables['calibrated_sensor']}
    readings = [record for record in tables['sample_data'] if record['calibrated_sensor_token'] in kept]
    for record in readings:
        folder, channel, name = record['filename'].split('/')
        record['filename'] = f'{folder}/{RIG_CHANNELS[channel]}/{name}'
    tables['sample_data'] = readings
    for number, record in enumerate(tables['scene']):
        record['name'] = f'yard-{number}'
    (root / RIG_VERSION).mkdir()
    for name, records in tables.items():
        (root / RIG_VERSION / f'{name}.json').write_text(json.dumps(records))
    return root


@pytest.fixture
def three_camera_rig(nano_root, tmp_path) -> Path:
    """Tables and files of a rig of one's own (`make_rig`); the test may change the tables."""
    return make_rig(nano_root, tmp_path / 'rig')


@pytest.fixture
def make_frame():
    """Packs a frame of random points and boxes: make_frame(scene, index, valid=True, seed=...)."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    def make(scene: str, index: int, valid: bool = True, seed: int | None = None, length: int = 10, points: int = 3000):
        g = torch.Generator().manual_seed(zlib.crc32(f'{scene}:{index}'.encode()) if seed is None else seed)
        cloud = torch.rand(points, 5, generator=g) * torch.tensor([50.0, 50, 4, 255, 0.5]) - torch.tensor([25.0, 25, 3, 0, 0])
        boxes = torch.rand(8, 9, generator=g) * torch.tensor([40.0, 40, 1, 3, 1, 1, 6, 2, 2]) \
            + torch.tensor([-20.0, -20, -1.5, 2, 1, 1.5, 0, -1, -1])
        pose = np.eye(4)
        pose[:3, 3] = [2.0 * index, 0.0, 0.0]
        sample = Det3DDataSample(metainfo=dict(
            sample_idx=index, sample_token=f'{scene}-{index}', scene_token=scene, frame_index=index,
            is_scene_start=index == 0, is_scene_end=index == length - 1, timestamp_s=1.5e9 + 0.5 * index,
            global_from_lidar=pose, bev_aug=np.eye(4), is_keyframe=True, frame_valid=valid,
            box_type_3d=LiDARInstance3DBoxes))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.randint(0, 10, (8,), generator=g),
            num_points=torch.arange(8) % 2)
        return {'inputs': {'points': cloud if valid else cloud[:0]}, 'data_samples': sample}

    return make
