"""Data transform for counterfactual tests. In: `img` and `calibration` as loaded. Out: images that do not show this scene.

A detector that scores the same with them does not use its cameras.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.geometry.distortion import MODELS
from projects.memfusion.structures.calibration import Calibration

from ..errors import BadFrameError, DataError
from ..image_files import Image, read_image
from ..sequence_fields import load_info_file
from .image_labels import calibration_of, images_of, require_raw_images
from .multiview_appearance import MEAN_BGR
from .multiview_loading import mask_cameras, sample_name
from .sensor_faults import FaultDraws

MODES = ('blank', 'masked', 'other_scene')
Donors = dict[str, list[dict[str, str]]]
"""File names of images: {scene_token: [{camera: name} for each keyframe]}."""


@TRANSFORMS.register_module()
class ReplaceImages(BaseTransform):
    """Replaces all images of a frame; the calibration stays the frame's own. Stands right after LoadMultiViewImages.

    Args:
        mode: 'blank': one colour; 'masked': all cameras are masked; 'other_scene': the images of the same cameras in a
            frame of another scene, which a test cannot tell from true ones by their looks.
        fill: the colour of 'blank', BGR; the default is about zero after normalisation.
        ann_file: for 'other_scene': the info file to take frames from, with sequence fields (tools/create_data.py). Its
            images lie in the folders of the frame's own.
        seed: of the choice of frames, which depends on it and the frame only.
        backend_args: MMEngine's file backend.

    Raises:
        ValueError: for an unknown mode, or an ann_file that is missing or not used.
        DataError: from `transform`, where the info file has no other scene, or not this camera; for 'other_scene', where
            the images were changed before.
        BadFrameError: from `transform`, for an image that cannot be read or has another size than the one it replaces.
    """

    def __init__(
        self,
        mode: str,
        fill: tuple[int, int, int] = MEAN_BGR,
        ann_file: str | None = None,
        seed: int = 0,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"ReplaceImages: mode must be {' or '.join(map(repr, MODES))}, got {mode!r}")
        if (mode == 'other_scene') != (ann_file is not None):
            raise ValueError(f"ReplaceImages: mode='other_scene' needs ann_file, the other modes do not: got mode={mode!r}, "
                             f'ann_file={ann_file!r}')
        self.mode, self.fill, self.ann_file, self.backend_args = mode, fill, ann_file, backend_args
        self.draws = FaultDraws(type(self).__name__, 'frame', seed)
        self._donors: Donors | None = None

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes `img`, or with 'masked' the `calibration`."""
        calibration, images = calibration_of(results, type(self).__name__), images_of(results, type(self).__name__)
        if self.mode == 'masked':
            results['calibration'] = mask_cameras(calibration, calibration.cam_names)
        elif self.mode == 'blank':
            results['img'] = [np.full_like(image, self.fill) for image in images]
        else:
            self._require_raw_images(results, calibration)
            donor = self._choose(results)
            valid = calibration.cam_valid[0].tolist()
            results['img'] = [self._image_of(donor, name, image, results) if there else image
                              for name, image, there in zip(calibration.cam_names, images, valid)]
        return results

    def _require_raw_images(self, results: dict[str, Any], calibration: Calibration) -> None:
        """The donors are images as they were taken, so the frame's own must be, too."""
        who = f'{type(self).__name__}(mode={self.mode!r})'
        require_raw_images(results, who, torch.ones_like(calibration.cam_valid[0]))
        for camera in calibration.cam_valid[0].nonzero()[:, 0].tolist():
            name = calibration.cam_names[camera]
            lens = results['images'][name].get('distortion') or dict(model='pinhole')
            if MODELS[int(calibration.distortion_model[0, camera])] != lens['model']:
                raise DataError(f'{who} must come before UndistortImages in the pipeline: the image of {name} is undistorted '
                                'already, and that of another scene would not be')

    def _choose(self, results: dict[str, Any]) -> dict[str, str]:
        """A frame of another scene."""
        if self._donors is None:
            self._donors = _read_donors(str(self.ann_file))
        others = sorted(set(self._donors) - {results['scene_token']})
        if not others:
            raise DataError(f"{self.ann_file}: no other scene than that of sample {sample_name(results)} to take images from")
        rng = self.draws.generator(results)
        frames = self._donors[others[rng.integers(len(others))]]
        return frames[rng.integers(len(frames))]

    def _image_of(self, donor: dict[str, str], camera: str, own: Image, results: dict[str, Any]) -> Image:
        if camera not in donor:
            raise DataError(f'{self.ann_file}: a frame of another scene has no camera {camera}, it has {list(donor)}')
        path = os.path.join(os.path.dirname(results['images'][camera]['img_path']), donor[camera])
        image = read_image(path, self.backend_args, f'{camera} of another scene')
        if image.shape != own.shape:
            raise BadFrameError(path, f'({camera} of another scene) is {image.shape[1]} x {image.shape[0]}, what it stands for '
                                f'is {own.shape[1]} x {own.shape[0]}', 'put ReplaceImages right after LoadMultiViewImages')
        return image


def _read_donors(ann_file: str) -> Donors:
    infos, _ = load_info_file(ann_file)
    donors: Donors = {}
    for info in infos:
        if 'scene_token' not in info:
            raise DataError(f'{ann_file} does not say the scenes of its frames: make it with tools/create_data.py')
        names = {camera: re.split(r'[/\\]', image['img_path'])[-1] for camera, image in info.get('images', {}).items()}
        if names:
            donors.setdefault(info['scene_token'], []).append(names)
    return donors
