"""Doctor. In: the infos of scenes. Out: by camera, mountings that change and ego poses that leave the ego's path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from projects.memfusion.data.poses import relative_pose

from .inputs import Info
from .pose_tools import Pose, Problems, add_problem, difference, global_from_lidar_of, matrix_of, pose_of, twist

_PATH_M, _PATH_DEG = 0.25, 0.75
_MAX_BRACKET_S = 0.6
_TURN_S = (0.02, 0.2)  # the gaps between keyframes alone do not tell


def check_drift(infos: Sequence[Info]) -> Problems:
    """Mountings and intrinsics that change within a scene, and ego poses at camera stamps that leave the ego's path."""
    problems: Problems = {}
    scenes: dict[str, list[Info]] = {}
    for info in infos:
        scenes.setdefault(str(info.get('scene_token', info.get('token', ''))), []).append(info)
    for members in scenes.values():
        first: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
        stamps, poses = ego_path(members)
        for info in members:
            for camera, image in info['images'].items():
                for key in ('cam2ego', 'cam2img'):
                    value = np.asarray(image.get(key, np.nan), dtype=np.float64)
                    start = first.setdefault((camera, key), value)
                    if value.shape != start.shape or np.abs(value - start).max() > 1e-3 * max(1.0, np.abs(start).max()):
                        add_problem(problems, camera, f'{key} changes within a scene')
                off = _off_path(info, image, stamps, poses)
                if off is not None and (off[0] > _PATH_DEG or off[1] > _PATH_M):
                    text = f'its ego pose is {off[1]:.2f} m and {off[0]:.2f} deg off the path of the LiDAR at its stamp'
                    add_problem(problems, camera, f'{text} ({off[2] * 1e3:.0f} ms at this speed)')
    return problems


def ego_path(infos: Sequence[Info]) -> tuple[npt.NDArray[np.float64], Pose]:
    """(K,) stamps and (K, 4, 4) global_from_lidar of a scene's frames and sweeps, in order of time."""
    known: dict[float, Pose] = {}
    for info in infos:
        for record in (info, *info.get('lidar_sweeps', [])):
            pose = global_from_lidar_of(record)
            if pose is not None and 'timestamp' in record:
                known[float(record['timestamp'])] = pose
    stamps = np.array(sorted(known))
    return stamps, np.array([known[stamp] for stamp in stamps]).reshape(-1, 4, 4)


def turn_seconds(stamps: npt.NDArray[np.float64]) -> float:
    """How long a turn of the LiDAR takes, by the (K,) stamps of a scene; 0 where no two follow each other closely."""
    gaps = np.diff(stamps)
    gaps = gaps[(gaps > _TURN_S[0]) & (gaps < _TURN_S[1])]
    return float(gaps.min()) if len(gaps) else 0.0


def velocity_at(stamp_s: float, stamps: npt.NDArray[np.float64], poses: Pose) -> npt.NDArray[np.float64]:
    """(6,) of the LiDAR in its own frame, m/s and rad/s, from the two nearest poses; 0 where there are none."""
    if len(stamps) < 2:
        return np.zeros(6)
    after = int(np.clip(np.searchsorted(stamps, stamp_s), 1, len(stamps) - 1))
    if stamps[after] - stamps[after - 1] > _MAX_BRACKET_S:
        return np.zeros(6)
    return twist(relative_pose(poses[after - 1], poses[after])) / (stamps[after] - stamps[after - 1])


def _off_path(info: Info, image: Mapping[str, Any], stamps: npt.NDArray[np.float64], poses: Pose,
              ) -> tuple[float, float, float] | None:
    """Angle (deg), distance (m) and that distance as seconds at this speed; None where the path does not reach."""
    ego_from_lidar, given = matrix_of(info['lidar_points'], 'lidar2ego'), matrix_of(image, 'ego2global')
    if ego_from_lidar is None or given is None or 'timestamp' not in image or len(stamps) < 2:
        return None
    stamp = float(image['timestamp'])
    after = int(np.searchsorted(stamps, stamp))
    if after in (0, len(stamps)) or stamps[after] - stamps[after - 1] > _MAX_BRACKET_S:
        return None
    before = poses[after - 1]
    length = stamps[after] - stamps[after - 1]
    whole = relative_pose(before, poses[after])
    step = twist(whole) * (stamp - stamps[after - 1]) / length
    angle, distance = difference(before @ pose_of(step) @ np.linalg.inv(ego_from_lidar), given)
    speed = float(np.linalg.norm(whole[:3, 3])) / length
    return angle, distance, distance / max(speed, 0.1)
