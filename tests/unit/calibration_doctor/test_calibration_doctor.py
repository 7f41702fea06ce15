"""Faults are planted in copies of the data: the keyframe's pickle, the nano world's infos and tables; images stay."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from projects.calibration_doctor import CameraVerdict, examine, read_data
from projects.calibration_doctor.boxes import move_with_boxes
from projects.calibration_doctor.drift_checks import check_drift, turn_seconds
from projects.calibration_doctor.edge_scores import CameraFrameEvidence
from projects.calibration_doctor.file_checks import check_chain, check_names, check_structure, check_tables
from projects.calibration_doctor.hypotheses import Grid, hypothesis_matrices, span
from projects.calibration_doctor.image_checks import with_raw_points
from projects.calibration_doctor.image_edges import find_image_edges
from projects.calibration_doctor.lidar_edges import KINDS, LidarEdges, find_lidar_edges
from projects.memfusion.data.errors import DataError
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.plain_pickle import load_plain_pickle
from projects.memfusion.structures.calibration import Calibration

Info = dict[str, Any]
Edit = Callable[[Info], None]
FRONT, SIDE = 'CAM_FRONT', 'CAM_BACK_LEFT'


def error_matrix(yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """(4, 4) rotation about the camera's own y, x and z axis."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('yxz', [yaw_deg, pitch_deg, roll_deg], degrees=True).as_matrix()
    return matrix


def turn(camera: str, **angles: float) -> Edit:
    """Turns a camera in lidar2cam and cam2ego alike, so that the numbers agree and only the image can tell."""
    def edit(info: Info) -> None:
        image = info['images'][camera]
        image['lidar2cam'] = (error_matrix(**angles) @ np.array(image['lidar2cam'])).tolist()
        image['cam2ego'] = (np.array(image['cam2ego']) @ np.linalg.inv(error_matrix(**angles))).tolist()
    return edit


def planted(source: Path, folder: Path, edit: Edit, cameras: tuple[str, ...] | None = None, tables: bool = False) -> Path:
    """A copy whose infos are edited; the sensor files are links. `cameras`: keep only these (faster)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for entry in source.iterdir():
        if entry.suffix != '.pkl' and (tables or not entry.name.startswith('v1.0-')):
            (folder / entry.name).symlink_to(entry.resolve())
    for path in source.glob('*.pkl'):
        if 'dbinfos' not in path.name:
            content = load_plain_pickle(path)
            for info in content['data_list']:
                edit(info)
                if cameras is not None:
                    info['images'] = {name: info['images'][name] for name in cameras}
            (folder / path.name).write_bytes(pickle.dumps(content, protocol=4))
    return folder


def faulty(verdicts: dict[str, CameraVerdict]) -> list[str]:
    return [name for name, verdict in verdicts.items() if verdict.is_faulty]


def fault_of(verdict: CameraVerdict, name: str) -> float:
    return next(found.fault for found in verdict.estimates if found.name == name)


def test_clean_keyframe_is_ok_and_pictures_are_written(keyframe_dir, tmp_path, tool):
    done = tool('tools/calibration_doctor.py', keyframe_dir, '--out', tmp_path / 'out')
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == 'calibration_doctor: ok'
    assert sum(line.startswith('CAM_') for line in lines) == 6
    assert all('roll not observable' in line and 'delay not observable' in line for line in lines if line.startswith('CAM_'))
    assert len(list((tmp_path / 'out').glob('CAM_*.png'))) == 6


@pytest.mark.parametrize(('camera', 'angles'), [
    ('CAM_FRONT', dict(yaw_deg=1.0)), ('CAM_FRONT_LEFT', dict(yaw_deg=-1.0)), ('CAM_BACK', dict(yaw_deg=1.0)),
    ('CAM_BACK_RIGHT', dict(pitch_deg=2.0))])
def test_a_turned_camera_of_the_keyframe_is_named(keyframe_dir, tmp_path, camera, angles):
    folder = planted(keyframe_dir, tmp_path / 'copy', turn(camera, **angles))
    verdicts = examine(read_data(folder, 20))
    (name, value), = angles.items()
    assert faulty(verdicts) == [camera]
    # half of what is planted (yaw), or of what one frame shows of pitch
    assert abs(fault_of(verdicts[camera], name) - value) < (0.5 if name == 'yaw_deg' else 0.8)


def test_lidar2cam_that_contradicts_cam2ego_is_seen_in_the_numbers_alone(keyframe_dir):
    info = load_plain_pickle(next(keyframe_dir.glob('*.pkl')))['data_list'][0]
    assert check_chain([info]) == {}
    image = info['images']['CAM_BACK']
    image['lidar2cam'] = (error_matrix(yaw_deg=1.0) @ np.array(image['lidar2cam'])).tolist()
    assert list(check_chain([info])) == ['CAM_BACK']


@pytest.fixture(scope='module')
def nano_infos(nano_infos_root: Path) -> list[Info]:
    return [info for split in ('train', 'val')
            for info in load_plain_pickle(nano_infos_root / f'nuscenes_infos_{split}.pkl')['data_list']]


def test_clean_synthetic_cameras_are_ok(nano_infos_root, tmp_path):
    folder = planted(nano_infos_root, tmp_path / 'copy', lambda info: None, (FRONT, SIDE, 'CAM_BACK'))
    assert faulty(examine(read_data(folder, 20))) == []


def scale_focal(info: Info) -> None:
    matrix = np.array(info['images'][FRONT]['cam2img'])
    matrix[[0, 1], [0, 1]] *= 1.15
    info['images'][FRONT]['cam2img'] = matrix.tolist()


def exchange_images(info: Info) -> None:
    first, second = info['images'][FRONT], info['images'][SIDE]
    first['img_path'], second['img_path'] = second['img_path'], first['img_path']


def pose_of_later(info: Info) -> None:
    """The side camera's pose and stamp are those of 100 ms later, lidar2cam to match: only the image is too early."""
    image = info['images'][SIDE]
    lidar_now, sweeps = np.array(info['global_from_lidar']), info.get('lidar_sweeps', [])
    if not sweeps:
        return
    before = np.array(sweeps[0]['global_from_lidar'])
    share = 0.1 / (info['timestamp'] - sweeps[0]['timestamp'])
    ego_from_lidar = np.array(info['lidar_points']['lidar2ego'])
    moved = ego_from_lidar @ np.linalg.inv(before) @ lidar_now @ np.linalg.inv(ego_from_lidar)
    step = np.eye(4)
    step[:3, 3] = moved[:3, 3] * share
    step[:3, :3] = Rotation.from_rotvec(Rotation.from_matrix(moved[:3, :3]).as_rotvec() * share).as_matrix()
    global_from_ego = np.array(image['ego2global']) @ step
    image['ego2global'], image['timestamp'] = global_from_ego.tolist(), image['timestamp'] + 0.1
    image['lidar2cam'] = (np.linalg.inv(global_from_ego @ np.array(image['cam2ego'])) @ lidar_now).tolist()


@pytest.mark.parametrize(('edit', 'camera', 'parameter', 'value'), [
    (turn(SIDE, yaw_deg=1.0), SIDE, 'yaw_deg', 1.0), (turn(SIDE, pitch_deg=-1.0), SIDE, 'pitch_deg', -1.0),
    (turn(FRONT, roll_deg=2.0), FRONT, 'roll_deg', 2.0), (pose_of_later, SIDE, 'delay_ms', 100.0),
    (scale_focal, FRONT, 'zoom', 0.15)])
def test_each_fault_of_geometry_or_time_is_found_in_the_images(nano_infos_root, tmp_path, edit, camera, parameter, value):
    folder = planted(nano_infos_root, tmp_path / 'copy', edit, (FRONT, SIDE))
    verdicts = examine(read_data(folder, 10))
    assert faulty(verdicts) == [camera]
    assert fault_of(verdicts[camera], parameter) == pytest.approx(value, abs=0.5 * abs(value))


def test_exchanged_images_are_found(nano_infos_root, tmp_path):
    folder = planted(nano_infos_root, tmp_path / 'copy', exchange_images, (FRONT, SIDE))
    assert faulty(examine(read_data(folder, 10))) == [FRONT, SIDE]


def invert(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.inv(matrix)


def transpose_rotation(matrix: np.ndarray) -> np.ndarray:
    result = matrix.copy()
    result[:3, :3] = matrix[:3, :3].T
    return result


def test_clean_numbers_have_no_problems(nano_infos, nano_infos_root):
    assert check_structure(nano_infos, {}) == check_chain(nano_infos) == check_drift(nano_infos) == {}
    assert check_tables(read_data(nano_infos_root, 20)) == {}


@pytest.mark.parametrize('wrong', [invert, transpose_rotation, np.transpose])
def test_wrong_way_extrinsics_are_found(nano_infos, wrong):
    image = nano_infos[0]['images'][FRONT]
    broken = {**nano_infos[0], 'images': {**nano_infos[0]['images'],
                                          FRONT: {**image, 'lidar2cam': wrong(np.array(image['lidar2cam'])).tolist()}}}
    assert list(check_structure([broken], {})) == [FRONT]


def test_exchanged_extrinsics_and_intrinsics_of_another_size_are_found(nano_infos):
    images = nano_infos[0]['images']
    other = {**nano_infos[0], 'images': {**images, FRONT: {**images[FRONT], 'lidar2cam': images[SIDE]['lidar2cam']},
                                         SIDE: {**images[SIDE], 'lidar2cam': images[FRONT]['lidar2cam']}}}
    assert sorted(check_structure([other], {})) == sorted([FRONT, SIDE])
    full_size = (np.diag([4.0, 4.0, 1.0]) @ np.array(images[FRONT]['cam2img'])).tolist()
    scaled = {**nano_infos[0], 'images': {**images, FRONT: {**images[FRONT], 'cam2img': full_size}}}
    assert list(check_structure([scaled], {})) == [FRONT]


def test_an_image_of_another_size_is_found(nano_infos_root, tmp_path):
    def grow(info: Info) -> None:
        info['images'][FRONT].update(height=450, width=800)
        info['images'][FRONT]['cam2img'] = (np.diag([2.0, 2.0, 1.0]) @ np.array(info['images'][FRONT]['cam2img'])).tolist()
    verdicts = examine(read_data(planted(nano_infos_root, tmp_path / 'copy', grow, (FRONT, SIDE)), 1))
    assert faulty(verdicts) == [FRONT]
    assert '400 x 225' in verdicts[FRONT].line() and '800 x 450' in verdicts[FRONT].line()


def test_a_shifted_stamp_leaves_the_path_of_the_ego(nano_infos):
    late = copy.deepcopy(nano_infos)
    for info in late:
        info['images'][SIDE]['timestamp'] += 0.1
    assert list(check_drift(late)) == [SIDE]


def test_tables_that_differ_from_the_infos_are_found(nano_infos_root, tmp_path):
    folder = planted(nano_infos_root, tmp_path / 'copy', lambda info: None, tables=True)
    version = (folder / 'v1.0-mini').resolve()
    (folder / 'v1.0-mini').unlink()
    shutil.copytree(version, folder / 'v1.0-mini')
    path = folder / 'v1.0-mini' / 'calibrated_sensor.json'
    sensors = {record['token']: record['channel'] for record in json.loads((folder / 'v1.0-mini' / 'sensor.json').read_text())}
    records = json.loads(path.read_text())
    for record in records:
        if sensors[record['sensor_token']] == SIDE:
            rotation = Rotation.from_quat(np.roll(record['rotation'], -1)) * Rotation.from_euler('y', 1.0, degrees=True)
            record['rotation'] = np.roll(rotation.as_quat(), 1).tolist()
    path.write_text(json.dumps(records))
    assert list(check_tables(read_data(folder, 5))) == [SIDE]


def test_an_own_rig_is_examined_by_its_tables_alone(three_camera_rig):
    data = read_data(three_camera_rig, 3)
    assert list(data.cameras) == ['FRONT_WIDE', 'REAR', 'LEFT'] and data.version == 'v1.0-rig'
    assert check_tables(data) == {} and check_drift(data.infos) == {}
    assert faulty(examine(data)) == []


def test_tables_that_follow_no_token_are_bad_input(three_camera_rig):
    path = three_camera_rig / 'v1.0-rig' / 'sample.json'
    records = json.loads(path.read_text())
    records[0]['next'] = 'nowhere'
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match='contradict each other: token or field .nowhere'):
        read_data(three_camera_rig, 3)


@pytest.mark.parametrize('make', [lambda folder: folder / 'missing', lambda folder: folder])
def test_bad_input_is_a_clear_error(tmp_path, make):
    with pytest.raises(UserError, match='missing|neither'):
        read_data(make(tmp_path), 5)


def test_bad_input_ends_with_exit_code_2(synthetic_keyframe_dir, tmp_path, tool):
    folder = planted(synthetic_keyframe_dir, tmp_path / 'copy', lambda info: None)
    next(folder.glob('*.pcd.bin')).unlink()
    done = tool('tools/calibration_doctor.py', folder)
    assert done.returncode == 2
    assert 'LIDAR_TOP' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize(('kind', 'said'), [('missing', '1 of its images missing'), ('cut off', 'not a readable image'),
                                            ('black', 'its image is blank')])
def test_missing_broken_and_black_images_are_found(nano_infos_root, tmp_path, kind, said):
    folder = planted(nano_infos_root, tmp_path / 'copy', lambda info: None, (FRONT, SIDE))
    data = read_data(folder, 1)
    samples = (folder / 'samples').resolve()
    (folder / 'samples').unlink()
    shutil.copytree(samples, folder / 'samples')
    path = data.frames[0].image_paths[SIDE]
    if kind == 'missing':
        path.unlink()
    elif kind == 'cut off':
        path.write_bytes(path.read_bytes()[:500])
    else:
        Image.new('RGB', (400, 225)).save(path)
    verdicts = examine(read_data(folder, 1))
    assert faulty(verdicts) == [SIDE]
    assert said in verdicts[SIDE].line()


def test_edges_on_a_moving_box_have_its_velocity():
    """A box of 4 x 2 x 2 m, 10 m ahead (y), turned by 90 deg, so that it is 2 m wide in x; rays 1.8 deg apart."""
    points = np.array([[0, 10, 0], [1.4, 10, 0], [1.9, 10, 0], [0, 12.4, 0], [0, 13, 0], [0, 10, 2]], dtype=np.float64)
    edges = LidarEdges(points, np.zeros(6, dtype=np.int64), np.ones(6), np.zeros((6, 3)), np.ones(6), np.zeros(6))
    box = dict(bbox_3d=[0.0, 10.0, 0.0, 4.0, 2.0, 2.0, np.pi / 2], velocity=[0.0, 8.0])
    unknown = [dict(box, velocity=[np.nan, np.nan]), dict(box, velocity=[np.nan, 5.0])]  # wholly or in part: moves nothing
    moved = move_with_boxes(edges, {'instances': [unknown[0], box, unknown[1]]}, 1.8)
    # 0.3 m and half a ray (0.16 m at 10 m) are granted around the box
    assert moved.velocity_m_s.tolist() == [[0.0, 8.0, 0.0], [0.0, 8.0, 0.0], [0.0] * 3, [0.0, 8.0, 0.0], [0.0] * 3, [0.0] * 3]
    assert not move_with_boxes(edges, {}, 1.8).velocity_m_s.any()


def test_image_files_of_another_camera_are_found(nano_infos):
    assert check_names(nano_infos) == {}
    other = copy.deepcopy(nano_infos[:1])
    exchange_images(other[0])
    assert sorted(check_names(other)) == sorted([FRONT, SIDE])


def test_lidar_edges_lie_half_way_to_the_ray_that_went_past():
    """Two rings of 1 deg steps look at a wall 20 m away, with a post 10 m away at 3 to 5 deg."""
    azimuth = np.radians(np.tile(np.arange(0.0, 20.0), 2))
    elevation = np.radians(np.repeat([0.0, 2.0], 20))
    range_m = np.where((np.degrees(azimuth) > 2.5) & (np.degrees(azimuth) < 5.5), 10.0, 20.0)
    points = np.stack([range_m * np.cos(elevation) * np.cos(azimuth), range_m * np.cos(elevation) * np.sin(azimuth),
                       range_m * np.sin(elevation), np.full(40, 9.0), np.repeat([0.0, 1.0], 20)], axis=1).astype(np.float32)
    edges, step_deg = find_lidar_edges(points[np.random.default_rng(0).permutation(40)])
    sides = edges.points_m[edges.kind == KINDS.index('side')]
    assert np.sort(np.degrees(np.arctan2(sides[:, 1], sides[:, 0]))) == pytest.approx([2.5, 2.5, 5.5, 5.5], abs=1e-3)
    assert np.linalg.norm(sides, axis=1) == pytest.approx(10.0, abs=1e-4)
    assert step_deg == pytest.approx(1.0, abs=1e-3)


def test_raw_points_are_moved_to_the_end_of_the_turn():
    """At 10 m/s ahead (y), a still point taken 0.04 s before the stamp is 0.4 m nearer at the stamp."""
    points = np.tile([3.0, 10.0, 0.0], (2, 1))
    edges = LidarEdges(points, np.zeros(2, dtype=np.int64), np.ones(2), np.zeros((2, 3)), np.array([0.2, 1.0]), np.zeros(2))
    rig = Calibration.from_info({FRONT: dict(cam2img=np.diag([200.0, 200, 1]), lidar2cam=np.eye(4))}, (100, 200))
    frame = CameraFrameEvidence(edges, find_image_edges(np.zeros((100, 200, 3), dtype=np.uint8), 1.0), rig,
                                np.array([0.0, 10, 0, 0, 0, 0]), 0.0, 0.05, 0.0)
    moved = with_raw_points(frame).edges
    assert moved.points_m == pytest.approx(np.array([[3.0, 9.6, 0.0], [3.0, 10.0, 0.0]]))
    assert moved.age_s == pytest.approx([0.04, 0.0])
    assert turn_seconds(np.array([0.0, 0.45, 0.5])) == pytest.approx(0.05)
    assert turn_seconds(np.array([0.0, 0.5])) == 0.0


def test_hypotheses_turn_zoom_and_move():
    """A point 10 m ahead: 1 deg of yaw moves it by tan(1 deg); 0.1 s at 5 m/s brings it 0.5 m nearer; zoom 0.1 widens."""
    cam_from_lidar = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # LiDAR y is ahead
    grid = Grid(yaw_deg=span(1, 1), delay_ms=(0.0, 100.0), zoom=(0.0, 0.1))
    matrices = hypothesis_matrices(grid, cam_from_lidar, np.array([0.0, 5, 0, 0, 0, 0])).reshape(*grid.shape, 3, 4)
    points = matrices @ np.array([1.0, 10.0, 0.0, 1.0])
    assert points[1, 0, 0, 0, 0] == pytest.approx([1, 0, 10])
    assert points[1, 0, 0, 1, 0] == pytest.approx([1, 0, 9.5])
    assert points[1, 0, 0, 0, 1] == pytest.approx([1.1, 0, 10])
    turned = np.arctan2(points[2, 0, 0, 0, 0, 0], points[2, 0, 0, 0, 0, 2]) - np.arctan2(1, 10)
    assert np.degrees(turned) == pytest.approx(1.0)
