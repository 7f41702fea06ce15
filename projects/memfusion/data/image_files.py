"""Stage data: image files to checked arrays. In: a path. Out: (H, W, 3) uint8 BGR, the pixels of the file as they lie."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.fileio import get
from PIL import Image as PILImage

from .errors import BadFrameError

Image = npt.NDArray[np.uint8]
MAX_PIXELS = 100_000_000
"""A header that says more is damaged; to follow it would take all memory."""


def read_image(path: str, backend_args: dict[str, Any] | None = None, whose: str = 'image') -> Image:
    """Reads a colour image and checks that it is whole.

    Args:
        path: a JPEG, PNG or other file that Pillow reads; colours of 16 bits come as 8. Pillow, because it refuses cut files
            and broken streams, which OpenCV fills up with grey; of whole JPEGs both give the same pixels. Damage that still
            decodes is noticed by neither.
        backend_args: MMEngine's file backend, for storage that is not a local disk.
        whose: of which camera and sample, for the error.

    Raises:
        BadFrameError: naming path and `whose`, if the file is missing, truncated, damaged, no image, larger than MAX_PIXELS, or
            grey of more than 8 bits.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        raise BadFrameError(
            path, f'({whose}) cannot be read ({error.strerror or type(error).__name__})',
            "check data_root and data_prefix (modality=dict(use_camera=True), data_prefix=dict(CAM_FRONT='samples/CAM_FRONT', "
            '...)), or unpack the file blob that holds it') from error
    try:
        # Opened as it lies: a turn that EXIF asks for is not done, calibration is of the sensor's own rows and columns.
        with PILImage.open(io.BytesIO(content)) as file:
            if file.width * file.height > MAX_PIXELS:
                raise BadFrameError(path, f'({whose}) says that it has {file.width} x {file.height} pixels', 'copy it again')
            if file.mode.startswith(('I', 'F')):
                raise BadFrameError(path, f'({whose}) is grey of more than 8 bits', 'convert it to 8 bits')
            pixels = np.asarray(file if file.mode == 'RGB' else file.convert('RGB'))
    except BadFrameError:
        raise
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:  # SyntaxError is Pillow's for PNG
        what = 'is empty' if not content else 'is truncated, damaged or not an image'
        raise BadFrameError(path, f'({whose}) {what} ({len(content)} bytes)', 'copy or generate the file again') from error
    return np.ascontiguousarray(pixels[..., ::-1])
