"""Contract, no network: the images of one frame with their calibration. In: packed frames. Out: the data preprocessor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .calibration import Calibration
from .packing import Layout, pack, unpack


@dataclass(frozen=True)
class CameraFrame:
    """N images and what maps LiDAR points onto them. It crosses from a loading process as one tensor.

    Attributes:
        images: N tensors (3, h, w) uint8, BGR, each of its own size; what a masked camera shows has no meaning.
        calibration: of the same N cameras, B is 1; `img_hw` are the sizes of `images`.

    Raises:
        ValueError: naming the camera, where an image is not what the calibration says.
    """

    images: tuple[Tensor, ...]
    calibration: Calibration

    def __post_init__(self) -> None:
        names = self.calibration.cam_names
        if len(self.images) != len(names) or len(self.calibration.bev_aug) != 1:
            raise ValueError(f'{len(self.images)} images and a calibration of {len(self.calibration.bev_aug)} frames of the '
                             f'cameras {list(names)} are not one frame')
        for name, image, size in zip(names, self.images, self.calibration.img_hw[0].tolist()):
            if image.dtype != torch.uint8 or list(image.shape) != [3, *size]:
                raise ValueError(f'camera {name}: the image is {image.dtype} of shape {tuple(image.shape)}, the calibration '
                                 f'says uint8 of (3, {size[0]}, {size[1]}): change image and calibration together '
                                 '(Calibration.with_img_aug)')

    def pin_memory(self) -> CameraFrame:
        """The same in page-locked memory, as one block; DataLoader(pin_memory=True) calls it."""
        buffer, layout = self._packed()
        return _unpacked(self.calibration.cam_names, self.calibration.padded_hw, buffer.pin_memory(), layout)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self.calibration.cam_names, self.calibration.padded_hw, *self._packed())

    def _packed(self) -> tuple[Tensor, Layout]:
        return pack([*self.images, *self.calibration.tensors])


def _unpacked(cam_names: tuple[str, ...], padded_hw: tuple[int, int] | None, buffer: Tensor, layout: Layout) -> CameraFrame:
    tensors, count = unpack(buffer, layout), len(cam_names)
    return CameraFrame(tuple(tensors[:count]), Calibration.from_tensors(cam_names, padded_hw, tensors[count:]))
