"""Stage data: cuts every truth object's points out of the training keyframes, for pasting into other frames.

In: `{tag}_infos_train.pkl` and its point files; out: `{tag}_gt_database/*.bin` (float32 x 5: x, y, z relative to the
box's bottom centre in the LiDAR frame, intensity, time lag in s) and `{tag}_dbinfos_train.pkl`, whose keys and paths
are those of mmdet3d's `create_groundtruth_database`. Sweeps are accumulated by `LoadLidarSweeps`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.datasets.transforms import LoadAnnotations3D
from mmdet3d.structures.ops import box_np_ops
from mmengine.logging import print_log

from .errors import DataError
from .files import map_in_order, partial_path, write_pickles
from .point_files import TIME_COLUMN
from .seeding import SeededNuScenesDataset
from .sensor_channels import NUSCENES_PREFIX
from .sequence_fields import load_info_file
from .transforms.loading import LoadLidarPoints, LoadLidarSweeps

DbInfo = dict[str, Any]


class NoTrainingFrames(DataError):
    """The training infos are empty."""


def create_gt_database(root: Path, out_dir: Path, tag: str = 'nuscenes', workers: int = 1) -> Path:
    """Writes the database of the training infos; an old one is replaced only when the new one is complete.

    Args:
        root: The data set's root folder.
        out_dir: Where the infos are and the database goes; `path` in the database is relative to it.
        tag: Prefix of the names.
        workers: Number of processes.

    Returns:
        Path of `{tag}_dbinfos_train.pkl`.

    Raises:
        DataError: If the training infos are missing, unreadable, empty or of another version.
        BadFrameError: If a point file is missing, truncated, empty or not finite.
    """
    info_path, folder = out_dir / f'{tag}_infos_train.pkl', out_dir / f'{tag}_gt_database'
    index_path, building = out_dir / f'{tag}_dbinfos_train.pkl', partial_path(folder)
    dataset = training_frames(root, info_path)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        frames = map_in_order(lambda index: _cut_objects(dataset, index, building, folder.name), len(dataset), workers,
                              folder.name)
        db_infos = _group_by_class(frames)
        # The index goes first and comes last: without it, nothing takes a folder for a database.
        index_path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(building, folder)
        write_pickles({index_path: db_infos})
    finally:
        shutil.rmtree(building, ignore_errors=True)
    counts = ', '.join(f'{len(infos)} {name}' for name, infos in db_infos.items())
    print_log(f'{index_path}: {counts or "no objects"}', 'current')
    return index_path


def training_frames(root: Path, info_path: Path) -> SeededNuScenesDataset:
    """The keyframes with accumulated points (where points have a column for the lag) and boxes.

    Raises:
        DataError: If the infos are missing, unreadable or of another version; NoTrainingFrames if there are none.
    """
    data_list, metainfo = load_info_file(info_path)  # its messages say what to do; the data set's own do not
    if not data_list:
        raise NoTrainingFrames(f'{info_path} has no keyframes to cut objects out of: prepare training scenes (--splits '
                               'FILE), or leave the database out with --skip-gt-database')
    load_dim = data_list[0].get('lidar_points', {}).get('num_pts_feats') or 5
    data_prefix = metainfo.get('data_prefix', NUSCENES_PREFIX)
    loaders: list[BaseTransform] = [LoadLidarPoints(load_dim=load_dim, use_dim=load_dim)]
    if load_dim > TIME_COLUMN:
        loaders.append(LoadLidarSweeps(sweeps_num=10, load_dim=load_dim, use_dim=TIME_COLUMN + 1, pad_empty_sweeps=True,
                                       remove_close=True, test_mode=True))
    return SeededNuScenesDataset(
        data_root=str(root), ann_file=str(info_path.resolve()), use_valid_flag=True,
        data_prefix={key: data_prefix[key] for key in ('pts', 'img', 'sweeps') if key in data_prefix},
        pipeline=[*loaders, LoadAnnotations3D(with_bbox_3d=True, with_label_3d=True)])


def _cut_objects(dataset: SeededNuScenesDataset, index: int, folder: Path, folder_name: str) -> list[DbInfo]:
    """Writes the objects of one keyframe and returns their entries; `group_id` is still the index within the frame.

    mmdet3d files objects outside the ten classes (label -1) under the last class, `barrier`; here they are left out
    (their entry is empty), and the numbering of the others stays as in mmdet3d.
    """
    frame = dataset.pipeline(dataset.get_data_info(index))
    points = frame['points'].numpy()
    boxes_lidar = frame['ann_info']['gt_bboxes_3d'].numpy()
    in_box = box_np_ops.points_in_rbbox(points, boxes_lidar)
    entries: list[DbInfo] = []
    for number, (box, label) in enumerate(zip(boxes_lidar, frame['ann_info']['gt_labels_3d'])):
        if label < 0:
            entries.append({})
            continue
        name = dataset.metainfo['classes'][label]
        filename = f'{frame["sample_idx"]}_{name}_{number}.bin'
        object_points = points[in_box[:, number]]
        object_points[:, :3] -= box[:3]
        object_points.astype(np.float32).tofile(folder / filename)
        entries.append(dict(
            name=name, path=os.path.join(folder_name, filename), image_idx=frame['sample_idx'], gt_idx=number,
            box3d_lidar=box, num_points_in_gt=len(object_points), difficulty=np.int32(0)))
    return entries


def _group_by_class(frames: list[list[DbInfo]]) -> dict[str, list[DbInfo]]:
    db_infos: dict[str, list[DbInfo]] = {}
    for group_id, entry in enumerate(entry for entries in frames for entry in entries):
        if entry:
            db_infos.setdefault(entry['name'], []).append({**entry, 'group_id': group_id})
    return db_infos
