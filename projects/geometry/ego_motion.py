"""Geometry, pure functions: the sensor's own motion between two frames. Metres, seconds, radians."""

from __future__ import annotations

import torch
from torch import Tensor

from .rigid import invert_rigid


def ego_motion(global_from_prev: Tensor, global_from_cur: Tensor, bev_from_cur: Tensor, time_gap_s: Tensor) -> Tensor:
    """The sensor's own motion over the last gap, in the axes of the current (augmented) BEV frame.

    Args:
        global_from_prev, global_from_cur: (B, 4, 4) float64 poses of the raw LiDAR frame, metres.
        bev_from_cur: (B, 4, 4) float64 raw to augmented LiDAR frame.
        time_gap_s: (B,) float64, positive.

    Returns:
        (B, 3) vx, vy in m/s and yaw rate in rad/s, counter-clockwise positive.
    """
    cur_from_prev = invert_rigid(global_from_cur) @ global_from_prev
    moved = -(cur_from_prev[:, :3, 3:])  # where the sensor is now, less where it was, in the current raw frame
    velocity = (bev_from_cur[:, :3, :3] @ moved)[:, :2, 0]
    turned = -torch.atan2(cur_from_prev[:, 1, 0], cur_from_prev[:, 0, 0])
    mirrored = (bev_from_cur[:, 0, 0] * bev_from_cur[:, 1, 1] - bev_from_cur[:, 0, 1] * bev_from_cur[:, 1, 0]).sign()
    return torch.cat([velocity, (turned * mirrored)[:, None]], dim=1) / time_gap_s[:, None]
