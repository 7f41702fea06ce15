"""Stage data: from nuScenes' tables to mmdet3d v1.1 info files; boxes in the LiDAR frame at the keyframe's stamp.

The keys and values are those of mmdet3d 1.4's own converter (tools/dataset_converters/nuscenes_converter.py and
update_infos_to_v2.py), plus the keys of `sequence_fields.py`. Tables are read once; no path is built in.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mmdet3d.datasets.convert_utils import NuScenesNameMapping, get_nuscenes_2d_boxes, nus_categories
from mmdet3d.datasets.utils import convert_quaternion_to_matrix
from mmengine.logging import print_log

from .box_points_check import check_box_points
from .files import map_in_order, write_pickles
from .nuscenes_tables import Record, open_nuscenes, tables_agree
from .poses import Pose, relative_pose
from .scene_splits import SPLITS, Splits, names_of, scenes_by_split
from .sensor_channels import SensorChannels, find_channels
from .sensor_files import scenes_with_all_files, sweep_records
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


def info_paths(out_dir: Path, tag: str, version: str, splits: Splits | None = None) -> dict[str, Path]:
    """The info files of a version: of the given splits, else `{'train': ..., 'val': ...}`, or `{'test': ...}` for v1.0-test."""
    official = ('test',) if version == 'v1.0-test' else ('train', 'val')
    names = official if splits is None else [split for split in SPLITS if split in splits]
    return {split: out_dir / f'{tag}_infos_{split}.pkl' for split in names}


def create_infos(root: Path, version: str, out_dir: Path, tag: str = 'nuscenes', max_sweeps: int = 10, workers: int = 1, *,
                 lidar_channel: str | None = None, splits: Splits | None = None, skip_missing_scenes: bool = False,
                 load_dim: int = 5) -> dict[str, Path]:
    """Writes the info files of one version; the files appear together when all of them are complete.

    Args:
        root: The data set's root folder, with `samples/`, `sweeps/`, `maps/` and `version/`.
        version: `v1.0-mini`, `v1.0-trainval` or `v1.0-test`; with `splits` any other folder of tables too.
        out_dir: Where the files go.
        tag: Prefix of the file names.
        max_sweeps: LiDAR sweeps before each keyframe to list, most recent first.
        workers: Number of processes.
        lidar_channel: Which LiDAR; None is LIDAR_TOP or the only one.
        splits: Names of the scenes of `train`, `val`, `test`; None is nuScenes' own splits.
        skip_missing_scenes: Leave out scenes whose files are not there.
        load_dim: Values of a point in the point files.

    Returns:
        `{split: path}` as `info_paths` gives it.

    Raises:
        DataError: For missing or unreadable tables, sensors, scenes and sensor files, and boxes without their points.
    """
    nusc = open_nuscenes(root, version)
    with tables_agree(root, version):
        groups = _samples_by_split(nusc, splits)
        samples = [sample for group in groups.values() for sample in group]
        channels = find_channels(nusc, samples, lidar_channel)
        whole = scenes_with_all_files(nusc, samples, channels, max_sweeps, skip_missing=skip_missing_scenes)
        groups = {split: [sample for sample in group if sample['scene_token'] in whole] for split, group in groups.items()}
        samples = [sample for group in groups.values() for sample in group]
        check_box_points(nusc, samples, channels.lidar, load_dim)
        _report_categories(nusc, samples)
        frames = index_frames(nusc.scene, nusc)
        paths, contents = info_paths(out_dir, tag, version, splits), {}
        for split, group in groups.items():
            build = partial(_build_nth, nusc, group, frames, max_sweeps, channels, load_dim)
            data_list = map_in_order(build, len(group), workers, f'{tag} {split} infos')
            contents[paths[split]] = dict(metainfo=_metainfo(nusc, group, version, channels), data_list=data_list)
    write_pickles(contents)
    for path, content in contents.items():
        print_log(f'{path}: {len(content["data_list"])} keyframes', 'current')
    if not channels.is_nuscenes():
        print_log(f'sensors: LiDAR {channels.lidar}, cameras {", ".join(channels.cameras) or "none"}; configs that read these '
                  f'infos need data_prefix={channels.data_prefix()}', 'current')
    return paths


def build_info(nusc: NuScenes, sample: Record, sample_idx: int, frames: Mapping[str, tuple[int, int]],
               max_sweeps: int, channels: SensorChannels, load_dim: int = 5) -> dict[str, Any]:
    """The v1.1 info of one keyframe, with the sequence fields.

    Args:
        nusc: The tables.
        sample: The keyframe's `sample` record.
        sample_idx: Its position in the info file.
        frames: What `index_frames` returned.
        max_sweeps: LiDAR sweeps to list at most.
        channels: The sensors; a camera that this keyframe lacks is left out.
        load_dim: Values of a point in the point files.
    """
    lidar = nusc.get('sample_data', sample['data'][channels.lidar])
    cameras = [camera for camera in channels.cameras if camera in sample['data']]
    sensor = nusc.get('calibrated_sensor', lidar['calibrated_sensor_token'])
    ego = nusc.get('ego_pose', lidar['ego_pose_token'])
    global_from_lidar = global_from_sensor(nusc, lidar)
    info: dict[str, Any] = dict(
        sample_idx=sample_idx, token=sample['token'], timestamp=sample['timestamp'] / 1e6,
        ego2global=convert_quaternion_to_matrix(ego['rotation'], ego['translation']),
        images={camera: _image_info(nusc, sample['data'][camera], global_from_lidar) for camera in cameras},
        lidar_points=dict(num_pts_feats=load_dim, lidar_path=os.path.basename(lidar['filename']),
                          lidar2ego=convert_quaternion_to_matrix(sensor['rotation'], sensor['translation'])))
    sweeps = [_sweep_info(nusc, record, global_from_lidar) for record in sweep_records(nusc, lidar, max_sweeps)]
    if sweeps:  # mmdet3d leaves the key out of a scene's first keyframe
        info['lidar_sweeps'] = sweeps
    info['instances'] = []
    if nusc.version != 'v1.0-test':
        info['instances'] = _instances(nusc, sample, lidar['token'], global_from_lidar)
        info['cam_instances'] = {
            camera: get_nuscenes_2d_boxes(nusc, sample['data'][camera], _VISIBILITIES) for camera in cameras}
        if 'lidarseg' in nusc.table_names:
            info['pts_semantic_mask_path'] = os.path.basename(nusc.get('lidarseg', lidar['token'])['filename'])
    add_sequence_fields(info, nusc, frames, channels.lidar)
    add_file_sizes(info, nusc, nusc.dataroot)
    return info


def _build_nth(nusc: NuScenes, samples: Sequence[Record], frames: Mapping[str, tuple[int, int]], max_sweeps: int,
               channels: SensorChannels, load_dim: int, index: int) -> dict[str, Any]:
    return build_info(nusc, samples[index], index, frames, max_sweeps, channels, load_dim)


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


def _instances(nusc: NuScenes, sample: Record, lidar_token: str, global_from_lidar: Pose) -> list[dict[str, Any]]:
    _, boxes, _ = nusc.get_sample_data(lidar_token)
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
    name = NuScenesNameMapping.get(category_name)  # the evaluator knows no others, not even a class's own name
    return nus_categories.index(name) if name in nus_categories else -1


def _report_categories(nusc: NuScenes, samples: Sequence[Record]) -> None:
    """Says which boxes are lost because their category is none of nuScenes' names."""
    from nuscenes.utils.color_map import get_colormap  # the one complete list of nuScenes' names in the devkit
    known, lost = get_colormap(), Counter[str]()
    for token in (token for sample in samples for token in sample['anns']):
        name = nusc.get('sample_annotation', token)['category_name']
        lost[name] += name not in known
    unknown = [f'{name} ({count})' for name, count in lost.items() if count]
    if unknown:
        print_log(f'boxes of these categories are neither trained on nor scored, because nuScenes has no such name: '
                  f'{names_of(unknown, 20)}; give those that are one of its classes its name in category.json '
                  '(docs/own_data.md)', 'current', level=30)


def _metainfo(nusc: NuScenes, samples: Sequence[Record], version: str, channels: SensorChannels) -> dict[str, Any]:
    categories = {name: index for index, name in enumerate(nus_categories)}
    # mmdet3d lists the ignored categories of the last keyframe only; nothing reads them, so they stay the same.
    for token in samples[-1]['anns'] if samples and version != 'v1.0-test' else []:
        name = nusc.get('sample_annotation', token)['category_name']
        if _label(name) < 0:
            categories[name] = -1
    metainfo = dict(categories=categories, dataset='nuscenes', version=version, info_version=INFO_VERSION,
                    memfusion_info_version=MEMFUSION_INFO_VERSION)
    if not channels.is_nuscenes():
        metainfo.update(lidar_channel=channels.lidar, data_prefix=channels.data_prefix())
    return metainfo


def _samples_by_split(nusc: NuScenes, splits: Splits | None) -> dict[str, list[Record]]:
    """Keyframes in the tables' order."""
    scenes = scenes_by_split(nusc, splits)
    return {split: [sample for sample in nusc.sample if sample['scene_token'] in tokens] for split, tokens in scenes.items()}
