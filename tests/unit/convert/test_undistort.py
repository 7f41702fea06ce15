"""Unit: tools/undistort_dataset.py: images become those of a pinhole with the stored K; the rest of the data set stays."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from projects.convert.undistort import undistort_dataset
from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.runtime.errors import UserError, run_cli
from projects.memfusion.structures.calibration import Calibration
from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.settings import make_settings


def make_world(root: Path, distortion: str) -> Path:
    generate_dataset(root, make_settings('nano', 3, scene_names=('scene-0916',), keyframes=2, azimuth_steps=16,
                                         image_wh_px=(320, 180), distortion=distortion, camera_labels=True), workers=1)
    return root


def table(root: Path, name: str) -> list[dict]:
    return json.loads((root / 'v1.0-mini' / f'{name}.json').read_text())


def info_file(root: Path, distorted: bool) -> dict:
    """A v1.1 info file of the cameras, as tools/create_data.py would write these keys."""
    sensors = {row['token']: row for row in table(root, 'calibrated_sensor')}
    images = {}
    for record in table(root, 'sample_data'):
        sensor = sensors[record['calibrated_sensor_token']]
        name = record['filename'].split('/')[1]
        if record['is_key_frame'] and name.startswith('CAM') and name not in images:
            cam_from_lidar = np.eye(4)
            cam_from_lidar[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
            images[name] = dict(img_path=os.path.basename(record['filename']), sample_data_token=record['token'],
                                cam2img=sensor['camera_intrinsic'], height=180, width=320, lidar2cam=cam_from_lidar.tolist(),
                                lidar2img=np.zeros((4, 4)).tolist())
            if distorted:
                images[name]['distortion'] = sensor['distortion']
    return dict(metainfo=dict(info_version='1.1'), data_list=[dict(token='s', images=images, cam_instances={})])


@pytest.fixture(scope='module')
def plain(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp('worlds') / 'plain', 'none')


@pytest.fixture(scope='module', params=['radtan', 'fisheye'])
def worlds(request, tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """A distorted data set, its undistorted copy, and what was said about it."""
    folder = tmp_path_factory.mktemp(request.param)
    data = make_world(folder / 'data', request.param)
    (data / 'nuscenes_infos_train.pkl').write_bytes(pickle.dumps(info_file(data, distorted=True)))
    (data / 'nuscenes_infos_old.pkl').write_bytes(pickle.dumps([1, 2]))
    (data / 'nuscenes_dbinfos_train.pkl').write_bytes(pickle.dumps({'car': []}))
    return data, folder / 'new' / 'out', undistort_dataset(data, folder / 'new' / 'out')


def test_images_are_those_of_the_pinhole_world(worlds: tuple, plain: Path) -> None:
    data, out, _ = worlds
    new_sensors = {row['token']: row for row in table(out, 'calibrated_sensor')}
    old_sensors = {row['token']: row for row in table(plain, 'calibrated_sensor')}
    compared = 0
    for record in table(out, 'sample_data')[:40]:
        old = old_sensors[record['calibrated_sensor_token']]
        if not old['camera_intrinsic']:
            continue
        new_matrix = np.array(new_sensors[record['calibrated_sensor_token']]['camera_intrinsic'])
        scale = new_matrix @ np.linalg.inv(old['camera_intrinsic'])  # same world, seen with another K
        true, bent, found = (cv2.imread(str(root / record['filename'])) for root in (plain, data, out))
        expected = cv2.warpAffine(true, scale[:2], (320, 180))
        seen = cv2.erode(cv2.warpAffine(np.full((180, 320), 255, np.uint8), scale[:2], (320, 180)), np.ones((9, 9))) == 255
        shifted = [np.roll(found, shift, (0, 1)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        off, off_before, *off_shifted = (
            np.abs(image.astype(float) - expected)[seen].mean() for image in (found, bent, *shifted))
        # the generator looks each distorted pixel up without interpolation, and JPEG blurs: grey levels, not equality
        assert off < 6 and off < 0.5 * off_before and off < 0.95 * min(off_shifted)  # not a pixel off
        assert seen.mean() > 0.45 and (found.max(axis=-1) == 0).mean() < 0.001
        compared += 1
    assert compared >= 12


def test_tables_have_the_new_intrinsics_and_no_distortion(worlds: tuple) -> None:
    data, out, said = worlds
    before, after = (table(root, 'calibrated_sensor') for root in (data, out))
    assert [row['token'] for row in before] == [row['token'] for row in after]
    for old, new in zip(before, after):
        assert 'distortion' not in new and new['rotation'] == old['rotation'] and new['translation'] == old['translation']
        if old['camera_intrinsic']:
            ratio = np.array(new['camera_intrinsic'])[[0, 1], [0, 1]] / np.array(old['camera_intrinsic'])[[0, 1], [0, 1]]
            assert (ratio < 0.99).all() and (ratio > 0.55).all()  # barrel lenses: the view becomes wider
        else:
            assert new == old
    for name in ('sample_data', 'sample', 'ego_pose'):
        assert table(data, name) == table(out, name)
    assert '12 images undistorted' in said[0] and any('camera_labels' in line for line in said)


def test_other_files_are_the_same_and_the_old_ones_untouched(worlds: tuple) -> None:
    data, out, _ = worlds
    clouds = sorted(path.relative_to(data) for path in data.glob('s*/LIDAR_TOP/*.bin'))
    assert len(clouds) > 2
    for path in clouds:
        assert (data / path).read_bytes() == (out / path).read_bytes()
    assert (out / 'nuscenes_dbinfos_train.pkl').is_file() and not (out / 'synthetic_nuscenes.json').exists()
    assert not (out / 'camera_labels').exists() and (data / 'camera_labels').is_dir()
    assert all('distortion' in row for row in table(data, 'calibrated_sensor') if row['camera_intrinsic'])
    assert [path.name for path in out.parent.iterdir()] == ['out']
    assert {path.name for path in out.iterdir() if path.is_dir()} == {'samples', 'sweeps', 'maps', 'v1.0-mini'}


def test_info_files_agree_with_the_tables(worlds: tuple) -> None:
    data, out, said = worlds
    old, new = (pickle.loads((root / 'nuscenes_infos_train.pkl').read_bytes()) for root in (data, out))
    expected = info_file(out, distorted=False)['data_list'][0]['images']
    assert len(expected) == 6 and 'cam_instances' not in new['data_list'][0]
    for name, image in new['data_list'][0]['images'].items():
        assert 'distortion' not in image and image['cam2img'] == expected[name]['cam2img']
        chain = np.array(image['cam2img']) @ np.array(image['lidar2cam'])[:3]
        np.testing.assert_allclose(np.array(image['lidar2img'])[:3], chain, atol=1e-9)
    # what the offline tool stores is what Calibration works out for undistortion on the fly
    online = Calibration.from_info(old['data_list'][0]['images']).undistorted()
    offline = Calibration.from_info(new['data_list'][0]['images'])
    np.testing.assert_allclose(online.img_from_cam, offline.img_from_cam, atol=1e-3)
    assert not (out / 'nuscenes_infos_old.pkl').exists() and any('nuscenes_infos_old.pkl' in line for line in said)


def test_nothing_is_overwritten_and_bad_input_is_named(worlds: tuple, plain: Path, tmp_path: Path) -> None:
    data, out, _ = worlds
    with pytest.raises(UserError, match='is there already'):
        undistort_dataset(data, out)
    with pytest.raises(UserError, match='lies within'):
        undistort_dataset(data, data / 'new')
    with pytest.raises(UserError, match='nothing to undistort'):
        undistort_dataset(plain, tmp_path / 'out')
    with pytest.raises(UserError, match='nowhere'):
        undistort_dataset(tmp_path / 'nowhere', tmp_path / 'out')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='version folder'):
        undistort_dataset(tmp_path / 'empty', tmp_path / 'out')


def test_a_broken_image_is_named_and_leaves_nothing_behind(worlds: tuple, tmp_path: Path) -> None:
    data, _, _ = worlds
    copy = tmp_path / 'copy'
    for name in ('v1.0-mini', 'samples', 'maps'):
        copy.mkdir(exist_ok=True)
        (copy / name).symlink_to(data / name)
    images = sorted((data / 'samples' / 'CAM_BACK').iterdir())
    (copy / 'samples').unlink()
    (copy / 'samples' / 'CAM_BACK').mkdir(parents=True)
    (copy / 'samples' / 'CAM_BACK' / images[0].name).write_bytes(b'no image')
    with pytest.raises(BadFrameError, match=f'{images[0].name}.* damaged or not an image'):
        undistort_dataset(copy, tmp_path / 'out')
    cv2.imwrite(str(copy / 'samples' / 'CAM_BACK' / images[0].name), np.zeros((90, 160, 3), np.uint8))
    with pytest.raises(UserError, match='160 x 90, the tables say 320 x 180'):
        undistort_dataset(copy, tmp_path / 'out')
    (copy / 'samples' / 'CAM_BACK' / images[0].name).unlink()
    (copy / 'samples' / 'CAM_BACK' / images[1].name).write_bytes(images[1].read_bytes())
    (copy / 'nuscenes_infos_val.pkl').write_bytes(pickle.dumps(dict(data_list=[dict(token='s7', images=dict(
        CAM_BACK=dict(sample_data_token='unknown', distortion=dict(model='radtan'))))])))
    with pytest.raises(UserError, match='s7, camera CAM_BACK'):
        undistort_dataset(copy, tmp_path / 'out')
    assert [path.name for path in tmp_path.iterdir()] == ['copy']
    (copy / 'nuscenes_infos_val.pkl').unlink()
    said = undistort_dataset(copy, tmp_path / 'out')
    assert '1 images undistorted' in said[0] and '11 images that the tables name' in said[1]


def test_command_line(worlds: tuple, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, _, _ = worlds
    spec = importlib.util.spec_from_file_location('undistort_dataset', repo / 'tools/undistort_dataset.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = [str(data), str(tmp_path / 'out'), '--workers', '2']
    tool.main(arguments)
    said = capsys.readouterr()
    assert '12 images undistorted' in said.out and 'undistorting images: 100%' in said.err
    with pytest.raises(SystemExit) as stopped:
        run_cli(lambda: tool.main(arguments))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith('error: ') and 'is there already' in said
