"""Contract, no network. In: `images` of an mmdet3d v1.1 info, or matrices. Out: the cameras' rows of a Calibration.

Below the structure and not in the stage data, since Calibration.from_info and from_matrices are part of the contract and the
structures import no stage. Here it is asked whether matrices are ones at all; data.rig_checks asks whether they are likely.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.geometry.distortion import NUM_COEFFICIENTS, PINHOLE, parse_distortion
from projects.geometry.rigid import check_rigid, invert_rigid

ImageInfos = Mapping[str, Mapping[str, Any]]
ImageSizes = tuple[int, int] | Mapping[str, tuple[int, int]] | None


def read_cameras(info_images: ImageInfos, img_hw: ImageSizes, cam_names: Sequence[str] | None,
                 global_from_lidar: np.ndarray | None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of N cameras and, by the name of the Calibration's attribute, (1, N, ...) tensors; see Calibration.from_info."""
    names = tuple(info_images) if cam_names is None else tuple(cam_names)
    check_unique(names, info_images)
    if not info_images:
        raise ValueError('the info has no cameras: its `images` is empty')
    if not any(name in info_images for name in names):
        raise ValueError(f'none of the cameras {list(names)} is in the info, which has {list(info_images)}')
    rows = [_read_camera(name, info_images.get(name), img_hw, global_from_lidar) for name in names]
    return names, {key: torch.as_tensor(np.stack([row[key] for row in rows]))[None] for key in rows[0]}


def images_of_matrices(
    img_from_cam: Tensor,
    cam_from_lidar: Tensor,
    img_hw_raw: Tensor,
    cam_names: Sequence[str] | None,
    lenses: Sequence[tuple[str, Sequence[float]]] | None,
    cam_valid: Tensor | None,
    t_cam: Tensor | None,
) -> tuple[list[dict[str, dict[str, Any]]], Tensor]:
    """The `images` of B infos that say what the matrices say, and (B, N) bool cam_valid; see Calibration.from_matrices."""
    batch, count = img_from_cam.shape[:2]
    names = tuple(f'CAM_{i}' for i in range(count)) if cam_names is None else tuple(cam_names)
    check_unique(names, {})
    pinhole: tuple[str, Sequence[float]] = ('pinhole', ())
    models = [pinhole] * count if lenses is None else list(lenses)
    for key, found in dict(cam_from_lidar=cam_from_lidar.shape[:2], img_hw_raw=img_hw_raw.shape[:2],
                           cam_names=(batch, len(names)), lenses=(batch, len(models))).items():
        if tuple(found) != (batch, count):
            raise ValueError(f'{key} is of {tuple(found)} frames and cameras, img_from_cam of {(batch, count)}')
    valid = torch.ones(batch, count, dtype=torch.bool) if cam_valid is None else cam_valid.cpu()
    if valid.shape != (batch, count) or valid.dtype != torch.bool:
        raise ValueError(f'cam_valid is {tuple(valid.shape)} {valid.dtype}, expected {(batch, count)} bool')
    matrices, poses, sizes = img_from_cam.cpu(), cam_from_lidar.cpu(), img_hw_raw.tolist()
    for n, name in enumerate(names):
        check_rigid(poses[:, n][valid[:, n]].double(), f'camera {name}: cam_from_lidar')
    eye, there = torch.eye(4), valid.tolist()
    return [{name: dict(cam2img=matrices[b, n] if there[b][n] else eye, lidar2cam=poses[b, n] if there[b][n] else eye,
                        height=int(sizes[b][n][0]), width=int(sizes[b][n][1]),
                        distortion=dict(model=models[n][0], coefficients=models[n][1]),
                        timestamp=math.nan if t_cam is None else float(t_cam[b, n]))
             for n, name in enumerate(names)} for b in range(batch)], valid


def bev_aug_of(given: np.ndarray | Tensor | None) -> Tensor:
    """(1, 4, 4) float32; ValueError for what cannot be inverted."""
    matrix = torch.eye(4) if given is None else torch.as_tensor(given).float()
    if matrix.shape != (4, 4) or not matrix.isfinite().all() or torch.linalg.det(matrix[:3, :3]).abs() < 1e-6:
        raise ValueError(f'bev_aug is no invertible 4x4 matrix: {matrix.tolist()}')
    return matrix[None].clone()


def check_unique(names: Sequence[str], info_images: ImageInfos) -> None:
    """Raises ValueError for a name, an image or a record that is there twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f'duplicate cameras: camera {name} is listed twice in {list(names)}')
    for (key, value), twins in shared_records({name: info_images.get(name) for name in names}).items():
        raise ValueError(f'duplicate cameras: {" and ".join(twins)} have the same {key} {value}: the info has a camera twice')


def shared_records(info_images: Mapping[str, Mapping[str, Any] | None]) -> dict[tuple[str, str], list[str]]:
    """{(key, value): cameras} of image files and sample_data records that more than one camera of an info has."""
    cameras: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, image in info_images.items():
        for key in ('img_path', 'sample_data_token'):
            value = str((image or {}).get(key) or '')
            if value:
                cameras.setdefault((key, os.path.normpath(value)), []).append((name, value))
    return {(key, found[0][1]): [name for name, _ in found] for (key, _), found in cameras.items() if len(found) > 1}


def _read_camera(
    name: str,
    image: Mapping[str, Any] | None,
    img_hw: ImageSizes,
    global_from_lidar: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """One camera's row of every tensor, without B; a camera that is not there gets a row that is not valid."""
    if image is None:
        eye = np.eye(4, dtype=np.float32)
        return _row(eye, eye, (1, 1), (PINHOLE, [0.0] * NUM_COEFFICIENTS, np.inf), False, np.nan)
    img_from_cam = _intrinsics(name, image)
    cam_from_lidar = _extrinsics(name, image, global_from_lidar)
    if image.get('height') and image.get('width'):
        size = (int(image['height']), int(image['width']))
    else:
        given = img_hw.get(name) if isinstance(img_hw, Mapping) else img_hw
        if given is None:
            raise ValueError(f'camera {name}: the info has no height and width; pass img_hw (make the info file with '
                             'tools/create_data.py to have them in it)')
        size = (int(given[0]), int(given[1]))
    lens = image.get('distortion') or dict(model='pinhole', coefficients=[])
    if not {'model', 'coefficients'} <= lens.keys():
        raise ValueError(f'camera {name}: distortion needs model and coefficients, the info has {list(lens)}')
    parsed = parse_distortion(lens['model'], lens['coefficients'], name)
    return _row(img_from_cam, cam_from_lidar, size, parsed, True, _number(name, image, 'timestamp'))


def _number(name: str, image: Mapping[str, Any], key: str) -> float:
    """NaN where the info has none."""
    try:
        return float(image[key]) if image.get(key) is not None else math.nan
    except (TypeError, ValueError) as error:
        raise ValueError(f'camera {name}: {key} must be a number, got {image[key]!r}') from error


def _matrix(name: str, image: Mapping[str, Any], key: str) -> np.ndarray:
    """float64; the caller checks its shape."""
    try:
        return np.asarray(image[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f'camera {name}: {key} is no matrix of numbers: {image[key]!r}') from error


def _row(img_from_cam: np.ndarray, cam_from_lidar: np.ndarray, size: tuple[int, int],
         lens: tuple[int, list[float], float], valid: bool, t_cam: float) -> dict[str, np.ndarray]:
    return dict(
        img_from_cam=img_from_cam.astype(np.float32), cam_from_lidar=cam_from_lidar.astype(np.float32),
        img_hw_raw=np.array(size, dtype=np.int64), distortion_model=np.array(lens[0], dtype=np.int64),
        distortion=np.array(lens[1], dtype=np.float32), max_radius=np.array(lens[2], dtype=np.float32),
        cam_valid=np.array(valid), t_cam=np.array(t_cam, dtype=np.float64))


def _intrinsics(name: str, image: Mapping[str, Any]) -> np.ndarray:
    """(4, 4) float64 raw K, padded."""
    if 'cam2img' not in image:
        raise ValueError(f'camera {name}: the info has no cam2img')
    matrix = _matrix(name, image, 'cam2img')
    if matrix.shape not in ((3, 3), (3, 4), (4, 4)):
        raise ValueError(f'camera {name}: cam2img has shape {matrix.shape}, expected 3x3 (or padded to 4x4)')
    padded = np.eye(4)
    padded[:3, :3] = matrix[:3, :3]
    lower = padded[[1, 2, 2], [0, 0, 1]]
    focal = padded[[0, 1], [0, 1]]
    if not np.isfinite(matrix).all() or (lower != 0).any() or padded[2, 2] != 1 or (focal <= 0).any():
        raise ValueError(f'camera {name}: cam2img is not an upper triangular K with positive focal lengths '
                         f'(transposed or scaled?): {matrix[:3, :3].tolist()}')
    return padded


def _extrinsics(name: str, image: Mapping[str, Any], global_from_lidar: np.ndarray | None) -> np.ndarray:
    """(4, 4) float64 cam_from_lidar, LiDAR stamp to camera stamp."""
    if 'lidar2cam' in image:
        matrix = torch.as_tensor(_matrix(name, image, 'lidar2cam'))
        source = 'lidar2cam'
    elif global_from_lidar is not None and 'cam2ego' in image and 'ego2global' in image:
        ego_from_cam, global_from_ego_at_cam = (
            torch.as_tensor(_matrix(name, image, key)) for key in ('cam2ego', 'ego2global'))
        check_rigid(ego_from_cam, f'camera {name}: cam2ego')
        global_from_cam = global_from_ego_at_cam @ ego_from_cam
        matrix = invert_rigid(global_from_cam) @ torch.as_tensor(np.asarray(global_from_lidar, dtype=np.float64))
        source = 'cam2ego, ego2global and global_from_lidar'
    else:
        raise ValueError(f'camera {name}: the info has no lidar2cam (nor cam2ego and ego2global together with a '
                         'global_from_lidar to make it from)')
    if matrix.shape != (4, 4):
        raise ValueError(f'camera {name}: {source} has shape {tuple(matrix.shape)}, expected 4x4')
    check_rigid(matrix, f'camera {name}: {source}')
    return matrix.numpy()
