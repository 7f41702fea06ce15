"""Encodings. In: views. Out: nothing, or an error that names the camera. Values are looked at on the host only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .views import Views

PER = ('camera', 'token')


def check_shapes(views: Views) -> None:
    """ValueError where parts do not fit together."""
    if views.per not in PER:
        raise ValueError(f'Views.per must be one of {", ".join(PER)}, got {views.per!r}')
    pose = views.cam_from_world
    if pose.dim() != 4 or pose.shape[-2:] != (4, 4):
        raise ValueError(f'Views.cam_from_world must be (B, N, 4, 4), got {tuple(pose.shape)}')
    batch, count = pose.shape[:2]
    _check_intrinsics(views)
    for name, value in (('time', views.time), ('posed', views.posed)):
        if value is not None and (value.dim() != 2 or value.shape[1] != count or value.shape[0] not in (1, batch)):
            raise ValueError(f'Views.{name} must be {(batch, count)}, one for each pose, got {tuple(value.shape)}')
    grid = views.grid
    if isinstance(grid, Tensor):
        if views.per != 'token' or grid.dim() != 3 or grid.shape[1] != count or grid.shape[2] not in (2, 4):
            raise ValueError(f'Views.grid must be (rows, columns); with per=\'token\' also a {(batch, count, 2)} tensor of y '
                             f'and x; got a tensor of {tuple(grid.shape)} with per={views.per!r}')
    elif grid is not None:
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f'Views.grid must be rows and columns of patches, got {grid}')
        if views.per == 'token' and count % (grid[0] * grid[1]):
            raise ValueError(f'Views.grid {grid} is of {grid[0] * grid[1]} patches, which do not divide {count} tokens')


def _check_intrinsics(views: Views) -> None:
    matrix = views.img_from_cam
    if matrix is None:
        return
    if matrix.dim() != 4 or matrix.shape[:2] != views.cam_from_world.shape[:2] or matrix.shape[2:] not in ((3, 3), (4, 4)):
        raise ValueError(f'Views.img_from_cam must be {(*views.cam_from_world.shape[:2], 3, 3)}, one K for each pose, got '
                         f'{tuple(matrix.shape)}')
    if views.image_hw is None and matrix.shape[-1] == 3:
        raise ValueError('Views.image_hw is missing: K in pixels means nothing without the size of the image that the patches '
                         'cover (height, width)')
    if views.image_hw is not None and (isinstance(views.image_hw, Tensor) or len(views.image_hw) != 2
                                       or min(views.image_hw) <= 0):
        raise ValueError(f'Views.image_hw must be height and width in pixels, got {views.image_hw}')


def check_values(views: Views) -> None:
    """ValueError for a singular pose or K, and for a K whose principal point lies beyond the image: one of another size."""
    what = views.per
    pose = views.cam_from_world.detach().double().numpy()
    _check_invertible(pose, f'cam_from_world of {what}', 'check the pose it was made from')
    bottom = np.abs(pose[..., 3, :] - [0.0, 0.0, 0.0, 1.0]).max(-1) > 1e-6
    if bottom.any():
        sample, index = np.argwhere(bottom)[0]
        raise ValueError(f'Views: cam_from_world of {what} {index} (sample {sample}) has the last row '
                         f'{pose[sample, index, 3].tolist()}, which must be 0, 0, 0, 1: is it transposed?')
    if views.img_from_cam is None:
        return
    matrix = views.img_from_cam.detach().double().numpy()
    _check_invertible(matrix, f'img_from_cam of {what}', 'check its focal lengths')
    if views.image_hw is None:
        return
    size = np.array(views.image_hw[::-1], dtype=np.float64)
    point = matrix[..., :2, 2] / matrix[..., 2:3, 2]
    outside = ((point < 0) | (point >= size * (1 - 1e-6))).any(-1)
    if outside.any():
        sample, index = np.argwhere(outside)[0]
        raise ValueError(
            f'Views: the principal point of {what} {index} (sample {sample}), {point[sample, index].round(1).tolist()}, lies '
            f'beyond its image, which is {views.image_hw[1]} wide and {views.image_hw[0]} high: its K is of another image '
            'size. Resize K with the image, or pass validate=False where a crop has really left it outside')


def _check_invertible(matrix: np.ndarray, name: str, advice: str) -> None:
    linear = matrix[..., :3, :3]
    with np.errstate(invalid='ignore', over='ignore'):
        size = np.abs(linear).max((-1, -2), initial=0.0)
        bad = ~(np.abs(np.linalg.det(np.where(np.isfinite(linear), linear, 0.0))) > 1e-9 * size ** 3)
    bad |= ~np.isfinite(matrix).all((-1, -2))
    if bad.any():
        sample, index = np.argwhere(bad)[0]
        raise ValueError(f'Views: {name} {index} (sample {sample}) is singular or not finite, so nothing can be seen relative '
                         f'to it: {advice}')


def check_batch(views: Views, batch: int, name: str) -> None:
    """ValueError where views are of another number of samples than the tokens."""
    if views.cam_from_world.shape[0] not in (1, batch):
        raise ValueError(f'{name} are of {batch} samples, but their views of {views.cam_from_world.shape[0]}')


def check_device(views: Views, device: torch.device, name: str) -> None:
    """ValueError where views lie elsewhere than the tokens."""
    if views.cam_from_world.device != device:
        raise ValueError(f'{name} lie on {device}, but their views on {views.cam_from_world.device}')
