"""Sensor stage: pinhole, radtan (OpenCV) and fisheye (Kannala-Brandt) projection; camera frame in, pixels out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from projects.synthetic_nuscenes.transforms import FloatArray

_WIDEST_RAD = np.radians(80.0)


def distort(normalised: FloatArray, model: str, coefficients: tuple[float, ...]) -> FloatArray:
    """Bend normalised image points.

    Args:
        normalised: (N, 2) x/z, y/z.
        model: 'none', 'radtan' (k1 k2 p1 p2 k3) or 'fisheye' (k1 k2 k3 k4).

    Raises:
        ValueError: unknown model.
    """
    if model == 'none':
        return normalised
    x, y = normalised[:, 0], normalised[:, 1]
    r2 = x * x + y * y
    if model == 'radtan':
        k1, k2, p1, p2, k3 = coefficients
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=1,
        )
    if model == 'fisheye':
        k1, k2, k3, k4 = coefficients
        r = np.sqrt(r2)
        theta = np.arctan(r)
        t2 = theta * theta
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        return normalised * np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)[:, None]
    raise ValueError(f'unknown distortion model {model!r}')


def project(
    points_cam: FloatArray, img_from_cam: FloatArray, model: str = 'none', coefficients: tuple[float, ...] = ()
) -> tuple[FloatArray, FloatArray]:
    """Pixels (N, 2) and depths (N,) in m of (N, 3) camera-frame points; pixels mean nothing where depth <= 0."""
    depth = points_cam[:, 2]
    normalised = points_cam[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[:, None]
    bent = distort(normalised, model, coefficients)
    return bent * img_from_cam[[0, 1], [0, 1]] + img_from_cam[:2, 2], depth


@dataclass(frozen=True)
class Canvas:
    """The pinhole picture that is rendered, and where each pixel of the lens's picture lies in it.

    Attributes:
        img_from_cam: (3, 3) of the canvas; wh_px: its size.
        lookup: (H, W) flat index into the canvas, -1 outside it; None where the canvas is the image itself.
    """

    img_from_cam: FloatArray
    wh_px: tuple[int, int]
    lookup: np.ndarray | None


def make_canvas(
    img_from_cam: FloatArray, wh_px: tuple[int, int], model: str, coefficients: tuple[float, ...]
) -> Canvas:
    """Plan the rendering of a lens: undistort every pixel exactly and cover them all with a pinhole canvas."""
    if model == 'none':
        return Canvas(img_from_cam, wh_px, None)
    width, height = wh_px
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 1, 2).astype(np.float64)
    if model == 'radtan':
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        rays = cv2.undistortPointsIter(pixels, img_from_cam, np.array(coefficients), None, None, criteria)
    else:
        rays = cv2.fisheye.undistortPoints(pixels, img_from_cam, np.array(coefficients))
    rays = rays.reshape(-1, 2)
    widest = np.tan(_WIDEST_RAD)
    low = np.maximum(rays.min(axis=0), -widest)
    high = np.minimum(rays.max(axis=0), widest)
    focal = img_from_cam[[0, 1], [0, 1]]
    canvas = np.eye(3)
    canvas[[0, 1], [0, 1]] = focal
    canvas[:2, 2] = np.ceil(-low * focal) + 1
    size = np.ceil((high - low) * focal).astype(int) + 4
    spots = np.rint(rays * focal + canvas[:2, 2]).astype(int)
    inside = ((spots >= 0) & (spots < size)).all(axis=1)
    lookup = np.where(inside, spots[:, 1] * size[0] + spots[:, 0], -1).reshape(height, width)
    return Canvas(canvas, (int(size[0]), int(size[1])), lookup)
