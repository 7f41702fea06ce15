"""Doctor. In: matrices of infos. Out: their differences; problems filed by camera. Poses are (4, 4) float64 dst_from_src."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import RigidTransform, Rotation

Pose = npt.NDArray[np.float64]
Problems = dict[str, list[str]]
_ROTATION_OFF = 1e-2
_NUMBER = re.compile(r'[-+]?\d[\d.]*')


def matrix_of(image: Mapping[str, Any], key: str) -> Pose | None:
    """(4, 4) or None where the key is missing or is no rigid transform (that is reported by the structural check)."""
    value = np.asarray(image.get(key, np.nan), dtype=np.float64)
    if value.shape != (4, 4) or not np.isfinite(value).all():
        return None
    turn = value[:3, :3]
    return value if np.abs(turn @ turn.T - np.eye(3)).max() < _ROTATION_OFF and np.linalg.det(turn) > 0 else None


def difference(first: Pose, second: Pose) -> tuple[float, float]:
    """Angle in degrees and distance in metres between two (4, 4) poses."""
    turn = Rotation.from_matrix(first[:3, :3].T @ second[:3, :3])
    return float(np.degrees(turn.magnitude())), float(np.linalg.norm(first[:3, 3] - second[:3, 3]))


def twist(pose: Pose) -> npt.NDArray[np.float64]:
    """(6,) translation and rotation vector."""
    return np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_rotvec()])


def pose_of(twist: npt.NDArray[np.float64]) -> Pose:
    """(4, 4) of a (6,) translation and rotation vector."""
    return RigidTransform.from_components(twist[:3], Rotation.from_rotvec(twist[3:])).as_matrix()


def global_from_lidar_of(record: Mapping[str, Any]) -> Pose | None:
    """(4, 4) of a frame or sweep at its LiDAR stamp; None where the info file is not of this project."""
    return matrix_of(record, 'global_from_lidar')


def add_problem(problems: Problems, camera: str, text: str) -> None:
    """Files a sentence under a camera; sentences that differ in numbers only (other frames) are one problem."""
    found = problems.setdefault(camera, [])
    if not any(_NUMBER.sub('', text) == _NUMBER.sub('', known) for known in found):
        found.append(text)
