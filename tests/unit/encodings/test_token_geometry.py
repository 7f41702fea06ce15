"""Unit: what tokens are told about where they look, by hand numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.encodings.token_geometry import TokenGeometry
from projects.memfusion.structures import Calibration


def camera(yaw: float, offset_m=(0.0, 0.0, 0.0)) -> dict:
    """A level camera of the info that looks along `yaw` (radians) from `offset_m`; f = 48, 64 x 96 pixels."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    matrix = np.eye(4)
    matrix[:3, :3] = [[sin, -cos, 0], [0, 0, -1], [cos, sin, 0]]
    matrix[:3, 3] = -matrix[:3, :3] @ np.array(offset_m)
    return dict(cam2img=[[48.0, 0, 47.5], [0, 48.0, 31.5], [0, 0, 1]], lidar2cam=matrix, height=64, width=96)


def numbers(kind: str, calibration: Calibration, uv_px=(47.5, 31.5), **settings) -> torch.Tensor:
    uv = torch.tensor(uv_px).expand(*calibration.cam_valid.shape, 1, 2)
    return TokenGeometry(4, kind, scale_m=10.0, **settings).numbers(uv, calibration.views())[0, 0, 0]


def test_geometry_in_numbers():
    # At (2, 1, 3), looks along +y; 36 px right of the centre at f = 48 is 3 right for 4 ahead: direction (0.6, 0.8, 0).
    one = Calibration.from_info(dict(A=camera(math.pi / 2, (2.0, 1.0, 3.0))))
    right = (47.5 + 36, 31.5)
    torch.testing.assert_close(numbers('ray', one, right), torch.tensor([0.2, 0.1, 0.3, 0.6, 0.8, 0.0]), atol=1e-6, rtol=0)
    # moment: (0.2, 0.1, 0.3) x (0.6, 0.8, 0) = (-0.24, 0.18, 0.10)
    line = numbers('pluecker', one, right)
    torch.testing.assert_close(line, torch.tensor([0.6, 0.8, 0.0, -0.24, 0.18, 0.10]), atol=1e-6, rtol=0)
    torch.testing.assert_close(numbers('yaw_pitch', one, right), torch.tensor([0.6, 0.8, 0.0, 1.0]), atol=1e-6, rtol=0)
    down = numbers('yaw_pitch', one, (47.5, 31.5 + 48))  # 45 degrees down
    torch.testing.assert_close(down, torch.tensor([0.0, 1.0, -math.sqrt(0.5), math.sqrt(0.5)]), atol=1e-6, rtol=0)
    frustum = numbers('frustum', one, right, depths_m=(4.0, 8.0))  # 3 right and 4 ahead of (2, 1, 3), and twice that
    torch.testing.assert_close(frustum, torch.tensor([0.5, 0.5, 0.3, 0.8, 0.9, 0.3]), atol=1e-6, rtol=0)


def test_geometry_follows_the_augmented_rig():
    aug = np.eye(4)
    aug[:2, :2] = [[0, -1], [1, 0]]  # a quarter turn
    aug[:3, 3] = [0, 0, 0.5]
    one = Calibration.from_info(dict(A=camera(0.0, (2.0, 0.0, 1.0))), bev_aug=aug)
    torch.testing.assert_close(numbers('ray', one), torch.tensor([0.0, 0.2, 0.15, 0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_camera_id_goes_by_name():
    layer = TokenGeometry(3, 'camera_id', cam_names=('B', 'A'))
    calibration = Calibration.from_info(dict(A=camera(0.0), B=camera(1.0)))
    encoded = layer(torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 2), torch.tensor([[[True], [False]]]), calibration.views())
    torch.testing.assert_close(encoded[0, 0, 0], layer.identity.weight[1])
    assert encoded[0, 1].abs().max() == 0
    for names in ((), ('A', 'A')):
        with pytest.raises(ValueError, match='cam_names'):
            TokenGeometry(3, 'camera_id', cam_names=names)


def test_pixels_are_places_in_the_own_image():
    """From the border, -1, to the border, 1, whatever the images of a batch are padded to."""
    rig = Calibration.from_matrices(torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4),
                                    torch.tensor([[[40, 80], [20, 40]]]))
    uv_px = torch.tensor([[-0.5, -0.5], [39.5, 19.5], [9.5, 4.5]]).expand(1, 2, 3, 2)
    numbers = TokenGeometry(4, 'pixel').numbers(uv_px, rig.views())
    assert numbers[0].tolist() == [[[-1.0, -1.0], [0.0, 0.0], [-0.75, -0.75]], [[-1.0, -1.0], [1.0, 1.0], [-0.5, -0.5]]]
