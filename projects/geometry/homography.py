"""Geometry, pure functions: image augmentation as matrices. In: sizes, pixels, degrees. Out: dst_from_src on pixels.

Pixels are u right, v down, integers at pixel centres, so an image of width W reaches from -0.5 to W - 0.5. Every matrix
is (4, 4) float64: the homography on (u, v, 1) in its upper left 3x3, the identity elsewhere, ready to stand on the left
of a padded K. Compose with `@`, the later step on the left.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def resize_homography(from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Resizing an image of from_hw = (height, width) to to_hw: u' = (u + 0.5) * s - 0.5 with each axis' true ratio s.

    The true ratio, as 450 rows made 253 are not 0.5625 times as many. Raises ValueError for a size that is not positive.
    """
    if min(*from_hw, *to_hw) < 1:
        raise ValueError(f'cannot resize an image from (height, width) {tuple(from_hw)} to {tuple(to_hw)}: sizes must be '
                         'positive')
    scale_v, scale_u = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    return _homography([[scale_u, 0.0, 0.5 * scale_u - 0.5], [0.0, scale_v, 0.5 * scale_v - 0.5]])


def crop_homography(x0: float, y0: float) -> Tensor:
    """Cutting out (or padding to, where negative) a window whose first pixel is (x0, y0): u' = u - x0, v' = v - y0."""
    return _homography([[1.0, 0.0, -float(x0)], [0.0, 1.0, -float(y0)]])


def flip_homography(width: int) -> Tensor:
    """Mirroring an image of this width left to right: u' = width - 1 - u."""
    return _homography([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def rotation_homography(angle_deg: float, hw: tuple[int, int]) -> Tensor:
    """Rotating an image of (height, width) about its centre, ((W - 1) / 2, (H - 1) / 2), the size unchanged.

    Positive is counter-clockwise as one looks at the picture, the sign of cv2.getRotationMatrix2D; the matrix is what
    cv2.warpAffine takes (first two rows).
    """
    center_u, center_v = (hw[1] - 1) / 2, (hw[0] - 1) / 2
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return _homography([[cos, sin, center_u - cos * center_u - sin * center_v],
                        [-sin, cos, center_v + sin * center_u - cos * center_v]])


def _homography(rows: list[list[float]]) -> Tensor:
    """(4, 4) float64 from the first two rows on (u, v, 1)."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :3] = torch.tensor(rows, dtype=torch.float64)
    return matrix
