"""Geometry, pure functions on (..., 4, 4) tensors `dst_from_src` (column vectors, metres); the dtype in is the dtype out."""

from __future__ import annotations

import torch
from torch import Tensor


def check_rigid(matrix: Tensor, name: str, tolerance: float = 1e-3) -> None:
    """Raises ValueError naming `name` unless every (..., 4, 4) matrix is a rotation and a translation."""
    rotation = matrix[..., :3, :3].double()
    eye = torch.eye(3, dtype=torch.float64, device=matrix.device)
    off = (rotation @ rotation.transpose(-1, -2) - eye).abs().amax() if matrix.numel() else torch.zeros(())
    bottom = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    finite = bool(torch.isfinite(matrix).all())
    if not finite or off > tolerance or (torch.linalg.det(rotation) < 0).any() or (matrix[..., 3, :] != bottom).any():
        raise ValueError(f'{name} is not a rigid transform (rotation off by {float(off):.2g}, finite: {finite}): '
                         'check the pose or calibration it was made from')


def invert_rigid(dst_from_src: Tensor) -> Tensor:
    """Inverse of rigid (..., 4, 4) matrices, exact in the rotation (its transpose)."""
    rotation = dst_from_src[..., :3, :3].transpose(-1, -2)
    translation = -rotation @ dst_from_src[..., :3, 3:]
    bottom = dst_from_src[..., 3:, :]
    return torch.cat([torch.cat([rotation, translation], dim=-1), bottom], dim=-2)


def transform_points(dst_from_src: Tensor, points_m: Tensor) -> Tensor:
    """Moves (..., P, 3) points by (..., 4, 4) matrices; returns (..., P, 3) in the destination frame."""
    rotated = points_m @ dst_from_src[..., :3, :3].transpose(-1, -2)
    return rotated + dst_from_src[..., None, :3, 3]
