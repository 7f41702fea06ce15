"""Stage data: from nuScenes' tables to mmdet3d v1.1 info files; boxes in the LiDAR frame at the keyframe's stamp.

The keys and values are those of mmdet3d 1.4's own converter (tools/dataset_converters/nuscenes_converter.py and
update_infos_to_v2.py), plus the keys of `sequence_fields.py`. Tables are read once; no path is built in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mmdet3d.datasets.convert_utils import NuScenesNameMapping, get_nuscenes_2d_boxes, nus_categories
from mmdet3d.datasets.utils import convert_quaternion_to_matrix
from mmengine.logging import print_log

from .errors import DataError
from .files import map_in_order, write_pickles
from .nuscenes_tables import CAMERAS, Record, SensorFiles, open_nuscenes
from .poses import Pose, relative_pose
from .sequence_fields import (
    INFO_VERSION,
    MEMFUSION_INFO_VERSION,
    add_file_sizes,
    add_sequence_fields,
    check_info_file,
    complete_infos,
    ensure_sequence_fields,
    global_from_sensor,
    index_frames,
    load_info_file,
)

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

__all__ = ['build_info', 'check_info_file', 'complete_infos', 'create_infos', 'ensure_sequence_fields', 'info_paths',
           'load_info_file']

_VISIBILITIES = ['', '1', '2', '3', '4']  # every annotation, as mmdet3d takes them


def info_paths(out_dir: Path, tag: str, version: str) -> dict[str, Path]:
    """The info files of a version: `{'train': ..., 'val': ...}`, or `{'test': ...}` for v1.0-test."""
    splits = ('test',) if version == 'v1.0-test' else ('train', 'val')
    return {split: out_dir / f'{tag}_infos_{split}.pkl' for split in splits}


def create_infos(root: Path, version: str, out_dir: Path, tag: str = 'nuscenes', max_sweeps: int = 10,
                 workers: int = 1) -> dict[str, Path]:
    """Writes the info files of one version; the files appear together when all of them are complete.

    Args:
        root: The data set's root folder, with `samples/`, `sweeps/`, `maps/` and `version/`.
        version: `v1.0-mini`, `v1.0-trainval` or `v1.0-test`.
        out_dir: Where the files go.
        tag: Prefix of the file names.
        max_sweeps: LiDAR sweeps before each keyframe to list, most recent first.
        workers: Number of processes.

    Returns:
        `{split: path}` as `info_paths` gives it.

    Raises:
        DataError: For missing or unreadable tables and for missing sensor files.
    """
    nusc = open_nuscenes(root, version)
    try:
        samples = _samples_by_split(nusc, version)
        _check_sensor_files(nusc, [sample for group in samples.values() for sample in group], max_sweeps)
        frames = index_frames(nusc.scene, nusc)
        paths, contents = info_paths(out_dir, tag, version), {}
        for split, group in samples.items():
            build = partial(_build_nth, nusc, group, frames, max_sweeps)
            data_list = map_in_order(build, len(group), workers, f'{tag} {split} infos')
            contents[paths[split]] = dict(metainfo=_metainfo(nusc, group, version), data_list=data_list)
    except KeyError as error:
        raise DataError(f'the tables in {root / version} contradict each other: token or field {error} is referred to '
                        f'but does not exist; unpack the tables of {version} again') from error
    write_pickles(contents)
    for path, content in contents.items():
        print_log(f'{path}: {len(content["data_list"])} keyframes', 'current')
    return paths


def build_info(nusc: NuScenes, sample: Record, sample_idx: int, frames: Mapping[str, tuple[int, int]],
               max_sweeps: int) -> dict[str, Any]:
    """The v1.1 info of one keyframe, with the sequence fields.

    Args:
        nusc: The tables.
        sample: The keyframe's `sample` record.
        sample_idx: Its position in the info file.
        frames: What `index_frames` returned.
        max_sweeps: LiDAR sweeps to list at most.
    """
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    sensor = nusc.get('calibrated_sensor', lidar['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', lidar['ego_pose_token'])
    global_from_lidar = global_from_sensor(nusc, lidar)
    info: dict[str, Any] = dict(
        sample_idx=sample_idx, token=sample['token'], timestamp=sample['timestamp'] / 1e6,
        ego2global=convert_quaternion_to_matrix(ego['rotation'], ego['translation']),
        images={camera: _image_info(nusc, sample['data'][camera], global_from_lidar) for camera in CAMERAS},
        lidar_points=dict(num_pts_feats=5, lidar_path=os.path.basename(lidar['filename']),
                          lidar2ego=convert_quaternion_to_matrix(sensor['rotation'], sensor['translation'])))
    sweeps = [_sweep_info(nusc, record, global_from_lidar) for record in _sweep_records(nusc, lidar, max_sweeps)]
    if sweeps:  # mmdet3d leaves the key out of a scene's first keyframe
        info['lidar_sweeps'] = sweeps
    info['instances'] = []
    if nusc.version != 'v1.0-test':
        info['instances'] = _instances(nusc, sample, global_from_lidar)
        info['cam_instances'] = {
            camera: get_nuscenes_2d_boxes(nusc, sample['data'][camera], _VISIBILITIES) for camera in CAMERAS}
        if 'lidarseg' in nusc.table_names:
            info['pts_semantic_mask_path'] = os.path.basename(nusc.get('lidarseg', lidar['token'])['filename'])
    add_sequence_fields(info, nusc, frames)
    add_file_sizes(info, nusc, nusc.dataroot)
    return info


def _build_nth(nusc: NuScenes, samples: Sequence[Record], frames: Mapping[str, tuple[int, int]], max_sweeps: int,
               index: int) -> dict[str, Any]:
    return build_info(nusc, samples[index], index, frames, max_sweeps)


def _image_info(nusc: NuScenes, token: str, global_from_lidar: Pose) -> dict[str, Any]:
    record = nusc.get('sample_data', token)
    sensor = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
    cam_from_lidar = relative_pose(global_from_sensor(nusc, record), global_from_lidar)
    return dict(img_path=os.path.basename(record['filename']),
                cam2img=np.array(sensor['camera_intrinsic'], dtype=np.float64).tolist(),
                cam2ego=convert_quaternion_to_matrix(sensor['rotation'], sensor['translation']),
                sample_data_token=token, timestamp=record['timestamp'] / 1e6,
                lidar2cam=cam_from_lidar.astype(np.float32).tolist())


def _sweep_info(nusc: NuScenes, record: Record, global_from_lidar: Pose) -> dict[str, Any]:
    sensor = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', record['ego_pose_token'])
    sweep_from_lidar = relative_pose(global_from_sensor(nusc, record), global_from_lidar)
    return dict(
        timestamp=record['timestamp'] / 1e6, sample_data_token=record['token'],
        ego2global=convert_quaternion_to_matrix(ego['rotation'], ego['translation']),
        lidar_points=dict(num_pts_feats=None, lidar_path=_sweep_path(nusc.dataroot, record['filename']),
                          lidar2ego=convert_quaternion_to_matrix(sensor['rotation'], sensor['translation']),
                          lidar2sensor=sweep_from_lidar.astype(np.float32).tolist()))


def _sweep_path(root: str, filename: str) -> str:
    # mmdet3d stores the path as the root was given, without the working directory. Its dataset then looks for the
    # word 'samples' anywhere in it, so a root that contains that word must be left out.
    path = os.path.join(root, filename)
    return filename if 'samples' in root else path.split(f'{os.getcwd()}/')[-1]


def _sweep_records(nusc: NuScenes, lidar: Record, max_sweeps: int) -> list[Record]:
    """The LiDAR `sample_data` records before this one, most recent first; keyframes are sweeps too."""
    records: list[Record] = []
    while lidar['prev'] and len(records) < max_sweeps:
        lidar = nusc.get('sample_data', lidar['prev'])
        records.append(lidar)
    return records


def _instances(nusc: NuScenes, sample: Record, global_from_lidar: Pose) -> list[dict[str, Any]]:
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    instances = []
    for token, box in zip(sample['anns'], boxes, strict=True):
        annotation = nusc.get('sample_annotation', token)
        label = _label(annotation['category_name'])
        width, length, height = box.wlh.tolist()
        instances.append(dict(
            bbox_3d=[*box.center.tolist(), length, width, height, box.orientation.yaw_pitch_roll[0]],
            bbox_label=label, bbox_label_3d=label,
            bbox_3d_isvalid=annotation['num_lidar_pts'] + annotation['num_radar_pts'] > 0,
            num_lidar_pts=annotation['num_lidar_pts'], num_radar_pts=annotation['num_radar_pts'],
            velocity=_velocity_in_lidar(nusc, token, global_from_lidar).tolist()))
    return instances


def _velocity_in_lidar(nusc: NuScenes, token: str, global_from_lidar: Pose) -> npt.NDArray[np.float64]:
    """(2,) metres per second, NaN where the tables do not tell; the vertical part is dropped before turning."""
    velocity_global = np.array([*nusc.box_velocity(token)[:2], 0.0])
    return (global_from_lidar[:3, :3].T @ velocity_global)[:2]


def _label(category_name: str) -> int:
    name = NuScenesNameMapping.get(category_name, category_name)
    return nus_categories.index(name) if name in nus_categories else -1


def _metainfo(nusc: NuScenes, samples: Sequence[Record], version: str) -> dict[str, Any]:
    categories = {name: index for index, name in enumerate(nus_categories)}
    # mmdet3d lists the ignored categories of the last keyframe only; nothing reads them, so they stay the same.
    for token in samples[-1]['anns'] if samples and version != 'v1.0-test' else []:
        name = nusc.get('sample_annotation', token)['category_name']
        if _label(name) < 0:
            categories[name] = -1
    return dict(categories=categories, dataset='nuscenes', version=version, info_version=INFO_VERSION,
                memfusion_info_version=MEMFUSION_INFO_VERSION)


def _samples_by_split(nusc: NuScenes, version: str) -> dict[str, list[Record]]:
    """Keyframes in the tables' order. As in mmdet3d, scenes of no split count as val, and are left out of test."""
    from nuscenes.utils import splits
    names = {'v1.0-mini': splits.mini_train, 'v1.0-trainval': splits.train, 'v1.0-test': splits.test}[version]
    first = {scene['token'] for scene in nusc.scene if scene['name'] in names}
    inside = [sample for sample in nusc.sample if sample['scene_token'] in first]
    if version == 'v1.0-test':
        groups = {'test': inside}
    else:
        groups = {'train': inside, 'val': [sample for sample in nusc.sample if sample['scene_token'] not in first]}
    for split, group in groups.items():
        if not group:
            print_log(f'{nusc.dataroot}: no scene of {version} is in the {split} split, its info file will be empty',
                      'current', level=30)
    return groups


def _check_sensor_files(nusc: NuScenes, samples: Sequence[Record], max_sweeps: int) -> None:
    """Every keyframe's point cloud must be there; sweeps and images too, unless that folder was not downloaded."""
    files = SensorFiles(Path(nusc.dataroot))
    absent: set[str] = set()
    for sample in samples:
        lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
        files.require([lidar['filename']])
        others = [record['filename'] for record in _sweep_records(nusc, lidar, max_sweeps)]
        others += [nusc.get('sample_data', sample['data'][camera])['filename'] for camera in CAMERAS]
        files.require([name for name in others if files.has_folder(name)])
        absent |= {os.path.dirname(name) for name in others if not files.has_folder(name)}
    for folder in sorted(absent):
        print_log(f'{os.path.join(nusc.dataroot, folder)} is not there: infos are made without checking its files',
                  'current', level=30)
