"""Unit: projection and lens models against hand answers and OpenCV."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from projects.geometry.distortion import parse_distortion
from projects.geometry.projection import apply_homography, clip_segments, inside_image, project_to_image

K = np.array([[1266.4, 0.0, 816.3], [0.0, 1250.1, 491.5], [0.0, 0.0, 1.0]])
RADTAN = (-0.12, 0.03, 0.0006, -0.0004, -0.002)
FISHEYE = (-0.03, 0.008, -0.004, 0.0006)


def project(points: np.ndarray, matrix: np.ndarray = K, model: str = 'pinhole', coefficients: tuple = (),
            dtype: torch.dtype = torch.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    code, padded, max_radius = parse_distortion(model, coefficients, 'CAM')
    img_from_cam = torch.eye(4, dtype=dtype)
    img_from_cam[:3, :3] = torch.as_tensor(matrix)
    uv, depth, has_pixel = project_to_image(
        torch.as_tensor(points, dtype=dtype), img_from_cam, torch.tensor(code), torch.tensor(padded, dtype=dtype),
        torch.tensor(max_radius, dtype=dtype))
    return uv.numpy(), depth.numpy(), has_pixel.numpy()


def cloud(num: int = 500) -> np.ndarray:
    rng = np.random.default_rng(3)
    depth = rng.uniform(1.0, 60.0, num)
    return np.stack([rng.uniform(-0.7, 0.7, num) * depth, rng.uniform(-0.45, 0.45, num) * depth, depth], axis=1)


def test_3_4_5_by_hand() -> None:
    # 3 m right and 4 m down at 5 m depth, f = 100: 60 and 80 px from the centre
    matrix = np.array([[100.0, 0, 320.0], [0, 100.0, 240.0], [0, 0, 1.0]])
    uv, depth, has_pixel = project(np.array([[3.0, 4.0, 5.0]]), matrix)
    np.testing.assert_allclose(uv, [[380.0, 320.0]], atol=1e-4)
    assert depth == [5.0] and has_pixel.all()


@pytest.mark.parametrize('coefficients', [RADTAN, RADTAN[:4]])
def test_radtan_equals_opencv(coefficients: tuple) -> None:
    points = cloud()
    uv, _, has_pixel = project(points, model='radtan', coefficients=coefficients)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(coefficients))[0][:, 0]
    assert has_pixel.all()
    assert np.abs(uv - expected).max() < 2.5e-3  # float32 has steps of 1.2e-4 px here


def test_fisheye_equals_opencv() -> None:
    points = cloud()
    uv, _, has_pixel = project(points, model='fisheye', coefficients=FISHEYE)
    expected = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), K, np.array(FISHEYE))[0][:, 0]
    assert has_pixel.all()
    assert np.abs(uv - expected).max() < 2.5e-3  # float32 has steps of 1.2e-4 px here


def test_models_may_differ_within_a_rig() -> None:
    points = torch.as_tensor(cloud(50)).float()
    lenses = [parse_distortion(*lens, 'CAM') for lens in (('pinhole', ()), ('radtan', RADTAN), ('fisheye', FISHEYE))]
    img_from_cam = torch.eye(4)
    img_from_cam[:3, :3] = torch.as_tensor(K)
    uv, _, _ = project_to_image(
        points.expand(2, 3, 50, 3), img_from_cam.expand(2, 3, 4, 4),
        torch.tensor([lens[0] for lens in lenses]).expand(2, 3),
        torch.tensor([lens[1] for lens in lenses]).expand(2, 3, 5),
        torch.tensor([lens[2] for lens in lenses]).expand(2, 3))
    for index, lens in enumerate((('pinhole', ()), ('radtan', RADTAN), ('fisheye', FISHEYE))):
        alone = project(points.numpy(), K, *lens)[0]
        assert np.abs(uv[:, index].numpy() - alone).max() < 1e-4


@pytest.mark.parametrize('model, coefficients', [('pinhole', ()), ('radtan', RADTAN), ('fisheye', FISHEYE)])
def test_nothing_behind_and_finite_gradients(model: str, coefficients: tuple) -> None:
    points = torch.tensor([[1.0, 1.0, -5.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1e-30], [0.0, 0.0, 7.0]], requires_grad=True)
    code, padded, max_radius = parse_distortion(model, coefficients, 'CAM')
    uv, _, has_pixel = project_to_image(points, torch.eye(4), torch.tensor(code), torch.tensor(padded),
                                        torch.tensor(max_radius))
    assert has_pixel.tolist() == [False, False, False, True]
    assert torch.isfinite(uv).all()
    uv.sum().backward()
    assert torch.isfinite(points.grad).all()
    np.testing.assert_allclose(points.grad[3, :2], [1 / 7, 1 / 7], rtol=1e-6)  # on the axis every lens has scale 1


def test_points_beyond_the_lens_model_have_no_pixel() -> None:
    # k1 = -0.12 alone: r (1 - 0.12 r^2) grows until r = sqrt(1 / 0.36) = 5/3, and comes back into the image after it
    max_radius = parse_distortion('radtan', (-0.12, 0, 0, 0, 0), 'CAM')[2]
    assert max_radius == pytest.approx(5 / 3, abs=1e-9)
    points = np.array([[1.6, 0.0, 1.0], [1.7, 0.0, 1.0], [2.8, 0.0, 1.0]])
    assert project(points, model='radtan', coefficients=(-0.12, 0, 0, 0, 0))[2].tolist() == [True, False, False]
    # theta (1 - theta^2 / 3) grows until 1 rad
    assert parse_distortion('fisheye', (-1 / 3, 0, 0, 0), 'CAM')[2] == pytest.approx(math.tan(1.0), abs=1e-9)
    assert parse_distortion('fisheye', (0.1, 0, 0, 0), 'CAM')[2] == math.inf


@pytest.mark.parametrize('model, coefficients, word', [
    ('brown', (0.1,), 'brown'), ('radtan', (0.1, 0.2, 0.3), 'takes 5'), ('fisheye', (0.1,) * 5, 'takes 4'),
    ('radtan', (math.nan, 0, 0, 0, 0), 'finite')])
def test_bad_lens_names_the_camera(model: str, coefficients: tuple, word: str) -> None:
    with pytest.raises(ValueError, match=f'CAM_BACK.*{word}'):
        parse_distortion(model, coefficients, 'CAM_BACK')


def test_segments_are_cut_at_the_near_plane() -> None:
    start = torch.tensor([[0.0, 0, -3.0], [0, 0, 2.0], [0, 0, -1.0], [5.0, 0, 4.0]])
    end = torch.tensor([[4.0, 8.0, 1.0], [1, 1, 3.0], [9, 9, -2.0], [1.0, 4.0, -4.0]])
    new_start, new_end, keep = clip_segments(start, end, near_m=0.5)
    assert keep.tolist() == [True, True, False, True]
    # from z=-3 to z=1 the plane z=0.5 lies 7/8 along
    np.testing.assert_allclose(new_start[0], [3.5, 7.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(new_end[0], end[0])
    np.testing.assert_allclose(new_start[1], start[1])
    # from z=4 to z=-4: 3.5/8 along
    np.testing.assert_allclose(new_end[3], [5 - 4 * 0.4375, 4 * 0.4375, 0.5], atol=1e-6)


def test_inside_image_and_homography() -> None:
    uv = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [1599.4, 899.4], [1599.5, 10.0], [10.0, 899.6]])
    assert inside_image(uv, torch.tensor([900, 1600])).tolist() == [True, False, True, False, False]
    half = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0]))
    half[:2, 2] = torch.tensor([-10.0, 3.0])  # the translation acts on depth: column 2
    np.testing.assert_allclose(apply_homography(half, torch.tensor([[100.0, 40.0]])), [[40.0, 23.0]])
