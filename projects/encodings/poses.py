"""Encodings. In: poses of two sides of an attention. Out: the matrices P of every token and their inverses, float64.

Products of float64 know neither autocast nor TF32. Nothing waits for the device, and a compiler sees one graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry.rigid import invert_affine

if TYPE_CHECKING:
    from .frames import Frame
    from .views import Views

def pad_affine(linear: Tensor, shift: Tensor | None = None) -> Tensor:
    """(..., 3, 3) and (..., 3) -> (..., 4, 4) with the last row 0, 0, 0, 1."""
    upper = F.pad(linear, (0, 1)) if shift is None else torch.cat([linear, shift[..., None]], dim=-1)
    bottom = torch.zeros_like(upper[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([upper, bottom], dim=-2)


def relative_poses(views: Views, frame: Frame) -> Tensor:
    """(B, N, 4, 4) float64 cam_from_ref, lengths scaled; the identity for those without a pose."""
    pose = views.cam_from_world.double() @ frame.world_from_ref[:, None]
    scaled = pad_affine(pose[..., :3, :3], pose[..., :3, 3] * frame.scale.reshape(-1, 1, 1))
    return _posed_or_identity(scaled, views)


def pose_matrices(views: Views, frame: Frame, intrinsics: bool, quirks: frozenset[str] = frozenset()) -> Tensor:
    """P = lift4(K_norm) cam_from_ref, (B, N, 4, 4) float64.

    Args:
        views: of one side.
        frame: reference and scale, the same for both sides.
        intrinsics: whether K takes part, where the views have one.
        quirks: 'diagonal_intrinsics' drops what is off K's diagonal and last column.
    """
    pose, lift = relative_poses(views, frame), _lift(views, frame, intrinsics, quirks)
    return pose if lift is None else _posed_or_identity(lift @ pose, views)


def inverse_matrices(views: Views, frame: Frame, intrinsics: bool, quirks: frozenset[str] = frozenset()) -> Tensor:
    """P^-1, as `pose_matrices`: the true inverse, as bird's-eye augmentation scales.

    Args:
        views, frame, intrinsics: as there.
        quirks: 'rigid_inverse' also, which takes poses for rigid, as published code does.
    """
    pose, lift = relative_poses(views, frame), _lift(views, frame, intrinsics, quirks)
    if 'rigid_inverse' in quirks:
        turned = pose[..., :3, :3].transpose(-1, -2)
        inverse = pad_affine(turned, -(turned @ pose[..., :3, 3:])[..., 0])
    else:
        inverse = invert_affine(pose)
    return inverse if lift is None else _posed_or_identity(inverse @ invert_affine(lift), views)


def _lift(views: Views, frame: Frame, intrinsics: bool, quirks: frozenset[str]) -> Tensor | None:
    lift = views.lift() if intrinsics else None
    if lift is None:
        return None
    if views.image_hw is None:  # a map of metres: lengths of the world are scaled, those that it makes are not
        return torch.cat([lift[..., :3] / frame.scale.reshape(-1, 1, 1, 1), lift[..., 3:]], dim=-1)
    if 'diagonal_intrinsics' in quirks:
        lift = lift.clone()
        lift[..., 0, 1], lift[..., 1, 0], lift[..., 2, :2] = 0, 0, 0
    return lift


def posed_of(side: Views) -> Tensor:
    """(B or 1, N) bool."""
    return torch.ones_like(side.cam_from_world[..., 0, 0], dtype=torch.bool) if side.posed is None else side.posed


def _posed_or_identity(matrix: Tensor, views: Views) -> Tensor:
    return matrix if views.posed is None else torch.where(views.posed[..., None, None], matrix, identity_of(matrix))


def identity_of(like: Tensor) -> Tensor:
    return torch.eye(4, dtype=like.dtype, device=like.device)
