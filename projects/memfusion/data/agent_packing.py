"""Stage data: agents in a clip's own frames. In: tracks in the global frame, poses. Out: Agents of one scene."""

from __future__ import annotations

import numpy as np
import torch

from projects.memfusion.structures.agents import KINEMATICS, Agents

from .agent_tracks import AgentTracks, Floats
from .poses import Pose


def pack_agents(tracks: AgentTracks, lidar_from_global: Pose, bev_aug: Pose) -> Agents:
    """The agents of one scene.

    Args:
        tracks: A agents of one sample.
        lidar_from_global: (4, 4), of the clip's last frame.
        bev_aug: (4, 4), that frame's LiDAR coordinates to the augmented ones: a rotation times a scale, mirrored or not. Agent
            frames are mirrored and scaled with it, so that a left turn stays one on the picture, and `global_from_agent` undoes
            that.
    """
    factor = float(np.cbrt(np.linalg.det(bev_aug[:3, :3])))
    scale, mirror = abs(factor), np.sign(factor)
    stretch = scale * np.array([mirror, 1.0])
    count, length = tracks.history_valid.shape
    last_center, last_yaw = tracks.center[:, -1], tracks.yaw[:, -1]
    turn = np.pi / 2 - last_yaw  # the heading becomes +y
    history = _local(tracks.center[..., :2], last_center, turn) * stretch
    future = _local(tracks.future, last_center, turn) * stretch
    valid = tracks.history_valid
    kinematics = np.zeros((count, length, len(KINEMATICS)))
    moved = valid[:, 1:] & valid[:, :-1]
    kinematics[:, 1:, :2] = np.where(moved[..., None], np.diff(history, axis=1), 0.0)
    kinematics[..., 2:5] = tracks.motion * [scale, scale, mirror]
    heading = tracks.yaw - last_yaw[:, None]
    kinematics[..., 5], kinematics[..., 6], kinematics[..., 7] = mirror * np.sin(heading), np.cos(heading), 1.0
    global_from_agent = np.tile(np.eye(4), (count, 1, 1))
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    global_from_agent[:, :2, :2] = rotation / scale * [mirror, 1.0]
    global_from_agent[:, :3, 3] = last_center
    return Agents(
        valid=torch.ones(1, count, dtype=torch.bool),
        history_xy=_tensor(history * valid[..., None]),
        history_valid=_tensor(valid),
        kinematics=_tensor(kinematics * valid[..., None]),
        future_xy=_tensor(future * tracks.future_valid[..., None]),
        future_valid=_tensor(tracks.future_valid),
        boxes=_tensor(_boxes(tracks, bev_aug @ lidar_from_global, scale) * valid[..., None]),
        global_from_agent=_tensor(global_from_agent),
        tokens=(tracks.tokens,))


def _local(xy: Floats, origin: Floats, turn: Floats) -> Floats:
    """(A, K, 2) global points about each agent's origin, turned by its angle."""
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y = np.moveaxis(xy - origin[:, None, :2], -1, 0)
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _boxes(tracks: AgentTracks, bev_from_global: Pose, scale: float) -> Floats:
    """(A, H, 7) boxes as mmdet3d's, upright in the BEV frame as nuScenes' own annotations in LiDAR frames."""
    center = tracks.center @ bev_from_global[:3, :3].T + bev_from_global[:3, 3]
    heading = np.stack([np.cos(tracks.yaw), np.sin(tracks.yaw)], axis=-1) @ bev_from_global[:2, :2].T
    size = scale * tracks.size
    center[..., 2] -= size[..., 2] / 2
    return np.concatenate([center, size, np.arctan2(heading[..., 1], heading[..., 0])[..., None]], axis=-1)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))[None]
