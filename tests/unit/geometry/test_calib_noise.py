"""Unit: calibration noise is as large as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.geometry.calib_noise import (
    fixed_rotation_noise,
    measure_noise,
    sample_rigid_noise,
    whole_rig_noise,
)
from projects.geometry.rigid import check_rigid


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planar(x: float, y: float, yaw: float, z: float = 0.0) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]],
                                dtype=torch.float64)
    pose[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return pose


def angle_by_arccos(matrix: np.ndarray) -> float:
    return math.degrees(math.acos((np.trace(matrix[:3, :3]) - 1) / 2))


@pytest.mark.parametrize('axis', [(0, 1, 0), (1, 0, 0), (0, 0, 1), (1, -2, 3)])
def test_one_degree_measures_one_degree(axis: tuple) -> None:
    noise = fixed_rotation_noise([float(v) for v in axis], 1.0, (0.03, 0.0, -0.04))
    angle_deg, shift_m = measure_noise(noise)
    assert abs(float(angle_deg) - 1.0) < 1e-9 and abs(float(shift_m) - 0.05) < 1e-12
    assert abs(np.linalg.det(noise[:3, :3].numpy()) - 1) < 1e-12
    assert abs(angle_by_arccos(noise.numpy()) - 1.0) < 1e-9
    # and after a float32 round trip, as Calibration keeps it
    assert abs(float(measure_noise(noise.float())[0]) - 1.000) < 1e-4


def test_yaw_by_hand() -> None:
    # about the camera's y axis, which points down: ahead (z) turns to the right (x)
    turned = fixed_rotation_noise((0.0, 1.0, 0.0), 30.0)[:3, :3] @ torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(turned, [1.0, 0.0, math.sqrt(3)], atol=1e-12)


def test_sampled_noise_has_the_stated_size() -> None:
    noise = sample_rigid_noise((40000,), 0.5, 0.03, generator())
    check_rigid(noise, 'noise', 1e-9)
    angle_deg, _ = measure_noise(noise)
    # |N(0, s)|: mean s sqrt(2 / pi), root mean square s
    assert abs(angle_deg.square().mean().sqrt() - 0.5) < 0.01
    assert abs(angle_deg.mean() - 0.5 * math.sqrt(2 / math.pi)) < 0.01
    shift = noise[:, :3, 3]
    np.testing.assert_allclose(shift.std(0), [0.03] * 3, atol=1e-3)
    np.testing.assert_allclose(shift.mean(0), [0.0] * 3, atol=1e-3)
    odd = noise[:, :3, :3] - noise[:, :3, :3].transpose(1, 2)
    axis = torch.stack([odd[:, 2, 1], odd[:, 0, 2], odd[:, 1, 0]], -1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    # uniform on the sphere: each coordinate is uniform on -1..1 (Archimedes), mean 0, variance 1/3
    np.testing.assert_allclose(axis.mean(0), [0.0] * 3, atol=0.015)
    np.testing.assert_allclose(torch.cov(axis.T), np.eye(3) / 3, atol=0.01)
    for column in axis.T:
        np.testing.assert_allclose(column.sort().values[::4000], np.linspace(-1, 1, 11)[:-1], atol=0.03)


def test_draws_are_repeatable_and_zero_is_the_identity() -> None:
    first, second = (sample_rigid_noise((2, 6), 0.5, 0.03, generator(7)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (2, 6, 4, 4) and len(first.flatten(0, 1).unique(dim=0)) == 12
    assert torch.equal(sample_rigid_noise((3,), 0.0, 0.0, generator()), torch.eye(4, dtype=torch.float64).repeat(3, 1, 1))
    twice = sample_rigid_noise((2, 6), 1.0, 0.06, generator(7))
    np.testing.assert_allclose(measure_noise(twice)[0], 2 * measure_noise(first)[0], rtol=1e-9)
    with pytest.raises(ValueError, match='rotation_deg=-1'):
        sample_rigid_noise((2,), -1, 0.0, generator())
    with pytest.raises(ValueError, match='length 0'):
        fixed_rotation_noise((0.0, 0.0, 0.0), 1.0)


def test_whole_rig_noise_moves_the_lidar() -> None:
    cam_from_lidar = torch.stack([planar(1, 2, 0.3), planar(-1, 0.5, 2.0)])
    error = fixed_rotation_noise((0.0, 0.0, 1.0), 2.0, (0.1, 0.2, 0.3))
    noise = whole_rig_noise(error, cam_from_lidar)
    for index in range(2):
        np.testing.assert_allclose(noise[index] @ cam_from_lidar[index], cam_from_lidar[index] @ error, atol=1e-12)
    np.testing.assert_allclose(measure_noise(noise)[0], [2.0, 2.0], atol=1e-9)


def test_check_rigid_takes_the_determinant_seriously() -> None:
    def stretched(scale: float) -> torch.Tensor:
        return torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))

    check_rigid(stretched(1.00001), 'fine')
    for scale in (1.0001, 0.9999):  # determinant off by 3e-4
        with pytest.raises(ValueError, match='pose of x.*determinant'):
            check_rigid(stretched(scale), 'pose of x')
