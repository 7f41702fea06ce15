"""Stage data: rigid poses as float64 4x4 numpy matrices (column vectors), from quaternions to relative poses.

Everything here stays in float64: nuScenes' global coordinates are thousands of metres, where float32 steps by 0.1 mm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pyquaternion import Quaternion
from scipy.spatial.transform import RigidTransform

Pose = npt.NDArray[np.float64]
MAX_TURN_RAD = 3.0
"""Poses turned further against each other than this have no unambiguous motion between them."""


def rigid_matrix(rotation_wxyz: Sequence[float], translation_m: Sequence[float]) -> Pose:
    """(4, 4) `dst_from_src` from a w-first quaternion and a translation in metres, as nuScenes' tables store them."""
    dst_from_src = np.eye(4)
    dst_from_src[:3, :3] = Quaternion(rotation_wxyz).rotation_matrix
    dst_from_src[:3, 3] = translation_m
    return dst_from_src


def record_matrix(record: Mapping[str, Any]) -> Pose:
    """(4, 4) pose of an `ego_pose` record (global_from_ego) or a `calibrated_sensor` record (ego_from_sensor)."""
    return rigid_matrix(record['rotation'], record['translation'])


def relative_pose(global_from_dst: npt.ArrayLike, global_from_src: npt.ArrayLike) -> Pose:
    """(4, 4) `dst_from_src` of two frames whose poses in a common frame are known.

    The translations are subtracted before anything is rotated, so that large global coordinates cancel exactly.
    """
    dst, src = np.asarray(global_from_dst, np.float64), np.asarray(global_from_src, np.float64)
    dst_from_src = np.eye(4)
    dst_from_src[:3, :3] = dst[:3, :3].T @ src[:3, :3]
    dst_from_src[:3, 3] = dst[:3, :3].T @ (src[:3, 3] - dst[:3, 3])
    return dst_from_src


def share_of_motion(dst_from_src: npt.ArrayLike, share: float) -> Pose:
    """(4, 4): how far a body is on its way from src to dst that moves with one constant twist (a screw motion).

    Args:
        dst_from_src: (4, 4) rigid.
        share: 0 is the identity, 1 dst_from_src; any other number goes on, or back.

    Raises:
        ValueError: for poses turned by more than MAX_TURN_RAD.
    """
    motion = RigidTransform.from_matrix(np.asarray(dst_from_src, np.float64))
    turn_rad = float(motion.rotation.magnitude())
    if turn_rad > MAX_TURN_RAD:
        raise ValueError(f'poses are turned by {turn_rad:.2f} rad against each other: too far to tell the motion between them')
    return RigidTransform.from_exp_coords(motion.as_exp_coords() * share).as_matrix()
