"""Data transforms. In: `img`, N (h, w, 3) uint8 BGR images of a frame. Out: the same sizes and geometry, other colours.

Draws come from numpy's global state, which the data set seeds, and are made for every camera, masked or not.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ..image_files import Image
from .image_labels import images_of
from .multiview_augmentation import check_probability, check_range

MEAN_BGR = (104, 116, 124)
"""The usual normalisation's mean, rounded: an area of this colour is about zero to the network."""
_MAX_HUE_DEG = 360.0


@TRANSFORMS.register_module()
class DistortImagesPhotometric(BaseTransform):
    """Brightness, contrast, saturation, hue and channel order, each with probability one half, drawn for each image.

    The steps, their order and ranges are those of mmdet's PhotoMetricDistortion (from SSD); the result is rounded to uint8.

    Args:
        brightness_delta: at most so much is added, of 255.
        contrast_range: factor of all channels, applied before or after the steps in HSV.
        saturation_range: factor of the saturation.
        hue_delta_deg: at most so many degrees of hue are added.
        swap_channels: whether to put the channels in any order.
    """

    def __init__(
        self,
        brightness_delta: float = 32.0,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta_deg: float = 18.0,
        swap_channels: bool = True,
    ) -> None:
        check_range('contrast_range', contrast_range)
        check_range('saturation_range', saturation_range)
        if brightness_delta < 0 or not 0 <= hue_delta_deg <= _MAX_HUE_DEG:
            raise ValueError(f'brightness_delta={brightness_delta} and hue_delta_deg={hue_delta_deg} must be 0 or more '
                             '(and the hue at most 360)')
        self.brightness_delta, self.contrast_range = brightness_delta, contrast_range
        self.saturation_range, self.hue_delta_deg, self.swap_channels = saturation_range, hue_delta_deg, swap_channels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Distorts every image of `img`; DataError where LoadMultiViewImages did not come before."""
        results['img'] = [self.distort(image) for image in images_of(results, type(self).__name__)]
        return results

    def distort(self, image: Image) -> Image:
        """One image; all numbers are drawn first, whichever of them are used."""
        brighter, contrast_first, contrasted, saturated, hued, swapped = np.random.random(6) < 0.5
        brightness = np.random.uniform(-self.brightness_delta, self.brightness_delta)
        contrast, saturation = np.random.uniform(*self.contrast_range), np.random.uniform(*self.saturation_range)
        hue_deg = np.random.uniform(-self.hue_delta_deg, self.hue_delta_deg)
        order = np.random.permutation(3)

        pixels = image.astype(np.float32)
        if brighter:
            pixels += np.float32(brightness)
        if contrasted and contrast_first:
            pixels *= np.float32(contrast)
        if saturated or hued:
            pixels = _in_hsv(pixels, saturation if saturated else 1.0, hue_deg if hued else 0.0)
        if contrasted and not contrast_first:
            pixels *= np.float32(contrast)
        if swapped and self.swap_channels:
            pixels = pixels[..., order]
        return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _in_hsv(pixels: npt.NDArray[np.float32], saturation: float, hue_deg: float) -> npt.NDArray[np.float32]:
    """(h, w, 3) float32 BGR with another saturation and hue; OpenCV's float HSV has degrees, 0 to 1 and the value as it is."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
    hsv[..., 1] = (hsv[..., 1] * np.float32(saturation)).clip(0, 1)
    hsv[..., 0] = (hsv[..., 0] + np.float32(hue_deg)) % np.float32(_MAX_HUE_DEG)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@TRANSFORMS.register_module()
class MaskImageGrid(BaseTransform):
    """GridMask (Chen et al. 2020): covers squares of a turned grid; one draw for all images of a frame.

    Args:
        prob: how often a frame is masked.
        ratio: side of a covered square by the grid's period, so `ratio` squared of the image is covered.
        period_range: of the grid's period, by the shorter side of the image.
        rotate_deg: the grid's angle is drawn from 0 to this.
        fill: BGR colour of the squares; the default is about zero after normalisation.
    """

    def __init__(
        self,
        prob: float = 0.7,
        ratio: float = 0.5,
        period_range: tuple[float, float] = (0.1, 1.0),
        rotate_deg: float = 90.0,
        fill: tuple[int, int, int] = MEAN_BGR,
    ) -> None:
        check_probability(prob)
        check_probability(ratio, 'ratio')
        check_range('period_range', period_range)
        if not period_range[0] > 0:
            raise ValueError(f'period_range must be positive, got {tuple(period_range)}')
        self.prob, self.ratio, self.period_range, self.rotate_deg, self.fill = prob, ratio, period_range, rotate_deg, fill

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Masks every image of `img`, or none; DataError where LoadMultiViewImages did not come before."""
        images = images_of(results, type(self).__name__)
        wanted = np.random.random() < self.prob
        period, angle = np.random.uniform(*self.period_range), np.radians(np.random.uniform(0, self.rotate_deg))
        phase = np.random.random(2)
        if wanted:
            results['img'] = [self._masked(image, period, angle, phase) for image in images]
        return results

    def _masked(self, image: Image, period: float, angle: float, phase: npt.NDArray[np.float64]) -> Image:
        height, width = image.shape[:2]
        period_px = max(2.0, period * min(height, width))
        v, u = np.ogrid[:height, :width]
        along = (np.cos(angle) * u + np.sin(angle) * v) / period_px + phase[0]
        across = (np.cos(angle) * v - np.sin(angle) * u) / period_px + phase[1]
        covered = (along % 1 < self.ratio) & (across % 1 < self.ratio)
        result = image.copy()
        result[covered] = self.fill
        return result
