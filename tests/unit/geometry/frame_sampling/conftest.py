"""A made room of 8 x 6 x 3 m with a camera that walks and looks around, and walks past overlapping sets of voxels."""

from __future__ import annotations

import numpy as np
import pytest

from projects.geometry.frame_sampling import DepthMaps, Video, VoxelSets

ROOM_M = np.array([8.0, 6.0, 3.0])


def walk_through_room(num_frames, height=14, width=18):
    """Poses (T, 4, 4), intrinsics (3, 3) and depth (T, h, w) of a camera that walks an ellipse and turns its head."""
    turn = np.linspace(0, 2 * np.pi, num_frames)
    centre = np.stack([4 + 2.4 * np.cos(turn), 3 + 1.6 * np.sin(turn), 1.5 + 0.1 * np.sin(5 * turn)], axis=1)
    yaw, pitch = 3 * turn + 0.6 * np.sin(7 * turn), 0.3 * np.sin(3 * turn)
    ahead = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1)
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    poses[:, :3] = np.stack([right, np.cross(ahead, right), ahead, centre], axis=2)
    focal = width / 2 / np.tan(np.radians(35))
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    v, u = np.mgrid[:height, :width].astype(float)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T
    rays = np.einsum('tij,hwj->thwi', poses[:, :3, :3], rays)
    with np.errstate(divide='ignore'):
        walls = np.where(rays > 0, ROOM_M - centre[:, None, None], -centre[:, None, None]) / rays
    return poses, intrinsics, np.where(np.isfinite(walls), walls, np.inf).min(axis=-1)


@pytest.fixture(scope='session')
def room():
    """The walk as a Video of 400 frames, seen by depth, voxels of 0.5 m."""
    poses, intrinsics, depth = walk_through_room(400)
    return Video(400, 'room', np.arange(400) / 30, poses, DepthMaps(depth, intrinsics, poses, voxel_m=0.5))


@pytest.fixture(scope='session')
def keys_to_sets():
    """keys_to_sets([{0, 2}, {1}]): VoxelSets of numbered voxels in a row."""
    def make(numbers):
        return VoxelSets.of_keys([np.array([[number, 0, 0] for number in own], int).reshape(-1, 3) for own in numbers],
                                 np.zeros(3), 1.0)
    return make
