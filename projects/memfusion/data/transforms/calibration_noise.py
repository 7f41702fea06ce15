"""Data transform. In: `calibration` of a frame. Out: the same with a known rigid error in `calib_noise`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from torch import Tensor

from projects.geometry.calib_noise import sample_rigid_noise, whole_rig_noise
from projects.memfusion.structures.calibration import Calibration

from ..errors import DataError
from ..poses import Pose, relative_pose, share_of_motion
from .image_labels import calibration_of
from .loading import lidar_pose
from .multiview_augmentation import check_probability
from .multiview_loading import sample_name
from .sensor_faults import FaultDraws

MODES = ('camera', 'rig')
_MIN_SPAN_S = 0.01
"""Ego motion over a shorter time is mostly rounding."""


@TRANSFORMS.register_module()
class CalibrationNoise(BaseTransform):
    """Puts a rigid error between LiDAR and cameras: all of it is in `calibration.calib_noise`, so the true rig stays known.

    Args:
        rotation_deg: standard deviation of the angle, degrees; the axis is uniform.
        translation_m: standard deviation of the shift along each axis, metres.
        prob: how often a frame (clip, scene) gets an error.
        mode: 'camera' draws an error for each camera, in its own frame; 'rig' one for the rig as a whole, in the LiDAR frame.
        time_offset_s: the cameras are taken for so much later than they were, seconds (negative: earlier): the error is the
            ego motion in that time, as the poses of this frame and its newest sweep, or of its cameras, tell it. With
            `prob`, like the rest.
        per, seed: see FaultDraws.

    Raises:
        ValueError: for a bad argument.
        DataError: from `transform`, naming the sample, where a time offset is asked for and no second pose is known.
    """

    def __init__(
        self,
        rotation_deg: float = 0.5,
        translation_m: float = 0.03,
        prob: float = 0.5,
        mode: str = 'camera',
        time_offset_s: float = 0.0,
        per: str = 'frame',
        seed: int | None = None,
    ) -> None:
        check_probability(prob)
        if mode not in MODES:
            raise ValueError(f"CalibrationNoise: mode must be {' or '.join(map(repr, MODES))}, got {mode!r}")
        if rotation_deg < 0 or translation_m < 0:
            raise ValueError(f'CalibrationNoise: rotation_deg={rotation_deg} and translation_m={translation_m} must not be '
                             'negative')
        self.rotation_deg, self.translation_m, self.prob, self.mode = rotation_deg, translation_m, prob, mode
        self.time_offset_s, self.draws = time_offset_s, FaultDraws(type(self).__name__, per, seed)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Multiplies `calibration.calib_noise` from the left, first by the time offset's error, then by the drawn one."""
        calibration = calibration_of(results, type(self).__name__)
        rng = self.draws.generator(results)
        drawn, noise_seed = rng.random(), int(rng.integers(2**31))
        if drawn >= self.prob:
            return results
        if self.time_offset_s:
            calibration = calibration.with_noise(time_offset_noise(calibration, results, self.time_offset_s))
        noise = self._rigid_noise(calibration, torch.Generator().manual_seed(noise_seed))
        results['calibration'] = calibration.with_noise(noise)
        return results

    def _rigid_noise(self, calibration: Calibration, generator: torch.Generator) -> Tensor:
        """(1, N, 4, 4) float64."""
        cameras = len(calibration.cam_names)
        if self.mode == 'camera':
            return sample_rigid_noise((1, cameras), self.rotation_deg, self.translation_m, generator)
        noise = sample_rigid_noise((1,), self.rotation_deg, self.translation_m, generator)
        return whole_rig_noise(noise, _assumed(calibration))


def time_offset_noise(calibration: Calibration, results: Mapping[str, Any], time_offset_s: float) -> Tensor:
    """(1, N, 4, 4) float64: what stamps that are `time_offset_s` too late do, as a rigid error in the camera frames."""
    cur_from_other, span_s = ego_motion(results)
    # The camera's pose would be looked up that much later: with one constant twist a factor that does not depend on the stamps.
    later_from_cur = share_of_motion(cur_from_other, -time_offset_s / span_s)
    return whole_rig_noise(torch.from_numpy(later_from_cur)[None], _assumed(calibration))


def _assumed(calibration: Calibration) -> Tensor:
    """(1, N, 4, 4) float64 cam_from_lidar with the errors so far, which the next one stands to the left of."""
    return calibration.calib_noise.double() @ calibration.cam_from_lidar.double()


def ego_motion(results: Mapping[str, Any]) -> tuple[Pose, float]:
    """The raw LiDAR frame at another time, seen from the one at the frame's stamp.

    Returns:
        cur_from_other (4, 4) float64 and other time minus frame's stamp, seconds: of the newest sweep, else of the camera
        whose stamp is farthest away.

    Raises:
        DataError: naming the sample, where no pose at another time is known.
    """
    global_from_lidar = lidar_pose(results)
    stamp_s = results['lidar_points'].get('timestamp', results['timestamp'])
    for sweep in results.get('lidar_sweeps', ())[:1]:
        if 'global_from_lidar' in sweep and abs(sweep['timestamp'] - stamp_s) >= _MIN_SPAN_S:
            return relative_pose(global_from_lidar, lidar_pose(sweep)), float(sweep['timestamp'] - stamp_s)
    ego_from_lidar = np.asarray(results['lidar_points']['lidar2ego'], dtype=np.float64)
    spans = {name: image['timestamp'] - stamp_s for name, image in results.get('images', {}).items()
             if 'ego2global' in image and 'timestamp' in image}
    farthest = max(spans, key=lambda name: abs(spans[name]), default=None)
    if farthest is None or abs(spans[farthest]) < _MIN_SPAN_S:
        raise DataError(f'sample {sample_name(results)}: a time offset needs the ego pose at another time, and the info has '
                        'neither sweeps with poses nor cameras with ego2global: make it with tools/create_data.py')
    global_from_ego = np.asarray(results['images'][farthest]['ego2global'], dtype=np.float64)
    return relative_pose(global_from_lidar, global_from_ego @ ego_from_lidar), float(spans[farthest])
