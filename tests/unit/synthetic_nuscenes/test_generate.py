"""Folders and processes: same bytes, resumable, never half a data set, nothing of others deleted."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes

from projects.synthetic_nuscenes import generate
from projects.synthetic_nuscenes.cli import main
from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.output_folder import MARKER_NAME, OutputFolderError
from projects.synthetic_nuscenes.rig import RIGS
from projects.synthetic_nuscenes.settings import make_settings

TOOL = Path(__file__).parents[3] / 'tools' / 'create_synthetic_nuscenes.py'


def _digests(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope='session')
def small_root(small_settings, tmp_path_factory):
    root = tmp_path_factory.mktemp('small') / 'out'
    assert generate_dataset(root, small_settings, workers=1, progress=False)
    return root


def test_bytes_do_not_depend_on_the_number_of_workers(small_root, small_settings, tmp_path):
    generate_dataset(tmp_path / 'two', small_settings, workers=2, progress=False)
    assert _digests(tmp_path / 'two') == _digests(small_root)


def test_another_seed_gives_other_bytes_and_tokens(small_root, small_settings, tmp_path):
    settings = make_settings(**{**small_settings.to_json(), 'seed': 4, 'image_wh_px': (64, 36)})
    generate_dataset(tmp_path / 'other', settings, progress=False)
    ours, theirs = _digests(small_root), _digests(tmp_path / 'other')
    assert ours['v1.0-mini/sample.json'] != theirs['v1.0-mini/sample.json']
    assert not {name for name in ours if name.startswith('samples')} & {*theirs}


def test_interrupted_run_keeps_finished_scenes_and_ends_the_same(small_root, small_settings, tmp_path, monkeypatch):
    root, written = tmp_path / 'out', []
    real = generate._write_scene

    def stop_in_second(settings, name, folder):
        if written:
            raise KeyboardInterrupt
        written.append(name)
        return real(settings, name, folder)

    monkeypatch.setattr(generate, '_write_scene', stop_in_second)
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(root, small_settings, progress=False)
    assert not (root / 'v1.0-mini').exists()

    def note(settings, name, folder):
        written.append(name)
        return real(settings, name, folder)

    monkeypatch.setattr(generate, '_write_scene', note)
    assert generate_dataset(root, small_settings, progress=False)
    assert written == ['scene-0103', 'scene-0916']
    assert _digests(root) == _digests(small_root)
    assert not generate_dataset(root, small_settings, progress=False)


def test_killed_process_leaves_nothing_that_looks_whole(tmp_path):
    root = tmp_path / 'out'
    command = [sys.executable, str(TOOL), '--preset', 'nano', '--out', str(root), '--workers', '1']
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300  # for a busy machine; a free one writes its first sweep after a few seconds
    while process.poll() is None and time.monotonic() < deadline and not list(root.glob('sweeps/*/*')):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(root.glob('sweeps/*/*')) and not (root / 'v1.0-mini').exists()


def test_foreign_folder_is_refused_and_kept(tmp_path, small_settings, capsys):
    (tmp_path / 'photo.txt').write_text('mine')
    for force in (False, True):
        with pytest.raises(OutputFolderError, match='already holds data'):
            generate_dataset(tmp_path, small_settings, force=force, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ['photo.txt']
    assert main(['--preset', 'nano', '--out', str(tmp_path), '--force']) == 1
    message = capsys.readouterr().err
    assert message.startswith('error: ') and str(tmp_path) in message and message.count('\n') == 1


def test_other_settings_need_force(small_settings, tmp_path):
    root = tmp_path / 'out'
    generate_dataset(root, small_settings, progress=False)
    (root / 'notes.txt').write_text('mine')
    (root / 'nuscenes_infos_train.pkl').write_text('stale')
    changed = make_settings(**{**small_settings.to_json(), 'image_wh_px': (48, 36), 'scene_names': ('scene-0103',)})
    with pytest.raises(OutputFolderError, match='image_wh_px.*--force'):
        generate_dataset(root, changed, progress=False)
    assert generate_dataset(root, changed, force=True, progress=False)
    assert (root / 'notes.txt').exists() and not (root / 'nuscenes_infos_train.pkl').exists()
    assert (root / MARKER_NAME).exists() and not list(root.glob('samples/*/*0916*'))


@pytest.mark.parametrize(
    'arguments, word',
    [
        (['--preset', 'huge'], 'huge'),
        (['--workers', '0'], 'workers'),
        (['--seed', '-1'], 'seed'),
        (['--distortion', 'wide'], 'wide'),
    ],
)
def test_bad_values_are_one_line_and_exit_code_2(tmp_path, capsys, arguments, word):
    assert main(['--out', str(tmp_path / 'out'), *arguments]) == 2
    message = capsys.readouterr().err
    assert word in message and message.count('\n') == 1 and not (tmp_path / 'out').exists()


def test_camera_sweeps_run_at_12_hz(tmp_path):
    import json

    settings = make_settings(
        'nano', 0, scene_names=('scene-0916',), keyframes=3, azimuth_steps=16, image_wh_px=(32, 18), camera_sweeps=True
    )
    generate_dataset(tmp_path / 'out', settings, progress=False)
    rows = json.loads((tmp_path / 'out/v1.0-mini/sample_data.json').read_text())
    front = [row for row in rows if '/CAM_FRONT/' in row['filename']]
    assert len(front) == 13 and sum(row['is_key_frame'] for row in front) == 3
    assert all((tmp_path / 'out' / row['filename']).exists() for row in front)


def test_another_rig_has_the_same_world_and_five_cameras(small_root, small_settings, tmp_path):
    root, usual = tmp_path / 'other', {camera.channel: camera for camera in RIGS['nuscenes']}
    generate_dataset(root, replace(small_settings, rig='other'), progress=False)
    ours, theirs = _digests(small_root), _digests(root)
    kept = [name for name in ours if 'LIDAR_TOP' in name or name.endswith(('sample.json', 'scene.json', 'map.json'))]
    assert kept and all(theirs[name] == ours[name] for name in kept)
    nusc = NuScenes('v1.0-mini', str(root), verbose=False)
    assert {name for sample in nusc.sample for name in sample['data']} == {
        'LIDAR_TOP', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'}
    for camera in RIGS['other']:
        moved = np.linalg.inv(usual[camera.channel].ego_from_cam()) @ camera.ego_from_cam()
        assert np.linalg.norm(moved[:3, 3]) == pytest.approx(0.3, abs=1e-6)
        assert np.degrees(np.arccos((np.trace(moved[:3, :3]) - 1) / 2)) == pytest.approx(10.0, abs=0.01)
        assert abs(np.log(camera.focal_px / usual[camera.channel].focal_px)) > 0.2
    reading = nusc.get('sample_data', nusc.sample[0]['data']['CAM_BACK'])
    record = nusc.get('calibrated_sensor', reading['calibrated_sensor_token'])
    scale = small_settings.image_wh_px[0] / 1600
    assert record['camera_intrinsic'][0][0] == pytest.approx(1050.0 * scale)
    assert np.allclose(record['translation'], (-0.072, -0.197, 1.779))


def test_unknown_rigs_and_scenes_are_told(tmp_path, capsys):
    for arguments, said in ((('--rig', 'mine'), 'mine'), (('--scenes', 'scene-9999'), 'scene-9999'),
                            (('--scenes', 'scene-0061', 'scene-0061'), 'once')):
        assert main(['--preset', 'nano', '--out', str(tmp_path / 'out'), *arguments]) == 2
        assert said in capsys.readouterr().err
