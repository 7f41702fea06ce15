"""Data transform. In: the `images` of an info. Out: `img`, N raw (H, W, 3) uint8 BGR images, and `calibration` (B = 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.logging import print_log

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.structures.camera_row import shared_records

from ..errors import BadFrameError, DataError
from ..image_files import Image, read_image
from ..rig_checks import (
    MAX_STAMP_GAP_S,
    CalibrationError,
    check_image_size,
    check_stamps,
    is_nuscenes_like,
    require_likely_rig,
    rig_problems,
)
from .loading import lidar_pose

NUM_MASKED_KEY = 'num_masked_cameras'
"""Metainfo of a frame: cameras that were masked because their image or calibration cannot be used."""
ON_BAD_IMAGE = ('error', 'mask')
# What stands for a camera of which nothing is known; it is masked, so nothing but the shapes matters.
_ABSENT = dict(cam2img=np.eye(3).tolist(), lidar2cam=np.eye(4).tolist(), height=1, width=1)


def sample_name(results: Mapping[str, Any]) -> str:
    """How messages name a frame."""
    return str(results.get('sample_token', results.get('token', results.get('sample_idx'))))


def mask_cameras(calibration: Calibration, names: Collection[str]) -> Calibration:
    """The calibration with these cameras masked."""
    masked = torch.tensor([name in names for name in calibration.cam_names])
    return replace(calibration, cam_valid=calibration.cam_valid & ~masked)


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of a frame and the calibration that goes with them, and checks both.

    A rig that looks unlikely (see data.rig_checks) counts as bad with nuScenes' cameras and is a warning
    otherwise. A frame between keyframes (`is_keyframe` False) has no images: all its cameras are masked.

    Args:
        cam_names: which cameras, in which order; None takes the info's own (not possible for frames between keyframes).
        on_bad_image: 'error', or 'mask': a camera whose image or calibration cannot be used is masked (`cam_valid` False)
            and counted in `results['num_masked_cameras']`.
        max_stamp_gap_s: how far a camera's stamp may be from the LiDAR's, seconds.
        backend_args: MMEngine's file backend.

    Writes `img`, `calibration`, `num_masked_cameras`.

    Raises:
        ValueError: for a bad argument.
        BadFrameError: from `transform`, for a missing or damaged image; names camera, sample and file.
        DataError: from `transform`, for a camera that the info lacks or that is there twice, and for a calibration that is
            none; names camera and sample. Also where the images were loaded before.
        CalibrationError: from `transform`, for an image of another size than its calibration, a stamp too far away, or an
            unlikely rig; names camera and sample.
    """

    def __init__(
        self,
        cam_names: Sequence[str] | None = None,
        on_bad_image: str = 'error',
        max_stamp_gap_s: float = MAX_STAMP_GAP_S,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        if on_bad_image not in ON_BAD_IMAGE:
            raise ValueError(f"on_bad_image must be 'error' or 'mask', got {on_bad_image!r}")
        if not max_stamp_gap_s > 0:
            raise ValueError(f'max_stamp_gap_s must be above 0 s, got {max_stamp_gap_s}')
        if cam_names is not None:
            twice = [name for name, count in Counter(cam_names).items() if count > 1]
            if twice or not cam_names:
                raise ValueError(f'cam_names must be different cameras, got {list(cam_names)}')
        self.cam_names = None if cam_names is None else tuple(cam_names)
        self.on_bad_image, self.max_stamp_gap_s, self.backend_args = on_bad_image, max_stamp_gap_s, backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `img`, `calibration` and `num_masked_cameras`."""
        if 'calibration' in results:
            raise DataError(f'sample {sample_name(results)}: LoadMultiViewImages comes twice in the pipeline; the second would '
                            'undo what was done to the images since the first: leave one out')
        infos = results.get('images') or {}
        names = self._names(results, infos)
        images: dict[str, Image] = {}
        faults: list[str] = []
        if infos or results.get('is_keyframe', True):
            shared = {name: (*record, twins) for record, twins in shared_records(infos).items() for name in twins}
            for name in names:
                try:
                    images[name] = self._load(results, name, shared)
                except (BadFrameError, DataError, CalibrationError) as error:
                    if self.on_bad_image == 'error':
                        raise
                    faults.append(str(error))
        calibration = self._check_rig(self._calibration(results, names, images), sample_name(results), faults)
        for fault in faults:
            print_log(f'masked a camera: {fault}', 'current', level=30)
        sizes = calibration.img_hw_raw[0].tolist()
        results['img'] = [images[name] if name in images else np.zeros((*size, 3), np.uint8)
                          for name, size in zip(names, sizes)]
        results['calibration'] = calibration
        results[NUM_MASKED_KEY] = len(faults)
        return results

    def _check_rig(self, calibration: Calibration, sample: str, faults: list[str]) -> Calibration:
        """Masks the cameras that make nuScenes' rig unlikely and adds to `faults`, where the config allows it."""
        if self.on_bad_image == 'error' or not is_nuscenes_like(calibration):
            require_likely_rig(calibration, sample)
            return calibration
        problems = rig_problems(calibration)
        faults += [f'sample {sample}: {name}: {"; ".join(found)}' for name, found in problems.items()]
        return mask_cameras(calibration, problems)

    def _names(self, results: Mapping[str, Any], infos: Mapping[str, Any]) -> tuple[str, ...]:
        if self.cam_names is not None:
            return self.cam_names
        if not infos:
            raise DataError(f'sample {sample_name(results)} has no images (is it a frame between keyframes?): name the cameras '
                            'with LoadMultiViewImages(cam_names=[...])')
        return tuple(infos)

    def _load(self, results: Mapping[str, Any], name: str, shared: Mapping[str, tuple[str, str, list[str]]]) -> Image:
        """One camera's image, after all checks of it."""
        sample = sample_name(results)
        info = results['images'].get(name) if results.get('images') else None
        if info is None or not info.get('img_path'):
            raise DataError(f'sample {sample} has no image of camera {name}, it has {list(results.get("images") or {})}: check '
                            "cam_names, or load it with on_bad_image='mask'")
        if name in shared:
            key, value, twins = shared[name]
            raise DataError(f'sample {sample}: cameras {" and ".join(twins)} have the same {key} {value}: the info has a '
                            'camera twice')
        image = read_image(info['img_path'], self.backend_args, f'{name} of sample {sample}')
        calibration = self._calibration(results, (name,), {name: image})
        check_image_size(calibration, name, image.shape[:2], sample)
        check_stamps(calibration, sample, self.max_stamp_gap_s)
        return image

    def _calibration(self, results: Mapping[str, Any], names: Sequence[str], images: Mapping[str, Image]) -> Calibration:
        """The cameras `names`; one without an image is masked."""
        infos = {name: results['images'][name] if name in images else _ABSENT for name in names}
        sizes = {name: (image.shape[0], image.shape[1]) for name, image in images.items()}
        points = results['lidar_points']
        has_pose = 'global_from_lidar' in results or ('ego2global' in results and 'lidar2ego' in points)
        stamp_s = points.get('timestamp', results.get('timestamp', float('nan')))
        try:
            calibration = Calibration.from_info(
                infos, img_hw=sizes, global_from_lidar=lidar_pose(results) if has_pose else None, t_lidar=float(stamp_s))
        except ValueError as error:
            raise DataError(f'sample {sample_name(results)}: {error}') from error
        return replace(calibration, cam_valid=torch.tensor([[name in images for name in names]]))
