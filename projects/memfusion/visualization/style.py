"""Pictures: colours (RGB), class initials, text, legends and colour bars; arrays in, arrays drawn on in place."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]
BACKGROUND: Color = (16, 18, 24)
TRUTH: Color = (70, 220, 90)
PREDICTION: Color = (255, 140, 30)
HIDDEN: Color = (200, 110, 255)
"""Predictions that are more likely hidden than seen now."""
TEXT: Color = (230, 232, 236)
FAINT: Color = (70, 76, 90)
MUTED: Color = (150, 156, 170)
EGO: Color = (90, 170, 255)

_INITIALS = dict(
    car='C', truck='T', construction_vehicle='CV', bus='B', trailer='TL', barrier='BR', motorcycle='M', bicycle='BI',
    pedestrian='P', traffic_cone='TC')
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def initials(label: int, class_names: Sequence[str]) -> str:
    """One or two letters of a class; its number where it has no name, '?' for the ignored class -1."""
    if label < 0:
        return '?'
    if label >= len(class_names):
        return str(label)
    name = class_names[label]
    return _INITIALS.get(name, name[:2].upper())


def colorize(values: np.ndarray, low: float, high: float, colormap: int = cv2.COLORMAP_TURBO) -> np.ndarray:
    """(...) values -> (..., 3) uint8 RGB; `low` and `high` are the ends of the colour map."""
    level = np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0.0, 1.0)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colormap)[:, 0, ::-1]
    return table[np.rint(level * 255).astype(np.int64)]


def put_text(image: np.ndarray, text: str, left: int, baseline: int, color: Color = TEXT, scale: float = 0.5) -> None:
    """Text with a dark rim, so that it can be read on anything."""
    thickness = max(1, round(scale * 2))
    cv2.putText(image, text, (left, baseline), _FONT, scale, (0, 0, 0), thickness + 2, cv2.LINE_AA)
    cv2.putText(image, text, (left, baseline), _FONT, scale, color, thickness, cv2.LINE_AA)


def text_width(text: str, scale: float = 0.5) -> int:
    """Pixels that a line of text is wide."""
    return int(cv2.getTextSize(text, _FONT, scale, max(1, round(scale * 2)))[0][0])


def draw_legend(image: np.ndarray, entries: Sequence[tuple[str, Color | None]], left: int, top: int,
                scale: float = 0.5) -> None:
    """One line per (text, colour) on a dark plate, with a swatch before it unless the colour is None."""
    row = round(44 * scale)
    width = max((text_width(text, scale) for text, _ in entries), default=0) + 2 * row
    bottom = min(top + row * len(entries) + row // 3, image.shape[0])
    plate = image[top:bottom, left:left + width]
    plate[:] = plate // 4
    for index, (text, color) in enumerate(entries):
        y = top + index * row + row // 2
        if color is not None:
            cv2.rectangle(image, (left + row // 3, y), (left + row, y + row // 3), color, -1)
        put_text(image, text, left + (row // 3 if color is None else row + row // 3), y + row // 3 + 1, scale=scale)


def color_bar(height: int, low: float, high: float, title: str, colormap: int = cv2.COLORMAP_TURBO) -> np.ndarray:
    """(height, 90, 3) RGB strip: the colour map with five ticks, `high` at the top, and a title above it."""
    bar = np.full((height, 90, 3), BACKGROUND, dtype=np.uint8)
    top, bottom = 34, height - 16
    values = np.linspace(high, low, bottom - top)
    bar[top:bottom, 12:32] = colorize(values, low, high, colormap)[:, None]
    for share in np.linspace(0, 1, 5):
        y = round(bottom - 1 - share * (bottom - 1 - top))
        cv2.line(bar, (32, y), (37, y), TEXT, 1)
        put_text(bar, f'{low + share * (high - low):.3g}', 40, y + 5, scale=0.42)
    put_text(bar, title, 8, 20, scale=0.45)
    return bar
