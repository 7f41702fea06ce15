"""Unit: faults of convention planted in a real rig and in a synthetic one are found; sound rigs pass."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion

from projects.memfusion.data.rig_checks import (
    NUSCENES_CAMERAS,
    CalibrationError,
    RigWarning,
    check_image_size,
    check_rig,
    check_stamps,
    require_likely_rig,
    rig_problems,
)
from projects.memfusion.structures.calibration import Calibration

HEADINGS_DEG = dict(zip(NUSCENES_CAMERAS, (0.3, -56.4, 55.2, 179.9, 108.6, -110.8)))
LIDAR_FROM_EGO = np.array([[0.0, -1, 0, 0], [1, 0, 0, -0.94], [0, 0, 1, -1.84], [0, 0, 0, 1]])


def ego_from_cam(heading_rad: float, pitch_rad: float = 0.01) -> np.ndarray:
    """A camera 1.5 m up and 1 m out."""
    base = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    rotation = Quaternion(axis=[0, 0, 1], angle=heading_rad) * Quaternion(axis=[0, 1, 0], angle=pitch_rad)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.rotation_matrix @ base
    matrix[:3, 3] = [1 + math.cos(heading_rad), math.sin(heading_rad), 1.5]
    return matrix


def rig(ego_from_cams: dict[str, np.ndarray]) -> dict:
    matrix = [[1260.0, 0, 810.0], [0, 1260.0, 490.0], [0, 0, 1.0]]
    return {name: dict(cam2img=matrix, lidar2cam=np.linalg.inv(LIDAR_FROM_EGO @ pose).tolist(), height=900, width=1600)
            for name, pose in ego_from_cams.items()}


def sound() -> dict:
    return rig({name: ego_from_cam(math.radians(heading)) for name, heading in HEADINGS_DEG.items()})


def problems(images: dict) -> list[str]:
    return check_rig(Calibration.from_info(images, img_hw=(900, 1600)))


@pytest.fixture(scope='module')
def real(keyframe_dir: Path) -> dict:
    return pickle.loads(next(keyframe_dir.glob('*.pkl')).read_bytes())['data_list'][0]['images']


def rewritten(images: dict, change) -> dict:
    """The rig with `change(name, cam_from_lidar)` as every lidar2cam."""
    return {name: {**image, 'lidar2cam': np.asarray(change(name, np.array(image['lidar2cam']))).tolist()}
            for name, image in images.items()}


def test_sound_rigs_pass(real: dict, nano_infos_root: Path) -> None:
    assert problems(real) == [] and problems(sound()) == []
    nano = pickle.loads((nano_infos_root / 'nuscenes_infos_train.pkl').read_bytes())['data_list']
    assert all(problems(info['images']) == [] for info in nano)
    calibration = Calibration.from_info(real, img_hw=(900, 1600), cam_names=[*NUSCENES_CAMERAS, 'CAM_ROOF'])
    assert check_rig(calibration) == []  # a camera that is not there has nothing to be wrong
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        require_likely_rig(calibration)


def test_a_lidar_that_is_turned_on_the_roof_is_no_fault() -> None:
    for turn_deg in (90, 180, -37):
        turn = np.eye(4)
        turn[:3, :3] = Quaternion(axis=[0, 0, 1], degrees=turn_deg).rotation_matrix
        assert problems(rewritten(sound(), lambda name, matrix, turn=turn: matrix @ turn)) == []


def test_cheap(real: dict) -> None:
    calibration = Calibration.from_info(real, img_hw=(900, 1600))
    check_rig(calibration)
    started = time.process_time()
    for _ in range(20):
        check_rig(calibration)
    assert (time.process_time() - started) / 20 < 0.01


@pytest.mark.parametrize('pair', list(itertools.combinations(NUSCENES_CAMERAS, 2)), ids='-'.join)
def test_two_cameras_exchanged(real: dict, pair: tuple[str, str]) -> None:
    for images in (real, sound()):
        swapped = {name: {**image, 'lidar2cam': images[dict([pair, pair[::-1]]).get(name, name)]['lidar2cam']}
                   for name, image in images.items()}
        found = rig_problems(Calibration.from_info(swapped, img_hw=(900, 1600)))
        assert set(found) == set(pair)


def test_inverted(real: dict) -> None:
    # lidar2cam holds the camera in the LiDAR frame. A camera that looks straight back has a symmetric rotation; it is the
    # others that give it away
    for images in (real, sound()):
        found = problems(rewritten(images, lambda name, matrix: np.linalg.inv(matrix)))
        assert {text.split(':')[0] for text in found} >= {'CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT'}
        assert any('from down' in text for text in found)


def test_quaternion_w_last(real: dict) -> None:
    def misread(name: str, matrix: np.ndarray) -> np.ndarray:
        x, y, z, w = Quaternion(matrix=np.linalg.inv(matrix), rtol=1e-3, atol=1e-3).elements
        camera = np.eye(4)
        camera[:3, :3] = Quaternion(w, x, y, z).rotation_matrix
        camera[:3, 3] = np.linalg.inv(matrix)[:3, 3]
        return np.linalg.inv(camera)

    for images in (real, sound()):
        assert len({text.split(':')[0] for text in problems(rewritten(images, misread))}) >= 3


def test_radians_and_degrees() -> None:
    as_degrees = rig({name: ego_from_cam(math.radians(math.radians(heading))) for name, heading in HEADINGS_DEG.items()})
    as_radians = rig({name: ego_from_cam(heading) for name, heading in HEADINGS_DEG.items()})
    for images in (as_degrees, as_radians):
        assert len(problems(images)) >= 3
    pitch = rig({name: ego_from_cam(math.radians(heading), 90.0) for name, heading in HEADINGS_DEG.items()})
    assert len([text for text in problems(pitch) if 'from down' in text]) == 6  # 90 rad of pitch for 90 degrees


@pytest.mark.parametrize('name', NUSCENES_CAMERAS)
def test_one_camera_that_is_wrong_is_named(name: str) -> None:
    for change, word in (((0, 0, 1, 180), 'from down'), ((0, 1, 0, 70), 'looks')):  # upside down; turned aside
        images = copy.deepcopy(sound())
        turn = np.eye(4)
        turn[:3, :3] = Quaternion(axis=change[:3], degrees=change[3]).rotation_matrix
        images[name]['lidar2cam'] = (turn @ np.array(images[name]['lidar2cam'])).tolist()
        found = problems(images)
        assert [text.split(':')[0] for text in found] == [name] and word in found[0]


def test_order_around_the_car() -> None:
    # within 45 degrees of what the names say, but one after the other where it should be the other way round
    headings = {**HEADINGS_DEG, 'CAM_BACK_LEFT': 152.0, 'CAM_BACK': 147.0}
    found = problems(rig({name: ego_from_cam(math.radians(heading)) for name, heading in headings.items()}))
    assert {text.split(':')[0] for text in found} == {'CAM_BACK', 'CAM_BACK_LEFT'} and 'should be' in found[0]


@pytest.mark.parametrize('change, word', [
    (dict(cam2img=[[630.0, 0, 405.0], [0, 630.0, 245.0], [0, 0, 1]]), 'principal point'),  # of the image at half the size
    (dict(cam2img=[[2520.0, 0, 1620.0], [0, 2520.0, 980.0], [0, 0, 1]]), 'principal point'),
    (dict(cam2img=[[1260.0, 0, 810.0], [0, 1260.0, -30.0], [0, 0, 1]]), 'principal point'),
    (dict(cam2img=[[0.8, 0, 800.0], [0, 0.8, 450.0], [0, 0, 1]]), 'field of view'),  # in widths, not pixels
    (dict(lidar2cam=[[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, -530], [0, 0, 0, 1]]), '530.0 m from the LiDAR')])  # centimetres
def test_other_faults(change: dict, word: str) -> None:
    images = sound()
    images['CAM_FRONT'].update(change)
    found = problems(images)
    assert len(found) == 1 and found[0].startswith('CAM_FRONT: ') and word in found[0]


def test_error_on_nuscenes_rigs_and_named_warning_elsewhere() -> None:
    upside_down = np.diag([-1.0, -1.0, 1.0, 1.0])
    images = rewritten(sound(), lambda name, matrix: upside_down @ matrix if name == 'CAM_BACK' else matrix)
    with pytest.raises(CalibrationError, match=r'sample abc .*CAM_BACK: its y axis is 17\d deg from down'):
        require_likely_rig(Calibration.from_info(images), 'abc')
    for some in (images.keys() - {'CAM_FRONT'}, ['CAM_BACK']):  # a part of nuScenes' rig
        with pytest.raises(CalibrationError, match=r'CAM_BACK: its y axis'):
            require_likely_rig(Calibration.from_info({name: images[name] for name in some}))
    with pytest.raises(CalibrationError, match=r'CAM_BACK: its y axis'):
        require_likely_rig(Calibration.from_info({**images, 'CAM_ROOF': images['CAM_BACK']}))
    others = {name.replace('CAM_', 'camera_').lower(): image for name, image in images.items()}
    with pytest.warns(RigWarning, match='camera_back: its y axis'):
        require_likely_rig(Calibration.from_info(others))


def test_the_narrow_centre_is_for_the_cameras_of_nuscenes_alone() -> None:
    off = [[1260.0, 0, 560.0], [0, 1260.0, 490.0], [0, 0, 1.0]]  # 0.35 of the width
    images = sound()
    roof = {**images['CAM_FRONT'], 'cam2img': off}
    assert problems({**images, 'CAM_ROOF': roof}) == []
    assert 'principal point' in problems({**images, 'CAM_FRONT': roof})[0]


def test_k_of_images_of_another_size(real: dict) -> None:
    """nuScenes' own infos have no image size, so it must be seen in K."""
    images = {name: {key: value for key, value in image.items() if key not in ('height', 'width')}
              for name, image in real.items()}
    assert check_rig(Calibration.from_info(images, img_hw=(900, 1600))) == []
    for hw in ((720, 1280), (1080, 1920), (1350, 2400), (900, 1200)):
        found = rig_problems(Calibration.from_info(images, img_hw=hw))
        assert found.keys() == images.keys(), hw
        assert all('K of images of another size' in text[0] for text in found.values())


def test_always_errors_whatever_the_rig() -> None:
    transposed = rewritten(sound(), lambda name, matrix: matrix.T)
    scaled = rewritten(sound(), lambda name, matrix: np.diag([1.001, 1.001, 1.001, 1.0]) @ matrix)
    mirrored = rewritten(sound(), lambda name, matrix: np.diag([-1.0, 1.0, 1.0, 1.0]) @ matrix)
    for images in (transposed, scaled, mirrored):
        with pytest.raises(ValueError, match='camera CAM_FRONT: lidar2cam is not a rigid transform'):
            Calibration.from_info(images)
    for matrix in (np.array(sound()['CAM_FRONT']['cam2img']).T, 2 * np.array(sound()['CAM_FRONT']['cam2img']),
                   [[-1260.0, 0, 810], [0, 1260, 490], [0, 0, 1]], [[1260.0, 0, 810], [3.0, 1260, 490], [0, 0, 1]]):
        images = sound()
        images['CAM_BACK']['cam2img'] = np.asarray(matrix).tolist()
        with pytest.raises(ValueError, match='camera CAM_BACK: cam2img is not an upper triangular K'):
            Calibration.from_info(images)


def test_duplicate_cameras() -> None:
    with pytest.raises(ValueError, match='duplicate cameras: camera CAM_BACK is listed twice'):
        Calibration.from_info(sound(), cam_names=['CAM_BACK', 'CAM_FRONT', 'CAM_BACK'])
    images = sound()
    for name in images:
        images[name]['img_path'] = f'{name}.jpg'
    images['CAM_BACK']['img_path'] = 'CAM_FRONT.jpg'
    for same in ('CAM_FRONT.jpg', './CAM_FRONT.jpg'):
        images['CAM_BACK']['img_path'] = same
        with pytest.raises(ValueError, match=r'duplicate cameras: CAM_FRONT and CAM_BACK have the same img_path CAM_FRONT.jpg'):
            Calibration.from_info(images)
    images['CAM_BACK']['img_path'] = 'copy.jpg'
    assert problems(images) == []
    images['CAM_LEFT'] = {**images['CAM_BACK'], 'img_path': 'again.jpg'}
    assert 'CAM_LEFT: it has K and pose of CAM_BACK: the rig has a camera twice' in problems(images)
    for name in ('CAM_BACK', 'CAM_LEFT'):
        images[name]['sample_data_token'] = 'abc'
    with pytest.raises(ValueError, match=r'CAM_BACK and CAM_LEFT have the same sample_data_token abc'):
        Calibration.from_info(images)


@pytest.mark.parametrize('key, value', [
    ('timestamp', 'noon'), ('timestamp', [1.0, 2.0]),
    ('lidar2cam', [[1, 2], [3]]), ('lidar2cam', 'none'), ('cam2img', [[1], [2, 3]]),
    ('distortion', dict(model='radtan', coefficients=[[1.0], [1.0, 2.0]]))])
def test_values_that_are_no_numbers_are_named(key: str, value: object) -> None:
    images = sound()
    images['CAM_BACK'][key] = value
    with pytest.raises(ValueError, match=f'camera CAM_BACK: {key}'):
        Calibration.from_info(images)
    images['CAM_BACK'] = {**sound()['CAM_BACK'], 'timestamp': None,
                          'distortion': dict(model='radtan', coefficients=np.zeros((1, 5)))}
    assert Calibration.from_info(images).t_cam.isnan().all()


def test_stamps_too_far_apart() -> None:
    images = sound()
    for name, gap_s in zip(images, (0.0, 0.05, -0.1, 0.19, 0.25, -1.0)):
        images[name]['timestamp'] = 1532402927.6 + gap_s
    calibration = Calibration.from_info(images, t_lidar=1532402927.6)
    with pytest.raises(CalibrationError, match=r'sample s1: CAM_BACK_LEFT: its stamp is \+0.250 s.*CAM_BACK_RIGHT.*-1.000 s'):
        check_stamps(calibration, 's1')
    check_stamps(calibration, 's1', max_stamp_gap_s=1.1)
    check_stamps(Calibration.from_info(images))  # the LiDAR's stamp is not known
    there = torch.tensor([[name not in ('CAM_BACK_LEFT', 'CAM_BACK_RIGHT') for name in images]])
    check_stamps(Calibration(**{**calibration.__dict__, 'cam_valid': there}))


def test_image_size() -> None:
    calibration = Calibration.from_info(sound())
    check_image_size(calibration, 'CAM_BACK', (900, 1600, 3))
    with pytest.raises(CalibrationError, match='sample s1: the image of CAM_BACK is 1600 x 450, its .* is of 1600 x 900'):
        check_image_size(calibration, 'CAM_BACK', (450, 1600), 's1')
