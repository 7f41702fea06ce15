"""Doctor. In: infos, tables. Out: by camera, what is wrong with the numbers alone or contradicts itself. No images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from projects.memfusion.data.errors import DataError
from projects.memfusion.data.poses import record_matrix, relative_pose
from projects.memfusion.data.rig_checks import rig_problems, stamp_problems
from projects.memfusion.data.sensor_channels import pick_lidar
from projects.memfusion.data.sequence_fields import JsonTables, global_from_sensor
from projects.memfusion.structures.calibration import Calibration

from .inputs import DoctorData, Info
from .pose_tools import Pose, Problems, add_problem, difference, global_from_lidar_of, matrix_of, pose_of, twist

_SAME_DEG, _SAME_M = 0.15, 0.05  # numbers that say the same thing, after float32
_MOTION_DEG, _MOTION_M = 0.4, 0.2  # where the ego's motion between two stamps has to be guessed
_SAME_S = 0.002


def check_structure(infos: Sequence[Info], sizes: Mapping[str, tuple[int, int]]) -> Problems:
    """Matrices that are none, unlikely rigs, stamps far from the LiDAR's.

    Args:
        sizes: (height, width) by camera where infos have none; a camera of unknown size (no image seen) is left out.
    """
    problems: Problems = {}
    for info in infos:
        images = {camera: image for camera, image in info['images'].items() if camera in sizes or 'height' in image}
        try:
            rig: Calibration | None = _rig_of(info, images, sizes) if images else None
        except ValueError:
            rig = _rig_of_good_cameras(info, images, sizes, problems)
        if rig is not None:
            for camera, found in rig_problems(rig).items():
                for text in found:
                    add_problem(problems, camera, text)
            for camera, text in stamp_problems(rig).items():
                add_problem(problems, camera, text)
    return problems


def _rig_of(info: Info, images: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> Calibration:
    return Calibration.from_info(images, sizes, global_from_lidar=global_from_lidar_of(info),
                                 t_lidar=float(info.get('timestamp', np.nan)))


def _rig_of_good_cameras(info: Info, images: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]], problems: Problems,
                         ) -> Calibration | None:
    good: dict[str, Any] = {}
    for camera, image in images.items():
        try:
            _rig_of(info, {camera: image}, sizes)
            good[camera] = image
        except ValueError as error:
            add_problem(problems, camera, str(error).removeprefix(f'camera {camera}: '))
    return _rig_of(info, good, sizes) if good else None


def check_names(infos: Sequence[Info]) -> Problems:
    """Image files that are named after another camera (of nuScenes: folder/stamp__CAM_FRONT__number)."""
    problems: Problems = {}
    for info in infos:
        for camera, image in info['images'].items():
            words = re.split(r'__|[/\\\\]', str(image.get('img_path', '')))
            others = [other for other in info['images'] if other in words]
            if others and camera not in others:
                add_problem(problems, camera, f'its image file is one of {others[0]}: exchanged?')
    return problems


def check_chain(infos: Sequence[Info]) -> Problems:
    """lidar2cam against cam2ego and ego poses or, where cameras have none, the motion that the others imply."""
    problems: Problems = {}
    for info in infos:
        ego_from_lidar = matrix_of(info['lidar_points'], 'lidar2ego')
        moved: dict[str, tuple[Pose, float]] = {}
        for camera, image in info['images'].items():
            given, ego_from_cam = matrix_of(image, 'lidar2cam'), matrix_of(image, 'cam2ego')
            global_from_ego, global_from_lidar = matrix_of(image, 'ego2global'), global_from_lidar_of(info)
            if given is None or ego_from_cam is None:
                continue
            if global_from_ego is not None and global_from_lidar is not None:
                angle, distance = difference(relative_pose(global_from_ego @ ego_from_cam, global_from_lidar), given)
                if angle > _SAME_DEG or distance > _SAME_M:
                    add_problem(problems, camera, 'lidar2cam contradicts cam2ego and the ego poses by '
                         f'{angle:.2f} deg and {distance:.2f} m')
            elif ego_from_lidar is not None and 'timestamp' in image:
                gap_s = float(image['timestamp']) - float(info.get('timestamp', np.nan))
                moved[camera] = ego_from_cam @ given @ np.linalg.inv(ego_from_lidar), gap_s
        for camera, (angle, distance) in _odd_motions(moved).items():
            add_problem(problems, camera, f'lidar2cam and cam2ego differ by {angle:.2f} deg and {distance:.2f} m')
    return problems


def _odd_motions(moved: Mapping[str, tuple[Pose, float]]) -> dict[str, tuple[float, float]]:
    """Cameras that imply another ego motion than most do."""
    speeds = [twist(pose) / gap_s for pose, gap_s in moved.values() if abs(gap_s) > 0.005]
    if len(speeds) < 3:
        return {}
    speed = np.median(speeds, axis=0)
    odd = {}
    for camera, (pose, gap_s) in moved.items():
        angle, distance = difference(pose_of(speed * gap_s), pose)
        if angle > _MOTION_DEG or distance > _MOTION_M:
            odd[camera] = angle, distance
    return odd


def check_tables(data: DoctorData) -> Problems:
    """Calibration, ego poses and stamps of the tables beside the infos, against those in the infos."""
    problems: Problems = {}
    if not data.version:
        return problems
    infos = [{key: value for key, value in frame.info.items() if key != 'instances'} for frame in data.frames
             if all('sample_data_token' in image for image in frame.info['images'].values())]
    try:
        tables = JsonTables(data.root, data.version, infos)
        for info in infos:
            lidar = tables.get('sample_data', _lidar_token(tables, info))
            global_from_lidar = global_from_sensor(tables, lidar)
            for camera, image in info['images'].items():
                for text in _table_problems(tables, image, global_from_lidar):
                    add_problem(problems, camera, text)
    except KeyError as error:
        raise DataError(f'{data.root / data.version}: a record lacks {error}; unpack the tables again') from error
    return problems


def _lidar_token(tables: JsonTables, info: Info) -> str:
    """Of the LiDAR reading that the info is made of; infos of mmdet3d's converter do not say."""
    of_channel: Mapping[str, str] = tables.get('sample', info['token']).get('data', {})
    own = info['lidar_points'].get('sample_data_token')
    return own if own in of_channel.values() else of_channel[pick_lidar(list(of_channel))]


def _table_problems(tables: JsonTables, image: Mapping[str, Any], global_from_lidar: Pose) -> list[str]:
    record = tables.get('sample_data', image['sample_data_token'])
    sensor = tables.get('calibrated_sensor', record['calibrated_sensor_token'])
    ego = tables.get('ego_pose', record['ego_pose_token'])
    found = []
    given = matrix_of(image, 'lidar2cam')
    if given is not None:
        angle, distance = difference(relative_pose(record_matrix(ego) @ record_matrix(sensor), global_from_lidar), given)
        if angle > _SAME_DEG or distance > _SAME_M:
            found.append(f'infos and tables differ by {angle:.2f} deg and {distance:.2f} m')
    if 'img_path' in image and Path(record['filename']).name != Path(image['img_path'].replace('\\', '/')).name:
        found.append('infos and tables name different images')
    matrix = np.asarray(sensor['camera_intrinsic'], dtype=np.float64)
    in_info = np.asarray(image.get('cam2img', np.nan), dtype=np.float64)
    if matrix.shape != (3, 3) or in_info.ndim != 2 or np.abs(in_info[:3, :3] - matrix).max() > 0.5:
        found.append('cam2img of infos and camera_intrinsic of the tables differ')
    if 'timestamp' in image and abs(float(image['timestamp']) - record['timestamp'] / 1e6) > _SAME_S:
        found.append(f'stamps of infos and tables differ by {float(image["timestamp"]) - record["timestamp"] / 1e6:+.3f} s')
    if 'timestamp' in ego and abs(ego['timestamp'] - record['timestamp']) / 1e6 > 0.03:
        found.append(f'its ego pose is of {(ego["timestamp"] - record["timestamp"]) / 1e6:+.3f} s from its stamp')
    return found
