"""Unit: lens models backwards: inverse of distort, intrinsics as OpenCV's, gradients against finite differences."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from projects.geometry.distortion import distort, max_radius_of, parse_distortion
from projects.geometry.undistortion import undistort_points, undistorted_intrinsics

K = np.array([[1266.4, 0.0, 816.3], [0.0, 1250.1, 491.5], [0.0, 0.0, 1.0]])
HW = (900, 1600)
LENSES = [
    ('pinhole', ()), ('radtan', (-0.12, 0.03, 0.0006, -0.0004, -0.002)), ('radtan', (-0.32, 0.11, 0.001, -0.0007)),
    ('radtan', (0.15, 0.05, -0.001, 0.0005, 0.01)), ('fisheye', (-0.03, 0.008, -0.004, 0.0006)),
    ('fisheye', (0.1, -0.02, 0.003, 0.0)), ('fisheye', (-1 / 3, 0.0, 0.0, 0.0))]


def lens(model: str, coefficients: tuple) -> tuple[torch.Tensor, torch.Tensor, float]:
    code, padded, max_radius = parse_distortion(model, coefficients, 'CAM')
    return torch.tensor(code), torch.tensor(padded, dtype=torch.float64), max_radius


@pytest.mark.parametrize('model, coefficients', LENSES)
# Half a step of float32 is 6e-8 at 1, and what the lens squeezes is stretched again: 4e-7.
@pytest.mark.parametrize('dtype, part, tolerance', [(torch.float64, 0.97, 1e-9), (torch.float32, 0.8, 4e-6)])
def test_inverts_distort(model: str, coefficients: tuple, dtype: torch.dtype, part: float, tolerance: float) -> None:
    code, terms, max_radius = lens(model, coefficients)
    # nearly out to where the lens model ends, at which float32's own rounding is magnified; 56 degrees where it never ends
    reach = min(1.5, part * max_radius)
    generator = torch.Generator().manual_seed(1)
    angle, radius = 2 * math.pi * torch.rand(3000, generator=generator), reach * torch.rand(3000, generator=generator)
    xy = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).double()
    xy[0] = 0.0
    result = undistort_points(distort(xy, code, terms).to(dtype), code, terms)
    assert result.dtype == dtype
    assert (result - xy).abs().max() < tolerance


def test_models_differ_within_a_rig() -> None:
    codes, terms = (torch.stack(column).expand(2, len(LENSES), *column[0].shape)
                    for column in list(zip(*(lens(*each) for each in LENSES)))[:2])
    xy = (torch.rand(2, len(LENSES), 40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5) * 1.2
    together = undistort_points(distort(xy, codes, terms), codes, terms)
    assert (together - xy).abs().max() < 1e-9
    assert max_radius_of(codes, terms).shape == codes.shape
    np.testing.assert_allclose(max_radius_of(codes, terms)[1, -1], math.tan(1.0))  # theta (1 - theta^2 / 3) turns at 1 rad


@pytest.mark.parametrize('model, coefficients', LENSES[1:])
def test_gradients_are_the_inverse_function_s(model: str, coefficients: tuple) -> None:
    code, terms, _ = lens(model, coefficients)
    xy = torch.tensor([[0.3, -0.4], [0.0, 0.0], [-0.1, 0.62]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda bent: undistort_points(bent, code, terms), xy, atol=1e-6)
    terms.requires_grad_()
    used = [0, 1, 2, 3, 4] if model == 'radtan' else [0, 1, 2, 3]
    undistort_points(xy.detach()[:1], code, terms)[0, 0].backward()
    for index in used:
        step = torch.zeros(5, dtype=torch.float64)
        step[index] = 1e-5
        ahead, behind = (undistort_points(xy.detach()[:1], code, terms.detach() + sign * step)[0, 0] for sign in (1, -1))
        assert abs(float(ahead - behind) / 2e-5 - float(terms.grad[index])) < 1e-6


@pytest.mark.parametrize('model, coefficients', LENSES)
def test_beyond_the_lens_model_all_is_finite(model: str, coefficients: tuple) -> None:
    code, terms, max_radius = lens(model, coefficients)
    xy = torch.tensor([[3.0, 0.1], [-50.0, 70.0], [1e4, 0.0], [0.0, 0.0]], requires_grad=True)
    result = undistort_points(xy, code, terms)
    result.sum().backward()
    assert torch.isfinite(result).all() and torch.isfinite(xy.grad).all()
    if math.isfinite(max_radius):
        np.testing.assert_allclose(result[:3].detach().norm(dim=-1), max_radius, rtol=1e-2)  # on its rim


@pytest.mark.parametrize('coefficients', [LENSES[1][1], LENSES[2][1], LENSES[3][1]])
def test_new_intrinsics_are_near_opencvs(coefficients: tuple) -> None:
    code, terms, _ = lens('radtan', coefficients)
    new = undistorted_intrinsics(torch.tensor(K), code, terms, HW).numpy()
    expected = cv2.getOptimalNewCameraMatrix(K, np.array(coefficients), HW[::-1], 0)[0]
    assert np.abs(new - expected).max() < 2  # it samples a border at 9 places where we take 101


def test_new_intrinsics_of_wide_and_absurd_lenses() -> None:
    code, terms, _ = lens('fisheye', (0.0, 0.0, 0.0, 0.0))
    wide = np.array([[450.0, 0, 799.5], [0, 450.0, 449.5], [0, 0, 1.0]])  # the border's middle is 102 degrees off axis
    new = undistorted_intrinsics(torch.tensor(wide), code, terms, HW)
    np.testing.assert_allclose(math.degrees(math.atan(799.5 / new[0, 0])), 80.0, atol=1e-9)
    np.testing.assert_allclose(math.atan(449.5 / new[1, 1]), 449.5 / 450, atol=1e-9)  # equidistant: angle = radius / f
    np.testing.assert_array_equal(undistorted_intrinsics(torch.tensor(K), torch.tensor(0), torch.zeros(5), HW), K)
    off = np.array([[400.0, 0, -5000.0], [0, 400.0, 449.5], [0, 0, 1.0]])
    with pytest.raises(ValueError, match='fisheye'):
        undistorted_intrinsics(torch.tensor(off), code, terms, HW)
