"""Demo. In: a folder with one nuScenes keyframe (.pkl, images, .pcd.bin). Out: a checked Keyframe, LiDAR frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.structures import Box3DMode, LiDARInstance3DBoxes

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.plain_pickle import load_plain_pickle
from projects.memfusion.visualization.image_files import read_rgb

_INSTANCE_KEYS = ('bbox_3d', 'bbox_label_3d', 'num_lidar_pts')


@dataclass(frozen=True)
class Keyframe:
    """One keyframe, files found and annotations read.

    Attributes:
        info: the mmdet3d v1.1 info.
        lidar_path: the .pcd.bin file.
        images: (H, W, 3) uint8 RGB by camera name.
        boxes: N boxes with velocity (0 where unknown), LiDAR frame, as mmdet3d's data set makes them from the info.
        labels: (N,) class numbers in the order of `class_names`, -1 for other objects.
        num_lidar_pts: (N,) points that the annotation counts in each box.
    """

    info: dict[str, Any]
    lidar_path: Path
    images: dict[str, np.ndarray]
    boxes: LiDARInstance3DBoxes
    labels: np.ndarray
    num_lidar_pts: np.ndarray

    def pipeline_input(self) -> dict[str, Any]:
        """What mmdet3d's data set would hand to its pipeline: boxes with at least one point, file by full path."""
        seen = self.num_lidar_pts > 0
        return dict(
            sample_idx=0, lidar_points=dict(lidar_path=str(self.lidar_path), num_pts_feats=5),
            box_type_3d=LiDARInstance3DBoxes, box_mode_3d=Box3DMode.LIDAR,
            ann_info=dict(gt_bboxes_3d=self.boxes[seen], gt_labels_3d=self.labels[seen]))


def read_keyframe(folder: str | Path, class_names: Sequence[str]) -> Keyframe:
    """Reads the one keyframe of a folder. Images and points are found by their file name, whatever path the info says.

    Raises:
        UserError: for a missing folder, no or more than one info file or keyframe, a missing or broken file (named),
            an info that lacks a key (named).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'{folder} is not a folder: pass one that holds a keyframe (.pkl, images and .pcd.bin)')
    found = sorted(folder.glob('*.pkl'))
    if len(found) != 1:
        names = ', '.join(path.name for path in found) or 'none'
        raise UserError(f'{folder} must hold one info file (.pkl), found {names}')
    content = load_plain_pickle(found[0])
    info, label_names = _one_info(content, found[0])
    try:
        images = {name: _read_image(folder, image['img_path'], name) for name, image in info['images'].items()}
        lidar_path = _file_of(folder, info['lidar_points']['lidar_path'], 'LiDAR points')
        boxes, labels, num_lidar_pts = _annotations(info['instances'], label_names, class_names)
    except KeyError as error:
        raise UserError(f'{found[0]}: the keyframe has no {error}; make the info file with tools/create_data.py') \
            from error
    if not images:
        raise UserError(f'{found[0]}: the keyframe has no images')
    return Keyframe(info, lidar_path, images, boxes, labels, num_lidar_pts)


def _one_info(content: Any, path: Path) -> tuple[dict[str, Any], dict[int, str]]:
    """The only info, and class names by label."""
    if not isinstance(content, Mapping) or not isinstance(content.get('data_list'), list):
        raise UserError(f'{path} is no mmdet3d v1.1 info file (a dict with metainfo and data_list)')
    if len(content['data_list']) != 1:
        raise UserError(f'{path} holds {len(content["data_list"])} keyframes; this tool takes exactly one')
    categories = content.get('metainfo', {}).get('categories')
    if not categories:
        raise UserError(f'{path}: metainfo has no categories, so the labels have no names')
    return content['data_list'][0], {label: name for name, label in categories.items() if label >= 0}


def _file_of(folder: Path, path: str, what: str) -> Path:
    name = path.replace('\\', '/').rsplit('/', 1)[-1]
    if not (folder / name).is_file():
        raise UserError(f'{folder / name} is missing ({what} of the keyframe): put it beside the info file')
    return folder / name


def _read_image(folder: Path, path: str, camera: str) -> np.ndarray:
    file = _file_of(folder, path, f'image of {camera}')
    try:
        return read_rgb(file)
    except OSError as error:
        raise UserError(f'{file}: {error.strerror}: copy it again') from error


def _annotations(instances: Sequence[Mapping[str, Any]], label_names: Mapping[int, str], class_names: Sequence[str],
                 ) -> tuple[LiDARInstance3DBoxes, np.ndarray, np.ndarray]:
    """Boxes, labels and point counts; the info gives gravity centres, mmdet3d's boxes have bottom centres."""
    rows, labels, counts = [], [], []
    for instance in instances:
        box, label, count = (instance[key] for key in _INSTANCE_KEYS)
        velocity = np.asarray(instance.get('velocity', (0.0, 0.0)), dtype=np.float64)
        rows.append([*box[:7], *np.where(np.isnan(velocity), 0.0, velocity)])  # NaN: unknown, 0 as in mmdet3d
        name = label_names.get(label)
        labels.append(class_names.index(name) if name in class_names else -1)
        counts.append(count)
    array = np.asarray(rows, dtype=np.float32).reshape(-1, 9)
    if not np.isfinite(array).all():
        broken = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise UserError(f'instance {broken} of the keyframe has a bbox_3d that is not finite; make the info anew')
    boxes = LiDARInstance3DBoxes(array, box_dim=9, origin=(0.5, 0.5, 0.5))
    return boxes, np.asarray(labels, dtype=np.int64), np.asarray(counts, dtype=np.int64)
