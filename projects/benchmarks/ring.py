"""Benchmark. In: how many cameras. Out: a level rig all around the LiDAR, which is what fusion and its checks are timed on."""

from __future__ import annotations

import math

import numpy as np

from projects.memfusion.structures import Calibration


def ring(cameras: int, image_hw: tuple[int, int], focal_px: float, center_px: tuple[float, float],
         turned_rad: float = 0.0) -> Calibration:
    """One frame of `cameras` pinholes at the LiDAR's origin, evenly spread.

    Args:
        cameras: how many.
        image_hw: height and width of their images.
        focal_px: of all of them.
        center_px: principal point, u and v.
        turned_rad: heading of the first one, from the LiDAR's x axis.
    """
    info = {}
    for i in range(cameras):
        yaw = 2 * math.pi * i / cameras + turned_rad
        cam_from_lidar = np.eye(4)
        cam_from_lidar[:3, :3] = [[math.sin(yaw), -math.cos(yaw), 0], [0, 0, -1], [math.cos(yaw), math.sin(yaw), 0]]
        info[f'CAM_{i}'] = dict(cam2img=[[focal_px, 0, center_px[0]], [0, focal_px, center_px[1]], [0, 0, 1]],
                                height=image_hw[0], width=image_hw[1], lidar2cam=cam_from_lidar)
    return Calibration.from_info(info)
