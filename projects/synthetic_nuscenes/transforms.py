"""Geometry stage: rigid transforms as float64 4x4 matrices `dst_from_src` on column vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyquaternion import Quaternion

FloatArray = NDArray[np.floating]


def make_transform(rotation: FloatArray, translation_m: FloatArray) -> FloatArray:
    """(3, 3) and (3,) to (4, 4)."""
    dst_from_src = np.eye(4)
    dst_from_src[:3, :3] = rotation
    dst_from_src[:3, 3] = translation_m
    return dst_from_src


def invert(dst_from_src: FloatArray) -> FloatArray:
    """Inverse of a rigid (4, 4)."""
    rotation = dst_from_src[:3, :3].T
    return make_transform(rotation, -rotation @ dst_from_src[:3, 3])


def apply(dst_from_src: FloatArray, points: FloatArray) -> FloatArray:
    """Move (..., 3) points; summed in a fixed order, so that results do not depend on the number of BLAS threads."""
    rotated = np.einsum('ij,...j->...i', dst_from_src[:3, :3], points)
    return rotated + dst_from_src[:3, 3]


def yaw_rotation(yaw_rad: FloatArray) -> FloatArray:
    """(...,) angles about z to (..., 3, 3)."""
    yaw_rad = np.asarray(yaw_rad, dtype=np.float64)
    rotation = np.zeros((*yaw_rad.shape, 3, 3))
    rotation[..., 0, 0] = rotation[..., 1, 1] = np.cos(yaw_rad)
    rotation[..., 1, 0] = np.sin(yaw_rad)
    rotation[..., 0, 1] = -rotation[..., 1, 0]
    rotation[..., 2, 2] = 1.0
    return rotation


def rotation_to_wxyz(rotation: FloatArray) -> list[float]:
    """(3, 3) to a unit quaternion w, x, y, z with w >= 0."""
    quaternion = Quaternion(matrix=rotation, atol=1e-6, rtol=1e-6).normalised
    sign = -1.0 if quaternion.w < 0 else 1.0
    return [sign * float(value) for value in quaternion.elements]


def wxyz_to_rotation(wxyz: list[float]) -> FloatArray:
    """Quaternion w, x, y, z to (3, 3)."""
    return np.asarray(Quaternion(wxyz).rotation_matrix)


def box_corners(centers: FloatArray, rotations: FloatArray, half_sizes: FloatArray) -> FloatArray:
    """Corners of M boxes.

    Args:
        centers: (M, 3); rotations: (M, 3, 3) with the box axes as columns; half_sizes: (M, 3).

    Returns:
        (M, 8, 3); bit 0 of the corner index is the sign of x, bit 1 of y, bit 2 of z.
    """
    bits = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)], dtype=np.float64) * 2 - 1
    local = bits[None] * half_sizes[:, None]
    return centers[:, None] + np.einsum('mij,mkj->mki', rotations, local)
