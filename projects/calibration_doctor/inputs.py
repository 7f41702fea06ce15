"""Doctor. In: a data set root, an info file or a keyframe folder. Out: the frames to examine, with their files found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from projects.memfusion.data.errors import DataError
from projects.memfusion.data.nuscenes_tables import open_nuscenes, tables_agree
from projects.memfusion.data.point_files import read_points
from projects.memfusion.data.sensor_channels import LIDAR_TOP
from projects.memfusion.data.sensor_files import find_sensor_file
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.plain_pickle import load_plain_pickle
from projects.memfusion.visualization.image_files import read_rgb

Info = dict[str, Any]
_POINT_VALUES = 5


@dataclass(frozen=True)
class DoctorFrame:
    """One keyframe: its info, and its files as far as they are there."""

    info: Info
    lidar_path: Path
    image_paths: dict[str, Path]

    @property
    def label(self) -> str:
        return str(self.info.get('token', self.lidar_path.name))

    def points(self) -> npt.NDArray[np.float32]:
        """(P, 5) x, y, z, intensity, ring."""
        return read_points(str(self.lidar_path), _POINT_VALUES)[0]

    def image(self, camera: str) -> npt.NDArray[np.uint8]:
        """(H, W, 3) RGB; OSError where the file is no image."""
        return np.asarray(read_rgb(self.image_paths[camera]), dtype=np.uint8)


@dataclass(frozen=True)
class DoctorData:
    """What is examined.

    Attributes:
        source: what was given, for the report.
        infos: all infos: checks of numbers alone look at each.
        frames: those whose images are looked at, spread evenly.
        missing: by camera, what was looked for in vain, in all infos.
        root, version: of the tables beside the infos, '' where there are none.
    """

    source: str
    infos: Sequence[Info]
    frames: Sequence[DoctorFrame]
    cameras: Sequence[str]
    missing: Mapping[str, Sequence[str]]
    root: Path
    version: str = field(default='')


def read_data(path: Path, max_frames: int) -> DoctorData:
    """Finds infos and files.

    Args:
        path: a data set root (with info files, or with tables only), an info file, or a folder with one keyframe.
        max_frames: frames whose images are looked at, at most.

    Raises:
        UserError, DataError: for what cannot be read; the message names it.
    """
    if path.is_file():
        root, files = path.parent, [path]
    elif path.is_dir():
        root, files = path, sorted(path.glob('*_infos_*.pkl'))
        if not files:
            files = [found for found in sorted(path.glob('*.pkl')) if 'dbinfos' not in found.name]
    else:
        raise UserError(f'{path} does not exist: give a data set root, an info file or a keyframe folder')
    versions = sorted(found.parent.name for found in root.glob('*/calibrated_sensor.json'))
    if files:
        infos, metainfo = _read_infos(files)
        version, lidar = metainfo.get('version', ''), metainfo.get('lidar_channel', LIDAR_TOP)
        version = version if version in versions else versions[0] if not version and versions else ''
    elif versions:
        version = versions[0]
        infos, lidar = _infos_of_tables(root, version, max_frames)
    else:
        raise UserError(f'{path} holds neither an info file (*_infos_*.pkl), nor tables (v1.0-*/*.json), nor a keyframe (.pkl '
                        'with its images and .pcd.bin)')
    cameras = list(dict.fromkeys(name for info in infos for name in info['images']))
    if not cameras:
        raise UserError(f'{path}: no frame has images, so there is no camera to examine')
    chosen = np.unique(np.linspace(0, len(infos) - 1, min(max_frames, len(infos))).round().astype(int))
    missing: dict[str, list[str]] = {}
    paths = [_find_images(info, root, missing) for info in infos]
    if not any(paths):
        raise UserError(f'{path}: no image was found: {missing[cameras[0]][0]}')
    frames = [DoctorFrame(infos[index], find_sensor_file(root, infos[index]['lidar_points']['lidar_path'], lidar), paths[index])
              for index in chosen]
    return DoctorData(str(path), infos, frames, cameras, missing, root, version)


def _read_infos(files: Sequence[Path]) -> tuple[list[Info], Mapping[str, Any]]:
    infos: list[Info] = []
    metainfo: Mapping[str, Any] = {}
    for file in files:
        content = load_plain_pickle(file)
        if not isinstance(content, Mapping) or not isinstance(content.get('data_list'), list):
            raise UserError(f'{file} is no mmdet3d v1.1 info file (a dict with metainfo and data_list); make it with '
                            'tools/create_data.py')
        metainfo = content.get('metainfo', {})
        for number, info in enumerate(content['data_list']):
            if not isinstance(info.get('images'), Mapping) or 'lidar_path' not in info.get('lidar_points', {}):
                raise UserError(f'{file}: frame {number} lacks images or lidar_points.lidar_path; make the info file with '
                                'tools/create_data.py')
            infos.append(info)
    if not infos:
        raise UserError(f'{", ".join(str(file) for file in files)}: no frames in it')
    return infos, metainfo


def _infos_of_tables(root: Path, version: str, max_frames: int) -> tuple[list[Info], str]:
    """Infos, and the channel of their LiDAR."""
    from projects.memfusion.data.nuscenes_infos import build_info  # slow to import, and seldom needed
    from projects.memfusion.data.sensor_channels import find_channels
    from projects.memfusion.data.sequence_fields import index_frames

    tables = open_nuscenes(root, version)
    if not tables.sample:
        raise UserError(f'{root / version} has no samples, so there is no frame to examine')
    with tables_agree(root, version):
        channels = find_channels(tables, tables.sample)
        frames = index_frames(tables.scene, tables)
        chosen = np.unique(np.linspace(0, len(tables.sample) - 1, max_frames).round().astype(int))
        infos = [build_info(tables, tables.sample[index], number, frames, 1, channels) for number, index in enumerate(chosen)]
    return infos, channels.lidar


def _find_images(info: Info, root: Path, missing: dict[str, list[str]]) -> dict[str, Path]:
    """Image files by camera; adds a sentence to `missing` for each that is not there."""
    paths = {}
    for camera, image in info['images'].items():
        if 'img_path' not in image:
            raise UserError(f'camera {camera}: frame {info.get("token", "?")} has no img_path')
        try:
            paths[camera] = find_sensor_file(root, image['img_path'], camera)
        except DataError as error:
            missing.setdefault(camera, []).append(str(error))
    return paths
