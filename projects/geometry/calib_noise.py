"""Geometry, pure functions: calibration errors. In: sizes in degrees and metres. Out: (..., 4, 4) float64.

A calibration error is a rigid motion on the left of cam_from_lidar (Calibration.with_noise), never a change of matrix
entries, so that what is called 1 degree is 1 degree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .rigid import invert_rigid, rotation_angle_rad, skew


def sample_rigid_noise(shape: Sequence[int], rotation_deg: float, translation_m: float, generator: torch.Generator) -> Tensor:
    """Random rigid motions: an axis uniform on the sphere, an angle |N(0, rotation_deg)|, a shift N(0, translation_m I).

    Args:
        shape: leading shape, e.g. (B, N) for an error of each camera's own; see whole_rig_noise for one of the rig.
        rotation_deg, translation_m: standard deviations, not negative; 0 gives no rotation or no shift.
        generator: a CPU generator; the draws do not depend on the two sizes.

    Returns:
        (*shape, 4, 4) float64.
    """
    if rotation_deg < 0 or translation_m < 0:
        raise ValueError(f'calibration noise must not be negative: rotation_deg={rotation_deg}, translation_m={translation_m}')
    axis, shift, angle = (torch.randn(*shape, size, generator=generator, dtype=torch.float64) for size in (3, 3, 1))
    return fixed_rotation_noise(axis, angle[..., 0].abs() * rotation_deg, shift * translation_m)


def fixed_rotation_noise(axis: Tensor | Sequence[float], angle_deg: Tensor | float,
                         translation_m: Tensor | Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
    """A stated error: a turn about `axis` in camera axes, then a shift.

    Args:
        axis: (..., 3) of any length but 0; (0, 1, 0) is a yaw, (1, 0, 0) a pitch, (0, 0, 1) a roll.
        angle_deg: (...).
        translation_m: (..., 3).

    Returns:
        (..., 4, 4) float64.
    """
    direction = torch.as_tensor(axis, dtype=torch.float64)
    length = direction.norm(dim=-1, keepdim=True)
    if (length == 0).any():
        raise ValueError('a rotation about an axis of length 0 is not defined')
    angle = torch.as_tensor(angle_deg, dtype=torch.float64).deg2rad()
    rotation = torch.linalg.matrix_exp(skew(direction / length * angle[..., None]))
    matrix = torch.eye(4, dtype=torch.float64).repeat(*rotation.shape[:-2], 1, 1)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = torch.as_tensor(translation_m, dtype=torch.float64)
    return matrix


def measure_noise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Angle in degrees (...) and length of the shift in metres (...), both float64, of (..., 4, 4) rigid motions."""
    motion = matrix.double()
    return rotation_angle_rad(motion[..., :3, :3]).rad2deg(), motion[..., :3, 3].norm(dim=-1)


def whole_rig_noise(lidar_noise: Tensor, cam_from_lidar: Tensor) -> Tensor:
    """One error of the whole rig against the LiDAR, as what it is on the left of each camera's cam_from_lidar.

    Args:
        lidar_noise: (..., 4, 4) motion in the raw LiDAR frame.
        cam_from_lidar: (..., N, 4, 4) rigid.

    Returns:
        (..., N, 4, 4) float64 `noise` with noise @ cam_from_lidar = cam_from_lidar @ lidar_noise.
    """
    mounting = cam_from_lidar.double()
    return mounting @ lidar_noise.double()[..., None, :, :] @ invert_rigid(mounting)
