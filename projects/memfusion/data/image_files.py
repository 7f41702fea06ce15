"""Stage data: image files to checked arrays. In: a path. Out: (H, W, 3) uint8 BGR, the pixels of the file as they lie."""

from __future__ import annotations

from typing import Any

import mmcv
import numpy as np
import numpy.typing as npt
from mmengine.fileio import get

from .errors import BadFrameError

Image = npt.NDArray[np.uint8]
# Calibration is of the sensor's own rows and columns, so a turn that the file's EXIF asks for is not done.
_FLAG = 'color_ignore_orientation'


def read_image(path: str, backend_args: dict[str, Any] | None = None, whose: str = 'image') -> Image:
    """Reads a colour image and checks that it is whole.

    Args:
        path: a JPEG, PNG or other file that Pillow reads. (OpenCV fills up what is damaged and returns it; where both read a
            JPEG their pixels are the same.)
        backend_args: MMEngine's file backend, for storage that is not a local disk.
        whose: of which camera and sample, for the error.

    Raises:
        BadFrameError: naming path and `whose`, if the file is missing, truncated, damaged or no image.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        raise BadFrameError(
            path, f'({whose}) cannot be read ({error.strerror or type(error).__name__})',
            "check data_root and data_prefix (modality=dict(use_camera=True), data_prefix=dict(CAM_FRONT='samples/CAM_FRONT', "
            '...)), or unpack the file blob that holds it') from error
    try:
        return np.ascontiguousarray(mmcv.imfrombytes(content, flag=_FLAG, backend='pillow'))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for what it cannot read; SyntaxError is for PNG
        what = 'is empty' if not content else 'is truncated, damaged or not an image'
        raise BadFrameError(path, f'({whose}) {what} ({len(content)} bytes)', 'copy or generate the file again') from error
