"""Pictures. In: RGB arrays. Out: PNG files, and GIF strips with a contact sheet. Files appear when whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .style import BACKGROUND


def read_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. OSError, naming the file, where it is missing, truncated or no image."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert('RGB'))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:  # Pillow's words for truncated and broken files
        raise OSError(errno.EIO, f'not a readable image ({error})', str(path)) from error


def write_png(path: str | Path, image: np.ndarray) -> Path:
    """Writes (H, W, 3) uint8 RGB; makes the folder. OSError where it cannot be written."""
    done, encoded = cv2.imencode('.png', np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise OSError(f'cannot encode {path}: an image of shape {image.shape} and type {image.dtype}')
    return _write_whole(Path(path), encoded.tobytes())


def write_strip(frames: Sequence[np.ndarray], path: str | Path, frame_ms: int = 500, columns: int = 4,
                max_width_px: int = 1920) -> tuple[Path, Path]:
    """An animated GIF and, beside it, a PNG contact sheet `<stem>_sheet.png` of the same frames.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size, at least one.
        path: of the GIF.
        frame_ms: how long each frame stays.
        columns: frames in a row of the sheet.
        max_width_px: the sheet is scaled down to this.

    Raises:
        ValueError: where there are no frames or their sizes differ.
    """
    if not frames or len({frame.shape for frame in frames}) != 1:
        raise ValueError(f'a strip needs frames of one size, got {[frame.shape for frame in frames]}')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # one palette for all frames, from a sheet of them, so that colours do not flicker
    sheet = contact_sheet(frames, columns, max_width_px)
    palette = Image.fromarray(sheet).quantize(colors=255, method=Image.Quantize.MEDIANCUT)
    indexed = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    part = path.with_name(path.name + '.part')
    indexed[0].save(part, format='GIF', save_all=True, append_images=indexed[1:], duration=frame_ms, loop=0)
    os.replace(part, path)
    return path, write_png(path.with_name(f'{path.stem}_sheet.png'), sheet)


def contact_sheet(frames: Sequence[np.ndarray], columns: int = 4, max_width_px: int = 1920) -> np.ndarray:
    """All frames in rows of `columns`, at most `max_width_px` wide, RGB."""
    rows = -(-len(frames) // columns)
    columns = -(-len(frames) // rows)  # no emptier row than needed
    height, width = frames[0].shape[:2]
    scale = min(1.0, max_width_px / (columns * width))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    sheet = np.full((rows * size[1], columns * size[0], 3), BACKGROUND, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * size[1], index % columns * size[0]
        sheet[top:top + size[1], left:left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return sheet


def _write_whole(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    part.write_bytes(content)
    os.replace(part, path)
    return path
