"""Geometry, pure functions. In: metres in camera frames (z forward). Out: pixels (u right, v down, 0 at a centre)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from .distortion import distort
from .precision import full_precision

MIN_DEPTH_M = 0.1
"""Points nearer than this, or behind the camera, have no pixel."""


@full_precision
def project_to_image(
    points_cam_m: Tensor,
    img_from_cam: Tensor,
    distortion_model: Tensor,
    distortion: Tensor,
    max_radius: Tensor,
    min_depth_m: float = MIN_DEPTH_M,
    models: Collection[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Camera frame to raw pixels: divide by depth, distort, multiply with K.

    Args:
        points_cam_m: (..., P, 3).
        img_from_cam: (..., 4, 4) raw K, padded.
        distortion_model: (...) int64 codes, see geometry.distortion.
        distortion: (..., 5) coefficients.
        max_radius: (...) largest normalised radius that the lens model maps.
        min_depth_m: depth is masked below this, before the division.
        models: the codes that may occur, where the caller knows; None finds out.

    Returns:
        uv_px (..., P, 2), depth_m (..., P), and has_pixel (..., P) bool: in front and within the lens model. uv_px is
        finite everywhere and meaningless where has_pixel is False; gradients are finite everywhere.
    """
    depth_m = points_cam_m[..., 2]
    in_front = depth_m > min_depth_m
    xy = points_cam_m[..., :2] / torch.where(in_front, depth_m, torch.ones_like(depth_m))[..., None]
    has_pixel = in_front & ((xy.detach() ** 2).sum(-1) < max_radius[..., None] ** 2)
    xy = torch.where(has_pixel[..., None], xy, torch.zeros_like(xy))
    xy = distort(xy, distortion_model, distortion, models)
    uv_px = xy @ img_from_cam[..., :2, :2].transpose(-1, -2) + img_from_cam[..., None, :2, 2]
    return uv_px, depth_m, has_pixel


@full_precision
def apply_homography(dst_from_src: Tensor, uv_px: Tensor) -> Tensor:
    """Moves (..., P, 2) pixels by (..., 4, 4) padded homographies (they act on u, v, 1); returns (..., P, 2)."""
    moved = uv_px @ dst_from_src[..., :3, :2].transpose(-1, -2) + dst_from_src[..., None, :3, 2]
    return moved[..., :2] / moved[..., 2:]


def inside_image(uv_px: Tensor, img_hw: Tensor) -> Tensor:
    """(..., P, 2) pixels and (..., 2) height, width -> (..., P) bool; images reach half a pixel past centres."""
    return inside_window(uv_px, whole_window(img_hw).to(uv_px.dtype))


def whole_window(img_hw: Tensor) -> Tensor:
    """(..., 2) height, width -> (..., 4) float32 left, top, right, bottom of the whole image, pixels."""
    size = img_hw.flip(-1).float()
    return torch.cat([torch.full_like(size, -0.5), size - 0.5], dim=-1)


def inside_window(uv_px: Tensor, window_px: Tensor) -> Tensor:
    """(..., P, 2) pixels and (..., 4) left, top, right, bottom -> (..., P) bool."""
    window_px = window_px[..., None, :]
    inside = (uv_px >= window_px[..., :2]) & (uv_px < window_px[..., 2:])
    return inside[..., 0] & inside[..., 1]


def clip_segments(start_m: Tensor, end_m: Tensor, near_m: float = MIN_DEPTH_M) -> tuple[Tensor, Tensor, Tensor]:
    """Cuts line segments at the plane z = near_m of the camera frame.

    Args:
        start_m, end_m: (..., 3).

    Returns:
        start_m and end_m of the part in front of the plane, and keep (...) bool: False where there is no such part.
    """
    start_z, end_z = start_m[..., 2:], end_m[..., 2:]
    crosses = (start_z < near_m) != (end_z < near_m)
    span = torch.where(crosses, end_z - start_z, torch.ones_like(start_z))
    cut = start_m + (near_m - start_z) / span * (end_m - start_m)
    cut[..., 2] = near_m  # exactly on the plane, whatever the rounding
    clipped_start = torch.where(crosses & (start_z < near_m), cut, start_m)
    clipped_end = torch.where(crosses & (end_z < near_m), cut, end_m)
    keep = (start_z >= near_m) | (end_z >= near_m)
    return clipped_start, clipped_end, keep[..., 0]
