"""Demo, viewer. In: an info and the folder of its files. Out: points and sweeps in LiDAR coordinates, cameras, images."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from projects.geometry.distortion import PINHOLE
from projects.memfusion.data.errors import DataError
from projects.memfusion.data.image_undistortion import undistort_image
from projects.memfusion.data.point_files import TIME_COLUMN, is_close, read_points
from projects.memfusion.data.poses import relative_pose
from projects.memfusion.data.sensor_files import find_sensor_file
from projects.memfusion.data.transforms.loading import lidar_pose
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization.image_files import read_rgb

_POINT_VALUES = 5
_QUALITY = 90


@dataclass(frozen=True)
class ViewedCamera:
    """One camera of one frame; where its lens bends, the image is what a pinhole would have taken.

    Attributes:
        content, media_type: an encoded image.
        img_from_cam: (3, 3), integer pixels at centres.
        hw: height and width.
        lidar_from_cam: (4, 4), the camera at its own stamp, the LiDAR at the frame's.
        time_s: its own stamp; None where the info has none.
        bent: whether the image was undistorted: pixels of the camera's own image are then not its pixels.
    """

    content: bytes
    media_type: str
    img_from_cam: np.ndarray
    hw: tuple[int, int]
    lidar_from_cam: np.ndarray
    time_s: float | None
    bent: bool


def points_of(info: Mapping[str, Any], root: Path, lidar: str) -> np.ndarray:
    """(P, 5) x, y, z, intensity, ring of the keyframe; BadFrameError or DataError where the file is missing or broken."""
    return _read(info['lidar_points'], root, lidar, info['lidar_points'].get('num_pts_feats'))


def sweeps_of(info: Mapping[str, Any], root: Path, lidar: str, most: int) -> np.ndarray:
    """(S, 4) x, y, z in the frame's LiDAR coordinates and the lag in seconds, of the newest `most` sweeps before the frame.

    Points of the vehicle itself are left out, as in training.
    """
    parts = [np.zeros((0, TIME_COLUMN), np.float32)]
    stamp_s = info['lidar_points'].get('timestamp', info['timestamp'])
    for sweep in info.get('lidar_sweeps', [])[:most]:
        points = _read(sweep['lidar_points'], root, lidar, info['lidar_points'].get('num_pts_feats'))
        points = points[~is_close(points), :3]
        now_from_then = relative_pose(lidar_pose(info), lidar_pose(sweep)).astype(np.float32)
        moved = points @ now_from_then[:3, :3].T + now_from_then[:3, 3]
        lag_s = np.full((len(points), 1), stamp_s - sweep['timestamp'], np.float32)
        parts.append(np.concatenate([moved, lag_s], axis=1))
    return np.concatenate(parts)


def _read(part: Mapping[str, Any], root: Path, lidar: str, values: int | None) -> np.ndarray:
    path = find_sensor_file(root, part['lidar_path'], lidar)
    return read_points(str(path), values or _POINT_VALUES, 'drop_points', num_bytes=part.get('num_bytes'))[0]


def cameras_of(info: Mapping[str, Any], root: Path) -> tuple[dict[str, ViewedCamera], list[str]]:
    """The cameras whose images are there, by name; one sentence for each image that is not.

    Raises:
        ValueError: naming camera and key, for a camera that cannot be read, or the file, for an image that is broken.
    """
    paths, missing = {}, []
    for name, image in (info.get('images') or {}).items():
        try:
            paths[name] = find_sensor_file(root, image['img_path'], name)
        except DataError as error:
            missing.append(str(error))
    if not paths:
        return {}, missing
    sizes = {name: _size_of(path) for name, path in paths.items()}
    images = {name: {**info['images'][name], 'height': sizes[name][0], 'width': sizes[name][1]} for name in paths}
    rig = Calibration.from_info(images, global_from_lidar=lidar_pose(info))
    seen, lidar_from_cam = rig.undistorted(), np.linalg.inv(rig.cam_from_bev[0].numpy())
    cameras = {}
    for row, (name, path) in enumerate(paths.items()):
        bent = int(rig.distortion_model[0, row]) != PINHOLE
        content, media_type = path.read_bytes(), mimetypes.guess_type(path)[0] or 'image/jpeg'
        if bent:
            straight = undistort_image(read_rgb(path), rig.img_from_cam[0, row], rig.distortion_model[0, row],
                                       rig.distortion[0, row], seen.img_from_cam[0, row])
            content = cv2.imencode('.jpg', straight[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
            media_type = 'image/jpeg'
        stamp = info['images'][name].get('timestamp')
        cameras[name] = ViewedCamera(content, media_type, seen.img_from_cam[0, row, :3, :3].double().numpy(), sizes[name],
                                     lidar_from_cam[row], None if stamp is None else float(stamp), bent)
    return cameras, missing


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as opened:  # reads the head alone
            return opened.height, opened.width
    except OSError as error:
        raise DataError(f'{path} is no readable image: copy or generate it again') from error
