"""Data transforms. In: `img`, N (h, w, 3) uint8 images, and `calibration`. Out: both changed together, network pixels.

`img_hw` of the calibration is always the size of the image: nothing pads here (the data preprocessor does, right and below),
so that no padded pixel is ever valid. Draws are made for every camera, masked or not, from numpy's global state, which the
data set seeds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from torch import Tensor

from projects.geometry.homography import (
    crop_homography,
    flip_homography,
    resize_homography,
    rotation_homography,
)

from ..image_files import Image
from .image_labels import calibration_of, images_of

Change = tuple[Image, Tensor]
"""A new image, and the (4, 4) homography from the old one's pixels to its own."""


class MultiViewTransform(BaseTransform):
    """Changes the images of a frame one by one, and `calibration.img_aug` and `img_hw` with each."""

    @abstractmethod
    def change(self, image: Image) -> Change | None:
        """Draws and changes one image, (h, w, 3); None leaves it as it is."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Changes `img` and `calibration`; DataError where LoadMultiViewImages did not come before."""
        calibration = calibration_of(results, type(self).__name__)
        images = images_of(results, type(self).__name__)
        for camera, image in enumerate(images):
            changed = self.change(image)
            if changed is not None:
                images[camera], homography = changed
                height, width = images[camera].shape[:2]
                calibration = calibration.with_img_aug(camera, homography, (height, width))
        results['img'], results['calibration'] = images, calibration
        return results


@TRANSFORMS.register_module()
class ResizeImages(MultiViewTransform):
    """Resizes each image; the matrix has the ratio that each axis really got, after rounding.

    Args:
        size: (height, width) of the result before `scale_range`; the image's aspect is given up.
        width: instead of `size`: the width, and the height that keeps the aspect. With neither, the image's own size.
        scale_range: both are multiplied by one number from this range, drawn for each image.

    Raises:
        ValueError: for both size and width, or sizes and scales that are not positive.
    """

    def __init__(
        self, size: tuple[int, int] | None = None, width: int | None = None, scale_range: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        if size is not None and width is not None:
            raise ValueError(f'give size={tuple(size)} or width={width}, not both')
        if min(*(size or (1,)), 1 if width is None else width) < 1:
            raise ValueError(f'sizes must be at least 1 pixel, got size={size}, width={width}')
        check_range('scale_range', scale_range)
        if not scale_range[0] > 0:
            raise ValueError(f'scale_range must be positive, got {tuple(scale_range)}')
        self.size, self.width, self.scale_range = size, width, scale_range

    def change(self, image: Image) -> Change:
        """The resized image; smaller ones are averaged over areas, so that fine texture does not alias."""
        scale = np.random.uniform(*self.scale_range)
        from_hw = (image.shape[0], image.shape[1])
        if self.size is not None:
            base = (float(self.size[0]), float(self.size[1]))
        else:
            ratio = 1.0 if self.width is None else self.width / from_hw[1]
            base = (from_hw[0] * ratio, from_hw[1] * ratio)
        height, width = (max(1, round(side * scale)) for side in base)
        shrinks = height < from_hw[0] and width < from_hw[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return resized, resize_homography(from_hw, (height, width))


@TRANSFORMS.register_module()
class CropImages(MultiViewTransform):
    """Cuts a window of `size` out of each image. Where an image is smaller, all of it is kept along that axis.

    What the window lacks below and to the right is padded with zeros by the data preprocessor, after normalisation.

    Args:
        size: (height, width) of the window.
        vertical: where the window lies in the room above and below it, drawn from this range: 0 is the top, 1 the bottom.
        horizontal: the same from left (0) to right (1).

    Raises:
        ValueError: for a size below 1 or places outside 0 to 1.
    """

    def __init__(
        self, size: tuple[int, int], vertical: tuple[float, float] = (1.0, 1.0), horizontal: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        if min(size) < 1:
            raise ValueError(f'size must be at least 1 pixel each way, got {tuple(size)}')
        for name, places in dict(vertical=vertical, horizontal=horizontal).items():
            check_range(name, places)
            if places[0] < 0 or places[1] > 1:
                raise ValueError(f'{name} must lie within 0 to 1, got {tuple(places)}')
        self.size, self.vertical, self.horizontal = size, vertical, horizontal

    def change(self, image: Image) -> Change:
        """The window, at whole pixels."""
        places = np.random.uniform(*self.vertical), np.random.uniform(*self.horizontal)
        room = [max(0, image.shape[axis] - self.size[axis]) for axis in (0, 1)]
        y0, x0 = (round(place * free) for place, free in zip(places, room))
        return image[y0:y0 + self.size[0], x0:x0 + self.size[1]], crop_homography(x0, y0)


@TRANSFORMS.register_module()
class FlipImages(MultiViewTransform):
    """Mirrors each image left to right with probability `prob`; the extrinsics stay as they are."""

    def __init__(self, prob: float = 0.5) -> None:
        check_probability(prob)
        self.prob = prob

    def change(self, image: Image) -> Change | None:
        """The mirrored image."""
        if np.random.random() >= self.prob:
            return None
        return cv2.flip(image, 1), flip_homography(image.shape[1])


@TRANSFORMS.register_module()
class RotateImages(MultiViewTransform):
    """Turns each image about its centre; positive is counter-clockwise as one looks at the picture.

    The size stays; the corners that are left uncovered are black, and not valid in `Calibration.project`. Once per image;
    resizing, cropping and mirroring may come before and after.

    Args:
        range_deg: each image's angle is drawn from this range, degrees.

    Raises:
        ValueError: from `transform`, naming the camera, where its image was turned before.
    """

    def __init__(self, range_deg: tuple[float, float] = (-5.4, 5.4)) -> None:
        check_range('range_deg', range_deg)
        self.range_deg = range_deg

    def change(self, image: Image) -> Change | None:
        """The turned image."""
        angle_deg = np.random.uniform(*self.range_deg)
        if angle_deg == 0:
            return None
        height, width = image.shape[:2]
        homography = rotation_homography(angle_deg, (height, width))
        turned = cv2.warpAffine(image, homography[:2, :3].numpy(), (width, height), flags=cv2.INTER_LINEAR)
        return turned, homography


def check_range(name: str, limits: Sequence[float]) -> None:
    """Raises ValueError naming the argument unless it is (low, high) in this order."""
    if len(limits) != 2 or not limits[0] <= limits[1]:
        raise ValueError(f'{name} must be (low, high), got {limits}')


def check_probability(prob: float, name: str = 'prob') -> None:
    """Raises ValueError naming the argument unless it is a probability."""
    if not 0 <= prob <= 1:
        raise ValueError(f'{name} must lie within 0 to 1, got {prob}')
