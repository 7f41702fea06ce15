"""Encodings. In: poses of two sides of an attention. Out: the matrices P of every token and their inverses, float64.

Everything is added up number by number, so neither autocast nor TF32 touches it, nothing waits for the device, and a compiler
sees one graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry.rigid import compose, invert_affine

if TYPE_CHECKING:
    from .views import Views

NORMS = ('fixed', 'median', 'max', 'learned')
_NO_LENGTH_M = 1e-6


class Frame(NamedTuple):
    """What positions of both sides are relative to.

    Attributes:
        world_from_ref: (B or 1, 4, 4) float64, the reference camera.
        scale: (B or 1) or (), what lengths are multiplied by.
        times: (B or 1, M) sorted times of both sides, where those are seconds that are counted; else None.
    """

    world_from_ref: Tensor
    scale: Tensor
    times: Tensor | None = None


def pad_affine(linear: Tensor, shift: Tensor | None = None) -> Tensor:
    """(..., 3, 3) and (..., 3) -> (..., 4, 4) with the last row 0, 0, 0, 1."""
    upper = F.pad(linear, (0, 1)) if shift is None else torch.cat([linear, shift[..., None]], dim=-1)
    bottom = torch.zeros_like(upper[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([upper, bottom], dim=-2)


def world_from_first(*sides: Views) -> Tensor:
    """(B or 1, 4, 4) float64: of the first view of these sides that has a pose; where none has, nothing is moved."""
    batch = max(side.cam_from_world.shape[0] for side in sides)
    if sides[0].posed is None:
        return invert_affine(sides[0].cam_from_world[:, 0].double())
    poses = torch.cat([side.cam_from_world.double().expand(batch, -1, -1, -1) for side in sides], dim=1)
    posed = torch.cat([_posed(side).expand(batch, -1) for side in sides], dim=1)
    first = posed.int().argmax(1)[:, None, None, None].expand(-1, 1, 4, 4)
    return invert_affine(torch.where(posed.any(1)[:, None, None], poses.gather(1, first)[:, 0], _identity_of(poses)))


def size_of(kind: str, *sides: Views) -> Tensor:
    """(B,) float64 metres: median or largest distance of the cameras from their mean; 1 where they are all in one place.

    It does not change with the world frame, with the order of cameras, or when every token repeats its camera's pose.
    """
    batch = max(side.cam_from_world.shape[0] for side in sides)
    centers = torch.cat([invert_affine(side.cam_from_world.double())[..., :3, 3].expand(batch, -1, -1) for side in sides],
                        dim=1)
    posed = torch.cat([_posed(side).expand(batch, -1) for side in sides], dim=1)
    centers = torch.where(posed[..., None], centers, torch.zeros_like(centers))
    mean = centers.sum(1) / posed.sum(1).clamp(min=1)[:, None]
    away = (centers - mean[:, None]).square().sum(-1).sqrt()
    if kind == 'max':
        size = torch.where(posed, away, torch.zeros_like(away)).amax(1)
    else:
        size = torch.where(posed, away, torch.full_like(away, torch.nan)).nanmedian(1).values
    return torch.where(size > _NO_LENGTH_M, size, torch.ones_like(size))


def relative_poses(views: Views, frame: Frame) -> Tensor:
    """(B, N, 4, 4) float64 cam_from_ref, lengths scaled; the identity for those without a pose."""
    pose = compose(views.cam_from_world.double(), frame.world_from_ref[:, None])
    return _posed_or_identity(_scaled(pose, frame.scale), views)


def matrices(views: Views, frame: Frame, intrinsics: bool, quirks: frozenset[str] = frozenset()) -> tuple[Tensor, Tensor]:
    """P = lift4(K_norm) cam_from_ref and its inverse, (B, N, 4, 4) float64 each.

    The inverse is the true one, as bird's-eye augmentation scales; published code takes the transpose of the rotation.

    Args:
        views: of one side.
        frame: reference and scale, the same for both sides.
        intrinsics: whether K takes part, where the views have one.
        quirks: 'diagonal_intrinsics' drops what is off K's diagonal and last column, 'rigid_inverse' takes poses for rigid.
    """
    lift = views.lift() if intrinsics else None
    pose = relative_poses(views, frame)
    if lift is not None and views.image_hw is None:  # a map of metres: lengths of the world are scaled, those it makes are not
        lift = torch.cat([lift[..., :3] / frame.scale.reshape(-1, 1, 1, 1), lift[..., 3:]], dim=-1)
    elif lift is not None and 'diagonal_intrinsics' in quirks:
        lift = lift * lift.new_tensor(_KEPT)
    inverse = _rigid_inverse(pose) if 'rigid_inverse' in quirks else invert_affine(pose)
    if lift is None:
        return pose, inverse
    matrix, back = compose(lift, pose), compose(inverse, invert_affine(lift))
    return _posed_or_identity(matrix, views), _posed_or_identity(back, views)


_KEPT = [[1.0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def _scaled(pose: Tensor, scale: Tensor) -> Tensor:
    shift = pose[..., :3, 3] * scale.reshape(-1, 1, 1)
    return pad_affine(pose[..., :3, :3], shift)


def _rigid_inverse(pose: Tensor) -> Tensor:
    turned = pose[..., :3, :3].transpose(-1, -2)
    return pad_affine(turned, -compose(turned, pose[..., :3, 3:])[..., 0])


def _posed(side: Views) -> Tensor:
    """(B or 1, N) bool."""
    return torch.ones_like(side.cam_from_world[..., 0, 0], dtype=torch.bool) if side.posed is None else side.posed


def _posed_or_identity(matrix: Tensor, views: Views) -> Tensor:
    return matrix if views.posed is None else torch.where(views.posed[..., None, None], matrix, _identity_of(matrix))


def _identity_of(like: Tensor) -> Tensor:
    return torch.eye(4, dtype=like.dtype, device=like.device)
