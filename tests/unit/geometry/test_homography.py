"""Unit: image augmentation as matrices, against hand answers and against what OpenCV and numpy do to an image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from projects.geometry.homography import (
    crop_homography,
    flip_homography,
    resize_homography,
    rotation_homography,
)
from projects.geometry.projection import apply_homography


def move(homography: torch.Tensor, *uv: float) -> list[float]:
    return apply_homography(homography, torch.tensor([uv], dtype=torch.float64))[0].tolist()


def dot_image(uv: tuple[float, float], hw: tuple[int, int]) -> np.ndarray:
    v, u = np.mgrid[:hw[0], :hw[1]]
    return np.exp(-((u - uv[0]) ** 2 + (v - uv[1]) ** 2) / (2 * 3.0 ** 2))


def centroid(image: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[:image.shape[0], :image.shape[1]]
    return np.array([(image * u).sum(), (image * v).sum()]) / image.sum()


def test_hand_answers() -> None:
    # 450 rows made 253: the true ratio, and the outer edges (half a pixel outside) stay the outer edges
    resize = resize_homography((450, 800), (253, 400))
    np.testing.assert_allclose(move(resize, -0.5, -0.5), [-0.5, -0.5], atol=1e-12)
    np.testing.assert_allclose(move(resize, 799.5, 449.5), [399.5, 252.5], atol=1e-12)
    np.testing.assert_allclose(move(resize, 100, 100), [100.5 * 0.5 - 0.5, 100.5 * 253 / 450 - 0.5], atol=1e-12)
    assert move(crop_homography(30, 40), 33, 44) == [3.0, 4.0]
    assert move(flip_homography(1600), 0, 7) == [1599.0, 7.0]
    # 90 degrees, counter-clockwise to the eye: what is right of the centre comes to lie above it
    np.testing.assert_allclose(move(rotation_homography(90.0, (101, 201)), 130.0, 50.0), [100.0, 20.0], atol=1e-12)


def test_all_are_padded_float64() -> None:
    for matrix in (resize_homography((4, 5), (3, 2)), crop_homography(1, 2), flip_homography(9),
                   rotation_homography(3.0, (4, 5))):
        assert matrix.shape == (4, 4) and matrix.dtype == torch.float64
        np.testing.assert_array_equal(matrix[:, 3], [0, 0, 0, 1])
        np.testing.assert_array_equal(matrix[2:, :3], [[0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize('angle', [-5.4, 5.4, 30.0])
def test_rotation_is_opencvs(angle: float) -> None:
    expected = cv2.getRotationMatrix2D((799.5, 449.5), angle, 1.0)
    np.testing.assert_allclose(rotation_homography(angle, (900, 1600))[:2, :3], expected, atol=1e-9)
    image = cv2.warpAffine(dot_image((90.0, 40.0), (121, 161)), rotation_homography(angle, (121, 161))[:2, :3].numpy(),
                           (161, 121))
    assert np.abs(centroid(image) - move(rotation_homography(angle, (121, 161)), 90.0, 40.0)).max() < 0.02


def test_chain_moves_what_the_image_shows() -> None:
    image = dot_image((61.3, 47.8), (120, 160))
    image = cv2.resize(image, (101, 67))
    image = image[5:, 11:]
    image = image[:, ::-1]
    chain = flip_homography(90) @ crop_homography(11, 5) @ resize_homography((120, 160), (67, 101))
    assert np.abs(centroid(image) - move(chain, 61.3, 47.8)).max() < 0.03
    back = torch.linalg.inv(chain)
    np.testing.assert_allclose(move(back, *move(chain, 61.3, 47.8)), [61.3, 47.8], atol=1e-10)


def test_bad_size_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'\(0, 5\)'):
        resize_homography((4, 5), (0, 5))
