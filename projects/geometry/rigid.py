"""Geometry, pure functions on (..., 4, 4) tensors `dst_from_src` (column vectors, metres); the dtype in is the dtype out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .precision import full_precision


def check_rigid(matrix: Tensor | np.ndarray, name: str, tolerance: float = 1e-3) -> None:
    """Raises ValueError naming `name` unless every (..., 4, 4) matrix is a rotation and a translation.

    Args:
        matrix: what to check; an array where the host has it, since a tensor on a GPU makes it wait.
        name: of what, for the error.
        tolerance: of the entries of R R^T; the determinant must be 1 within 1e-4 whatever this is.
    """
    values = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix
    rotation = values[..., :3, :3].astype(np.float64)
    finite = bool(np.isfinite(values).all())
    with np.errstate(invalid='ignore', over='ignore'):  # what is not finite is named below
        off = np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max(initial=0.0)
        determinant = np.linalg.det(rotation)
    stretched = np.abs(determinant - 1) > 1e-4
    if not finite or off > tolerance or stretched.any() or (values[..., 3, :] != [0.0, 0.0, 0.0, 1.0]).any():
        worst = determinant[stretched][:1].tolist() or [1.0]
        raise ValueError(f'{name} is not a rigid transform (rotation off by {float(off):.2g}, determinant {worst[0]:.6g}, '
                         f'last row {values[..., 3, :].reshape(-1, 4)[0].tolist()}, finite: {finite}): check the pose or '
                         'calibration it was made from (transposed, scaled or mirrored?)')


@full_precision
def invert_rigid(dst_from_src: Tensor) -> Tensor:
    """Inverse of rigid (..., 4, 4) matrices, exact in the rotation (its transpose)."""
    rotation = dst_from_src[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ dst_from_src[..., :3, 3:]
    bottom = dst_from_src[..., 3:, :]
    return torch.cat([torch.cat([rotation, translation], dim=-1), bottom], dim=-2)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """outer @ inner of small (..., n, n) matrices, number by number: no setting of the products' precision touches it."""
    return (outer[..., :, :, None] * inner[..., None, :, :]).sum(-2)


def invert_3x3(matrix: Tensor) -> Tensor:
    """Inverse of (..., 3, 3) matrices by cofactors: torch.linalg.inv looks for singular ones, for which a GPU's host waits."""
    first, second, third = matrix.unbind(-2)
    cofactors = torch.stack([torch.linalg.cross(second, third), torch.linalg.cross(third, first),
                             torch.linalg.cross(first, second)], dim=-1)
    return cofactors / (first * cofactors[..., 0]).sum(-1)[..., None, None]


def invert_affine(dst_from_src: Tensor) -> Tensor:
    """Inverse of (..., 4, 4) matrices whose last row is 0, 0, 0, 1; also of homographies in the upper left 3x3, padded."""
    linear = invert_3x3(dst_from_src[..., :3, :3])
    translation = -compose(linear, dst_from_src[..., :3, 3:])
    return torch.cat([torch.cat([linear, translation], dim=-1), dst_from_src[..., 3:, :]], dim=-2)


@full_precision
def transform_points(dst_from_src: Tensor, points_m: Tensor) -> Tensor:
    """Moves (..., P, 3) points by (..., 4, 4) matrices; returns (..., P, 3) in the destination frame."""
    rotated = points_m @ dst_from_src[..., :3, :3].transpose(-1, -2)
    return rotated + dst_from_src[..., None, :3, 3]


def skew(vector: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3), the matrix of the cross product with it."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape[:-1], 3, 3)


def rotation_angle_rad(rotation: Tensor) -> Tensor:
    """(..., 3, 3) -> (...) in 0..pi; exact for small angles too, where the arc cosine of the trace is not."""
    sine = _axis_times_sine(rotation).norm(dim=-1)
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def _axis_times_sine(rotation: Tensor) -> Tensor:
    odd = (rotation - rotation.transpose(-1, -2)) / 2
    return torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)
