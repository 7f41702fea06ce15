"""Geometry, no network: what pose and position encodings need of a camera rig. In: Calibration.views(). Out: viewing rays.

Everything is in the augmented LiDAR frame, that of the BEV. Pixels are u right, v down, integers at centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import full_precision
from .projection import apply_homography
from .undistortion import undistort_points


@dataclass(frozen=True)
class Views:
    """N views of B frames.

    Attributes:
        cam_names: N names.
        cam_from_bev, bev_from_cam: (B, N, 4, 4) float64, augmented LiDAR frame to camera frame (z forward) and back.
        img_from_cam, cam_from_img: (B, N, 4, 4) float64, camera frame to network pixels (times depth) by a padded homography,
            lens distortion aside, and back.
        distortion_model, distortion, max_radius: (B, N), (B, N, 5), (B, N), the lenses, see geometry.distortion.
        lens_models: codes that occur in distortion_model.
        cam_valid: (B, N) bool; what the others say of a camera that is not there means nothing, but is finite.
        img_hw: (B, N, 2) int64 height and width of the network image, padding excluded.
        padded_hw: height and width of the images as the network gets them: what feature levels cover.
        t_lidar, t_cam: (B,), (B, N) float64 seconds; NaN where unknown.
    """

    cam_names: tuple[str, ...]
    cam_from_bev: Tensor
    bev_from_cam: Tensor
    img_from_cam: Tensor
    cam_from_img: Tensor
    distortion_model: Tensor
    distortion: Tensor
    max_radius: Tensor
    lens_models: tuple[int, ...]
    cam_valid: Tensor
    img_hw: Tensor
    padded_hw: tuple[int, int]
    t_lidar: Tensor
    t_cam: Tensor

    @property
    def origins(self) -> Tensor:
        """(B, N, 3) float32 centres of the cameras, metres."""
        return self.bev_from_cam[..., :3, 3].float()

    @full_precision
    def rays(self, level_shape: Sequence[int], offset: float = 0.5, normalise: bool = False) -> tuple[Tensor, Tensor]:
        """The viewing ray of every cell of a feature level, with one lens inversion for each.

        Args:
            level_shape: (..., h, w), e.g. of the feature map; a cell is padded_hw / (h, w) pixels high and wide.
            offset: where in a cell, in cells: 0.5 is its centre, 0 its upper left corner.
            normalise: whether directions have length 1; else z = 1 in the camera frame, so that
                origin + depth_m * direction is the point at this depth.

        Returns:
            origins (B, N, 3) and directions (B, N, h, w, 3), float32.
        """
        height, width = level_shape[-2:]
        uv_px = cell_pixels((height, width), self.padded_hw, offset, self.cam_from_img.device).flatten(0, 1)
        origins, directions = self.rays_at(uv_px.expand(*self.cam_from_img.shape[:2], -1, -1), normalise)
        return origins, directions.unflatten(2, (height, width))

    @full_precision
    def rays_at(self, uv_px: Tensor, normalise: bool = False) -> tuple[Tensor, Tensor]:
        """As rays, for (B, N, P, 2) network pixels: origins (B, N, 3) and directions (B, N, P, 3), float32."""
        xy = self.pinhole_xy(uv_px)
        directions = F.pad(xy, (0, 1), value=1.0) @ self.bev_from_cam[..., :3, :3].transpose(-1, -2)
        return self.origins, (F.normalize(directions, dim=-1) if normalise else directions).float()

    @full_precision
    def pinhole_xy(self, uv_px: Tensor) -> Tensor:
        """(B, N, P, 2) network pixels -> (B, N, P, 2) float64 (x/z, y/z) in the camera frames; one beyond the lens model is
        taken for the nearest on its rim."""
        bent = apply_homography(self.cam_from_img, uv_px.double())
        return undistort_points(bent, self.distortion_model, self.distortion, self.max_radius, self.lens_models)


def cell_pixels(level_shape: tuple[int, int], padded_hw: tuple[int, int], offset: float = 0.5,
                device: torch.device | None = None) -> Tensor:
    """(h, w, 2) float64 u and v of every cell of a level that covers an image of padded_hw = (height, width).

    An image reaches from -0.5 to size - 0.5, so cell i is at (i + offset) * size / count - 0.5.
    """
    v, u = ((torch.arange(count, dtype=torch.float64, device=device) + offset) * (size / count) - 0.5
            for count, size in zip(level_shape, padded_hw))
    grid_v, grid_u = torch.meshgrid(v, u, indexing='ij')
    return torch.stack([grid_u, grid_v], dim=-1)
