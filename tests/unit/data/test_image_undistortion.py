"""Unit: OpenCV's maps and images against our own lens models and torch's sampling, and where a lens model ends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.geometry.distortion import distort, parse_distortion
from projects.geometry.undistortion import undistorted_intrinsics
from projects.memfusion.data.image_undistortion import undistort_image, undistortion_maps

LENSES = [
    ('pinhole', ()), ('radtan', (-0.12, 0.03, 0.0006, -0.0004, -0.002)), ('radtan', (-0.32, 0.11, 0.001, -0.0007)),
    ('radtan', (0.15, 0.05, -0.001, 0.0005, 0.01)), ('fisheye', (-0.03, 0.008, -0.004, 0.0006)),
    ('fisheye', (0.1, -0.02, 0.003, 0.0))]
HW = (225, 400)
K = torch.tensor([[316.0, 1.5, 204.0], [0, 312.0, 122.0], [0, 0, 1.0]], dtype=torch.float64)


def lens(model: str, coefficients: tuple) -> tuple[torch.Tensor, torch.Tensor, float]:
    code, padded, max_radius = parse_distortion(model, coefficients, 'CAM')
    return torch.tensor(code), torch.tensor(padded, dtype=torch.float64), max_radius


@pytest.mark.parametrize('model, coefficients', LENSES)
def test_maps_and_images_are_those_of_our_lens_models(model: str, coefficients: tuple) -> None:
    code, terms, _ = lens(model, coefficients)
    new = undistorted_intrinsics(K, code, terms, HW)
    maps = np.stack(undistortion_maps(K, code, terms, new, HW), -1)
    v, u = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in HW), indexing='ij')
    rays = (torch.stack([u, v], -1) - new[:2, 2]).flatten(0, 1) @ torch.linalg.inv(new[:2, :2]).T
    uv_px = (distort(rays, code, terms) @ K[:2, :2].T + K[:2, 2]).unflatten(0, HW)
    assert np.abs(maps - uv_px.numpy()).max() < 1e-4
    assert ((maps >= -0.5) & (maps <= [HW[1] - 0.5, HW[0] - 0.5])).all()  # every pixel was seen
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8), (7, 7), 2)
    size = torch.tensor([HW[1], HW[0]], dtype=torch.float64)
    grid = ((2 * uv_px + 1) / size - 1).float()[None]
    expected = F.grid_sample(torch.from_numpy(image).permute(2, 0, 1)[None].float(), grid, align_corners=False)[0]
    found = undistort_image(image, K, code, terms, new)
    assert np.abs(found - expected.permute(1, 2, 0).numpy()).max() <= 2.5  # OpenCV rounds positions to 1/32 px
    assert found.dtype == np.uint8 and found.flags.c_contiguous and found.std() > 10
    np.testing.assert_array_equal(undistort_image(np.ascontiguousarray(image[..., 0]), K, code, terms, new), found[..., 0])


def test_pixels_beyond_the_lens_model_stay_black() -> None:
    code, terms, max_radius = lens('fisheye', (-1 / 3, 0.0, 0.0, 0.0))
    matrix = np.array([[100.0, 0, 199.5], [0, 100.0, 99.5], [0, 0, 1.0]])
    image = undistort_image(np.full((200, 400), 200, np.uint8), torch.tensor(matrix), code, terms, torch.tensor(matrix))
    radius = np.hypot(np.arange(400) - 199.5, 0.5) / 100
    np.testing.assert_array_equal(image[99] > 0, radius < max_radius)  # else the rim would be seen a second time, mirrored
