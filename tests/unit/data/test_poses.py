"""Unit: a part of a motion: on a circle by hand, without turning, and as what a wrong stamp does to a chain of poses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.geometry.calib_noise import whole_rig_noise
from projects.memfusion.data.poses import relative_pose, share_of_motion


def planar(x: float, y: float, yaw: float, z: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[:3, 3] = [x, y, z]
    return pose


def test_interpolation_on_a_circle_by_hand() -> None:
    # 10 m/s on a circle of radius 20 m: heading 0.5 t, starting at the origin along x; far from the global origin
    def truth(t: float) -> np.ndarray:
        return planar(1e5 + 20 * math.sin(0.5 * t), -2e5 + 20 * (1 - math.cos(0.5 * t)), 0.5 * t)

    motion = relative_pose(truth(0.0), truth(0.5))
    for t in (-0.3, 0.0, 0.2, 0.35, 0.5, 0.9):  # before, at, between, behind
        np.testing.assert_allclose(truth(0.0) @ share_of_motion(motion, t / 0.5), truth(t), atol=1e-9)


def test_interpolation_without_turning_and_bad_input() -> None:
    start, end = planar(0, 0, 0.2), planar(3, 4, 0.2, 5.0)
    np.testing.assert_allclose((start @ share_of_motion(relative_pose(start, end), 0.5))[:3, 3], [1.5, 2.0, 2.5], atol=1e-12)
    np.testing.assert_allclose(share_of_motion(np.eye(4), 0.5), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(share_of_motion(planar(1.0, 0, 1e-6), 0.5), planar(0.5, -1.25e-7, 5e-7), atol=1e-10)
    with pytest.raises(ValueError, match='too far'):
        share_of_motion(planar(0, 0, 3.1), 0.5)


def test_a_wrong_stamp_is_the_chain_with_another_ego_pose() -> None:
    """Against the chain through the global frame, with the ego's pose looked up at the wrong time."""
    def global_from_ego(t: float) -> np.ndarray:
        return planar(1e3 + 30 * math.sin(0.5 * t), 30 * (1 - math.cos(0.5 * t)), 0.5 * t)

    ego_from_lidar = planar(0.9, 0.0, -1.57, 1.8)
    ego_from_cam = planar(1.7, 0.1, 0.0, 1.5) @ np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    t_lidar, t_cam = 0.1, 0.06

    def chain(t: float) -> np.ndarray:
        return relative_pose(global_from_ego(t) @ ego_from_cam, global_from_ego(t_lidar) @ ego_from_lidar)

    motion = relative_pose(global_from_ego(0.0) @ ego_from_lidar, global_from_ego(0.5) @ ego_from_lidar)
    for dt in (0.05, -0.05):
        noise = whole_rig_noise(torch.from_numpy(share_of_motion(motion, -dt / 0.5)), torch.from_numpy(chain(t_cam))[None])
        np.testing.assert_allclose(noise[0] @ chain(t_cam), chain(t_cam + dt), atol=1e-8)  # 1e3 m away
        assert np.abs(chain(t_cam + dt) - chain(t_cam)).max() > 0.5  # 15 m/s for 50 ms
