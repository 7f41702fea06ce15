"""Stage data: image files to checked arrays. In: a path. Out: (H, W, 3) uint8 BGR, the pixels of the file as they lie."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmengine.fileio import get

from .errors import BadFrameError

Image = npt.NDArray[np.uint8]
_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
# Calibration is of the sensor's own rows and columns, so a turn that the file's EXIF asks for is not done.
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: str, backend_args: dict[str, Any] | None = None, whose: str = 'image') -> Image:
    """Reads a colour image and checks that it is whole.

    Args:
        path: a JPEG, PNG or other file that OpenCV reads.
        backend_args: MMEngine's file backend, for storage that is not a local disk.
        whose: of which camera and sample, for the error.

    Raises:
        BadFrameError: naming path and `whose`, if the file is missing, truncated or no image.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        raise BadFrameError(
            path, f'({whose}) cannot be read ({error.strerror or type(error).__name__})',
            "check data_root and data_prefix (modality=dict(use_camera=True), data_prefix=dict(CAM_FRONT='samples/CAM_FRONT', "
            '...)), or unpack the file blob that holds it') from error
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), _READ_FLAGS) if content else None
    # Some versions of OpenCV fill up a cut JPEG with grey and return it.
    cut = content.startswith(_JPEG_START) and _JPEG_END not in content[-1024:]
    if image is None or cut:
        what = 'is empty' if not content else 'is truncated' if cut else 'is damaged or not an image'
        raise BadFrameError(path, f'({whose}) {what} ({len(content)} bytes)', 'copy or generate the file again')
    return image
