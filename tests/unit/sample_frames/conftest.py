"""Small videos made by hand: 12 frames whose grey says their number."""

from __future__ import annotations

import cv2
import numpy as np
import pytest


def grey_of(frame):
    return 20 * frame


@pytest.fixture
def make_video(tmp_path):
    """make_video(name, frames): an MJPG video of 48 x 32 pixels."""
    def make(name='walk.avi', frames=12):
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (48, 32))
        for frame in range(frames):
            writer.write(np.full((32, 48, 3), grey_of(frame), np.uint8))
        writer.release()
        return path
    return make


@pytest.fixture
def geometry():
    """Arrays of a geometry file of 12 frames: each sees 4 points, of which the next frame sees 2."""
    points = np.array([[[2 * frame + point, point, 0.5] for point in range(4)] for frame in range(12)], np.float32)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(12)
    return dict(world_points=points[:, None], world_from_cam=poses)
