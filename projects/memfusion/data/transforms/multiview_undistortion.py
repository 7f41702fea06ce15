"""Data transform. In: `img` as loaded and `calibration` with its lens models. Out: pinhole images, their K in it."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from projects.geometry.distortion import PINHOLE

from ..image_undistortion import undistort_image
from .image_labels import calibration_of, images_of, require_raw_images


@TRANSFORMS.register_module()
class UndistortImages(BaseTransform):
    """Makes each image what a pinhole would have taken, at the same size. Stands right after LoadMultiViewImages.

    The new K is in `calibration.img_from_cam`, the lens model is then the pinhole. Cameras without distortion stay as they
    are. Image labels are of the images as they were written and cannot go with it (`labels_to_network` says so).

    Raises:
        DataError: from `transform`, naming the camera, where its image was changed before.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes `img` and `calibration`."""
        old = calibration_of(results, type(self).__name__)
        bent = old.distortion_model[0] != PINHOLE
        require_raw_images(results, type(self).__name__, bent)
        new, images = old.undistorted(), images_of(results, type(self).__name__)
        for camera in bent.nonzero()[:, 0].tolist():
            images[camera] = undistort_image(
                images[camera], old.img_from_cam[0, camera], old.distortion_model[0, camera], old.distortion[0, camera],
                new.img_from_cam[0, camera])
        results['img'], results['calibration'] = images, new
        return results
