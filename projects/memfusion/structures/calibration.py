"""Contract, no network: the camera rig. In: mmdet3d's image keys, see camera_row. Out: LiDAR points to pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.geometry.distortion import PINHOLE
from projects.geometry.precision import full_precision
from projects.geometry.projection import (
    MIN_DEPTH_M,
    apply_homography,
    inside_image,
    inside_window,
    project_to_image,
    whole_window,
)
from projects.geometry.rigid import transform_points
from projects.geometry.undistortion import undistort_points, undistorted_intrinsics

from .camera_row import bev_aug_of, images_of_matrices, read_cameras


@dataclass(frozen=True)
class Calibration:
    """N cameras of B frames. Float32 tensors unless said otherwise; matrices are composed in float64.

    Attributes:
        cam_names: N names; everything that depends on which camera it is goes by name, not by position.
        img_from_cam: (B, N, 4, 4) raw K, padded; never edited (image augmentation lives in img_aug).
        cam_from_lidar: (B, N, 4, 4) raw LiDAR frame at t_lidar to camera at t_cam, ego motion included.
        img_aug: (B, N, 4, 4) raw pixel to network pixel, a padded homography.
        img_hw_raw, img_hw: (B, N, 2) int64 height and width of the raw and of the network image, padding excluded.
        seen_px: (B, N, 4) left, top, right, bottom: the part of the raw image that was left when the image was turned; all of
            it for images that were not.
        bev_aug: (B, 4, 4) raw LiDAR frame to augmented LiDAR frame.
        calib_noise: (B, N, 4, 4) rigid error on the left of cam_from_lidar; the identity where none was put in.
        distortion_model: (B, N) int64, position in geometry.distortion.MODELS.
        distortion: (B, N, 5) coefficients, zeros beyond those of the model.
        max_radius: (B, N) largest normalised radius that the lens model maps.
        cam_valid: (B, N) bool; a missing camera is masked out.
        t_lidar: (B,) float64 seconds; NaN where the reader was not told.
        t_cam: (B, N) float64 seconds; NaN where the info has none.
    """

    cam_names: tuple[str, ...]
    img_from_cam: Tensor
    cam_from_lidar: Tensor
    img_aug: Tensor
    img_hw_raw: Tensor
    img_hw: Tensor
    seen_px: Tensor
    bev_aug: Tensor
    calib_noise: Tensor
    distortion_model: Tensor
    distortion: Tensor
    max_radius: Tensor
    cam_valid: Tensor
    t_lidar: Tensor
    t_cam: Tensor

    @classmethod
    def from_info(
        cls,
        info_images: Mapping[str, Mapping[str, Any]],
        img_hw: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
        bev_aug: np.ndarray | Tensor | None = None,
        cam_names: Sequence[str] | None = None,
        global_from_lidar: np.ndarray | None = None,
        t_lidar: float = float('nan'),
    ) -> Calibration:
        """Reads the `images` of one mmdet3d v1.1 info; B is 1.

        Args:
            info_images: `{camera: {cam2img, lidar2cam, ...}}`.
            img_hw: height and width where the info has none, for all cameras or by name.
            bev_aug: (4, 4) raw LiDAR to augmented LiDAR frame; None is the identity.
            cam_names: which cameras, in which order; None takes the info's own. One that the info lacks is
                masked out.
            global_from_lidar: (4, 4) float64 at t_lidar; only needed for cameras without `lidar2cam`, which is then
                made from `cam2ego` and `ego2global` (at the camera's own stamp).
            t_lidar: stamp of the LiDAR frame, seconds.

        Raises:
            ValueError: naming camera and key, for a missing key, a matrix that is no K or no rigid transform, an
                unknown image size or lens model, a camera that is there twice. Whether a sound matrix is a likely one is
                asked by data.rig_checks.
        """
        names, columns = read_cameras(info_images, img_hw, cam_names, global_from_lidar)
        return cls(
            cam_names=names, img_aug=torch.eye(4).repeat(1, len(names), 1, 1), img_hw=columns['img_hw_raw'].clone(),
            seen_px=whole_window(columns['img_hw_raw']), bev_aug=bev_aug_of(bev_aug),
            calib_noise=torch.eye(4).repeat(1, len(names), 1, 1),
            t_lidar=torch.tensor([t_lidar], dtype=torch.float64), **columns)

    @classmethod
    def from_matrices(
        cls,
        img_from_cam: Tensor,
        cam_from_lidar: Tensor,
        img_hw_raw: Tensor,
        cam_names: Sequence[str] | None = None,
        lenses: Sequence[tuple[str, Sequence[float]]] | None = None,
        cam_valid: Tensor | None = None,
        bev_aug: Tensor | None = None,
        t_lidar: Tensor | None = None,
        t_cam: Tensor | None = None,
    ) -> Calibration:
        """A rig of one's own, with images as they came from the cameras; with_img_aug and with_noise change it.

        Args:
            img_from_cam: (B, N, 3, 3) or (B, N, 4, 4) raw K.
            cam_from_lidar: (B, N, 4, 4) raw LiDAR frame to camera frame (x right, y down, z forward), metres.
            img_hw_raw: (B, N, 2) height and width.
            cam_names: N names; None is CAM_0, CAM_1, ...
            lenses: N pairs of model and coefficients, see geometry.distortion.parse_distortion; None is all pinholes.
            cam_valid: (B, N) bool; None is all. A missing camera's matrices are never read.
            bev_aug: (B, 4, 4) or (4, 4) raw LiDAR to augmented LiDAR frame; None is the identity.
            t_lidar, t_cam: (B,) and (B, N) float64 seconds; None is unknown.

        Returns:
            A rig on the CPU, whatever the matrices are on.

        Raises:
            ValueError: as from_info.
        """
        images, valid = images_of_matrices(img_from_cam, cam_from_lidar, img_hw_raw, cam_names, lenses, cam_valid, t_cam)
        aug = None if bev_aug is None else bev_aug.cpu()
        augs = list(aug) if aug is not None and aug.dim() == 3 else [aug] * len(images)
        stamps = [math.nan] * len(images) if t_lidar is None else t_lidar.tolist()
        frames = [cls.from_info(each, bev_aug=augs[b], t_lidar=stamps[b]) for b, each in enumerate(images)]
        return replace(cls.cat(frames), cam_valid=valid)

    @staticmethod
    def cat(calibrations: Sequence[Calibration]) -> Calibration:
        """Joins frames along B; raises ValueError where the camera names differ."""
        names = {calibration.cam_names for calibration in calibrations}
        if len(names) != 1:
            raise ValueError(f'cannot batch frames of different cameras: {sorted(names)}')
        joined: dict[str, Any] = {name: torch.cat([getattr(c, name) for c in calibrations]) for name in _tensor_names()}
        return replace(calibrations[0], **joined)

    def to(self, device: torch.device | str) -> Calibration:
        """The same on another device."""
        target = torch.device(device)  # not a dtype: each tensor keeps its own
        return replace(self, **{name: getattr(self, name).to(target) for name in _tensor_names()})

    def select(self, frames: Tensor) -> Calibration:
        """The frames at `frames`, (K,) positions or a (B,) bool mask along B."""
        return replace(self, **{name: getattr(self, name)[frames] for name in _tensor_names()})

    def take_cameras(self, order: Sequence[int]) -> Calibration:
        """The cameras at these positions, in this order."""
        rows = torch.as_tensor(order, device=self.bev_aug.device)
        return replace(self, cam_names=tuple(self.cam_names[i] for i in order),
                       **{name: getattr(self, name)[:, rows] for name in _tensor_names() if name not in _PER_FRAME})

    @full_precision
    def with_noise(self, noise: Tensor) -> Calibration:
        """The rig with one more rigid error (B, N, 4, 4) on the left of every cam_from_lidar (and of the noise so far)."""
        together = noise.double() @ self.calib_noise.double()
        return replace(self, calib_noise=together.to(self.calib_noise.dtype))

    def with_img_aug(self, camera_index: int, homography: Tensor, new_hw: tuple[int, int]) -> Calibration:
        """One camera's image changed once more, in all frames.

        Args:
            camera_index: which camera.
            homography: (4, 4) network pixel before to network pixel after, see geometry.homography.
            new_hw: height and width of the image afterwards, padding on the right and below excluded.

        Raises:
            ValueError: naming the camera, where the image is turned a second time: what the first turn left black could not
                be told from what is seen.
        """
        img_aug, img_hw, seen_px = self.img_aug.clone(), self.img_hw.clone(), self.seen_px
        step = homography.to(device=img_aug.device, dtype=torch.float64)
        before = img_aug[:, camera_index].double()
        if _turns(step[None]):
            if _turns(before):
                raise ValueError(f'camera {self.cam_names[camera_index]}: its image was turned before; turn it once only')
            corners = whole_window(img_hw[:, camera_index]).double().unflatten(-1, (2, 2))
            corners = apply_homography(torch.linalg.inv(before), corners)
            window, seen_px = seen_px[:, camera_index], seen_px.clone()
            low, high = torch.maximum(corners.amin(1), window[:, :2]), torch.minimum(corners.amax(1), window[:, 2:])
            seen_px[:, camera_index] = torch.cat([low, high], dim=-1).to(seen_px.dtype)
        img_aug[:, camera_index] = (step @ before).to(img_aug.dtype)
        img_hw[:, camera_index] = torch.tensor(new_hw, device=img_hw.device)
        return replace(self, img_aug=img_aug, img_hw=img_hw, seen_px=seen_px)

    def undistorted(self) -> Calibration:
        """The rig after its images went through geometry.undistortion.undistort_image: pinholes with their new K.

        Cameras without distortion stay as they are; the K of those that are not there is not read. Raises ValueError where
        images were changed already: the new K is one of raw pixels, so undistortion comes first.
        """
        names = ('img_from_cam', 'distortion_model', 'distortion', 'max_radius')
        changes = {name: getattr(self, name).clone() for name in names}
        bent = self.distortion_model != PINHOLE
        for frame, camera in (bent & self.cam_valid).nonzero().tolist():
            if not torch.equal(self.img_aug[frame, camera].cpu(), torch.eye(4)):
                raise ValueError(f'camera {self.cam_names[camera]}: undistort an image before it is resized, cropped or turned')
            height, width = self.img_hw_raw[frame, camera].tolist()
            try:
                matrix = undistorted_intrinsics(
                    self.img_from_cam[frame, camera], self.distortion_model[frame, camera], self.distortion[frame, camera],
                    (height, width))
            except ValueError as error:
                raise ValueError(f'camera {self.cam_names[camera]}: {error}') from error
            changes['img_from_cam'][frame, camera] = matrix.float()
        changes['distortion_model'][bent] = PINHOLE
        changes['distortion'][bent] = 0.0
        changes['max_radius'][bent] = torch.inf
        return replace(self, **changes)

    @property
    def img_from_lidar(self) -> Tensor:
        """(B, N, 4, 4) augmented LiDAR frame to network pixels (times depth); ValueError unless all are pinholes."""
        bent = [name for i, name in enumerate(self.cam_names) if (self.distortion_model[:, i] != PINHOLE).any()]
        if bent:
            raise ValueError(f'cameras {bent} have lens distortion, so no matrix maps them: use Calibration.project')
        return (self.img_aug.double() @ self._of_present(self.img_from_cam).double() @ self.cam_from_bev).float()

    @full_precision
    def project(self, points_m: Tensor, min_depth_m: float = MIN_DEPTH_M) -> tuple[Tensor, Tensor, Tensor]:
        """Points to network pixels of every camera.

        Args:
            points_m: (B, P, 3) in the augmented LiDAR frame.
            min_depth_m: nearer points are not valid.

        Returns:
            uv_px (B, N, P, 2), depth_m (B, N, P), valid (B, N, P) bool: in front of a camera that is there, within its
            lens model, inside its network image and not in what padding, cropping beyond the border or rotation left
            without a raw pixel. uv_px is finite everywhere and meaningless without a pixel.
        """
        raw_px, depth_m, has_pixel = self._project_raw(self.to_cam(points_m), min_depth_m)
        uv_px = apply_homography(self.img_aug, raw_px)
        return uv_px, depth_m, has_pixel & inside_window(raw_px, self.seen_px) & inside_image(uv_px, self.img_hw)

    @full_precision
    def unproject(self, uv_px: Tensor, depth_m: Tensor) -> Tensor:
        """Network pixels with a depth to points: the inverse of project, for all lens models.

        Args:
            uv_px: (B, N, P, 2); one beyond the lens model is taken for the nearest on its rim.
            depth_m: (B, N, P), z in the camera frame (not the length of the ray).

        Returns:
            (B, N, P, 3) float32 in the augmented LiDAR frame. Finite, with finite gradients, for finite pixels; those of a
            missing camera mean nothing.
        """
        raw_px = apply_homography(torch.linalg.inv(self.img_aug.double()), uv_px.double())
        matrix = self._of_present(self.img_from_cam.double())
        bent = (raw_px - matrix[..., None, :2, 2]) @ torch.linalg.inv(matrix[..., :2, :2]).transpose(-1, -2)
        xy = undistort_points(bent, self.distortion_model, self.distortion, self.max_radius)
        points_cam_m = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1) * depth_m.double()[..., None]
        return transform_points(torch.linalg.inv(self.cam_from_bev), points_cam_m).float()

    @full_precision
    def to_cam(self, points_m: Tensor) -> Tensor:
        """(B, P, 3) in the augmented LiDAR frame -> (B, N, P, 3) float32 in the camera frames (z forward).

        Raises:
            ValueError: for points of another shape.
        """
        if points_m.dim() != 3 or points_m.shape[0] != len(self.bev_aug) or points_m.shape[2] != 3:
            raise ValueError(f'points_m is {tuple(points_m.shape)}, expected (B, P, 3) with B={len(self.bev_aug)} frames, as '
                             'the calibration has')
        return transform_points(self.cam_from_bev.float(), points_m.float()[:, None])

    @full_precision
    def project_cam(self, points_cam_m: Tensor, min_depth_m: float = MIN_DEPTH_M) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, P, 3) in the camera frames -> uv_px, depth_m and has_pixel (whether inside the image or not)."""
        raw_px, depth_m, has_pixel = self._project_raw(points_cam_m, min_depth_m)
        return apply_homography(self.img_aug, raw_px), depth_m, has_pixel

    def _project_raw(self, points_cam_m: Tensor, min_depth_m: float) -> tuple[Tensor, Tensor, Tensor]:
        raw_px, depth_m, has_pixel = project_to_image(
            points_cam_m.float(), self._of_present(self.img_from_cam), self.distortion_model, self.distortion,
            self.max_radius, min_depth_m)
        return raw_px, depth_m, has_pixel & self.cam_valid[..., None]

    @property
    def cam_from_bev(self) -> Tensor:
        """(B, N, 4, 4) float64: augmented LiDAR frame to camera. bev_aug may scale and mirror, so it is not rigid. The identity
        for a missing camera, whose matrices may hold anything."""
        noise, cam_from_lidar = (self._of_present(part).double() for part in (self.calib_noise, self.cam_from_lidar))
        chain = noise @ cam_from_lidar @ torch.linalg.inv(self.bev_aug.double())[:, None]
        return self._of_present(chain)

    def _of_present(self, matrices: Tensor) -> Tensor:
        """(B, N, 4, 4) with the identity for the cameras that are not there."""
        eye = torch.eye(4, dtype=matrices.dtype, device=matrices.device)
        return torch.where(self.cam_valid[..., None, None], matrices, eye)


_PER_FRAME = ('bev_aug', 't_lidar')


def _turns(homography: Tensor) -> bool:
    """Whether any of (..., 4, 4) does more than scale, mirror and move along the axes."""
    return bool((homography[..., [0, 1], [1, 0]] != 0).any())


def _tensor_names() -> list[str]:
    return [field.name for field in fields(Calibration) if field.name != 'cam_names']
