"""Contract, no network: the camera rig. In: mmdet3d's image keys, see camera_row. Out: LiDAR points to pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from projects.geometry.rigid import compose, invert_affine, transform_points
from projects.geometry.undistortion import undistorted_intrinsics
from projects.geometry.views import Views

from .camera_row import bev_aug_of, images_of_matrices, read_cameras
from .rig_tensors import RigTensors


@dataclass(frozen=True)
class Calibration(RigTensors):
    """N cameras of B frames, see RigTensors for what is known of them; matrices are composed in float64."""

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

    @full_precision
    def with_noise(self, noise: Tensor) -> Calibration:
        """The rig with one more rigid error (B, N, 4, 4) on the left of every cam_from_lidar (and of the noise so far)."""
        together = noise.double() @ self.calib_noise.double()
        return replace(self, calib_noise=together.to(self.calib_noise.dtype))._keep(self._known_facts)

    @full_precision
    def with_shift(self, shift_px: Tensor) -> Calibration:
        """The rig whose network pixels are moved by (B, N, 2), right and down."""
        column = F.pad(shift_px.double(), (0, 2))[..., None]  # u, v, 0, 0
        shift = torch.eye(4, dtype=torch.float64, device=shift_px.device) + F.pad(column, (2, 1))
        return replace(self, img_aug=(shift @ self.img_aug.double()).to(self.img_aug.dtype))._keep(self._known_facts)

    @full_precision
    def moved(self, cur_from_prev: Tensor) -> Calibration:
        """The rig of an earlier frame as seen from now: what it knew in its own frame it knows in the current one.

        Args:
            cur_from_prev: (B, 4, 4) augmented LiDAR frame of the rig to that of now, metres; best in float64.

        Raises:
            ValueError: where cur_from_prev is of another shape.
        """
        if cur_from_prev.shape != self.bev_aug.shape:
            raise ValueError(f'cur_from_prev is {tuple(cur_from_prev.shape)}, expected {tuple(self.bev_aug.shape)}: one for '
                             'each frame of the rig')
        bev_aug = cur_from_prev.double() @ self.bev_aug.double()
        return replace(self, bev_aug=bev_aug.to(self.bev_aug.dtype))._keep(self._known_facts)

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
            corners = apply_homography(invert_affine(before), corners)
            window, seen_px = seen_px[:, camera_index], seen_px.clone()
            low, high = torch.maximum(corners.amin(1), window[:, :2]), torch.minimum(corners.amax(1), window[:, 2:])
            seen_px[:, camera_index] = torch.cat([low, high], dim=-1).to(seen_px.dtype)
        img_aug[:, camera_index] = (step @ before).to(img_aug.dtype)
        img_hw[:, camera_index] = torch.tensor(new_hw, device=img_hw.device)
        return replace(self, img_aug=img_aug, img_hw=img_hw, seen_px=seen_px, padded_hw=None)

    def undistorted(self) -> Calibration:
        """The rig after its images went through data.image_undistortion.undistort_image: pinholes with their new K.

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
        bent = [self.cam_names[n] for n in self.facts.bent_cameras]
        if bent:
            raise ValueError(f'cameras {bent} have lens distortion, so no matrix maps them: use Calibration.project')
        return compose(self.views().img_from_cam, self.cam_from_bev).float()

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
        views = self.views()
        xy = views.pinhole_xy(uv_px)
        points_cam_m = F.pad(xy, (0, 1), value=1.0) * depth_m.double()[..., None]
        return transform_points(views.bev_from_cam, points_cam_m).float()

    def rays(self, level_shape: Sequence[int], offset: float = 0.5, normalise: bool = False) -> tuple[Tensor, Tensor]:
        """Origins (B, N, 3) and directions (B, N, h, w, 3) of the cells of a feature level, see geometry.views.Views.rays:
        origin + depth_m * direction is unproject(pixel, depth_m)."""
        return self.views().rays(level_shape, offset, normalise)

    def views(self) -> Views:
        """What encodings need of the rig, with its matrices and their inverses."""
        return self._once('views', self._make_views)

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
            self.max_radius, min_depth_m, self.facts.lens_models)
        return raw_px, depth_m, has_pixel & self.cam_valid[..., None]

    @property
    def cam_from_bev(self) -> Tensor:
        """(B, N, 4, 4) float64: augmented LiDAR frame to camera. bev_aug may scale and mirror, so it is not rigid. The identity
        for a missing camera, whose matrices may hold anything."""
        return self._once('cam_from_bev', self._chain)

    def _chain(self) -> Tensor:
        noise, cam_from_lidar = (self._of_present(part).double() for part in (self.calib_noise, self.cam_from_lidar))
        return self._of_present(compose(compose(noise, cam_from_lidar), invert_affine(self.bev_aug.double())[:, None]))

    def _make_views(self) -> Views:
        img_from_cam = compose(self.img_aug.double(), self._of_present(self.img_from_cam).double())
        return Views(
            cam_names=self.cam_names, cam_from_bev=self.cam_from_bev, bev_from_cam=invert_affine(self.cam_from_bev),
            img_from_cam=img_from_cam, cam_from_img=invert_affine(img_from_cam), distortion_model=self.distortion_model,
            distortion=self.distortion, max_radius=self.max_radius, lens_models=self.facts.lens_models,
            cam_valid=self.cam_valid, img_hw=self.img_hw, padded_hw=self.padded_hw or self.facts.largest_hw,
            t_lidar=self.t_lidar, t_cam=self.t_cam)

    def _of_present(self, matrices: Tensor) -> Tensor:
        """(B, N, 4, 4) with the identity for the cameras that are not there."""
        eye = torch.eye(4, dtype=matrices.dtype, device=matrices.device)
        return torch.where(self.cam_valid[..., None, None], matrices, eye)


def _turns(homography: Tensor) -> bool:
    """Whether any of (..., 4, 4) does more than scale, mirror and move along the axes."""
    return bool((homography[..., [0, 1], [1, 0]] != 0).any())
