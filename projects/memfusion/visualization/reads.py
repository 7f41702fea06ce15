"""Pictures. In: what a BEV cell reads of remembered frames, moved into the present (metres). Out: RGB crops side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .bev import BEVCanvas, draw_boxes, draw_ego, draw_points, draw_rings
from .box_set import BoxSet
from .memory import GAP_PX, HEADER_ROW_PX, MARK, PANEL_TITLE_PX
from .style import BACKGROUND, FAINT, HIDDEN, PREDICTION, TEXT, TRUTH, put_text

BAR_PX = 16


@dataclass(frozen=True)
class Panel:
    """One crop of a row.

    Attributes:
        title: above it.
        image: (S, S, 3) RGB.
        weight: 0..1, share of the read: a bar below it as wide as this share of the panel; None for none.
    """

    title: str
    image: np.ndarray
    weight: float | None = None


def draw_crop(
    points: np.ndarray | None,
    center_m: np.ndarray,
    half_m: float,
    truth: BoxSet | None = None,
    predictions: BoxSet | None = None,
    class_names: Sequence[str] = (),
    marked: BoxSet | None = None,
    cell_m: tuple[float, float] | None = None,
    size_px: int = 300,
) -> np.ndarray:
    """A square of ground from above: points by height, truth (green), predictions (orange, or violet where hidden now), and
    what the picture is about (cyan).

    Args:
        points: (P, 3+) or None.
        center_m: (2,) x, y of the middle.
        half_m: from the middle to each side.
        marked: boxes that it is about, over all others.
        cell_m: size of a BEV cell along x and y, outlined in the middle; None for none.

    Returns:
        (size_px, size_px, 3) RGB, x right, y up.
    """
    x, y = (float(value) for value in center_m)
    canvas = BEVCanvas((x - half_m, y - half_m, x + half_m, y + half_m), size_px)
    image = canvas.blank()
    draw_rings(image, canvas)
    if points is not None:
        draw_points(image, canvas, points, dim=1.0)
    if canvas.contains(np.zeros(2)):
        draw_ego(image, canvas)
    if predictions is not None:
        is_hidden = np.zeros(len(predictions), bool) if predictions.seen is None else predictions.seen < 0.5
        draw_boxes(image, canvas, predictions.keep(~is_hidden), PREDICTION, class_names, 2, text_below=True)
        draw_boxes(image, canvas, predictions.keep(is_hidden), HIDDEN, class_names, 2, text_below=True)
    if truth is not None:
        draw_boxes(image, canvas, truth, TRUTH, class_names, 2)
    if marked is not None:
        draw_boxes(image, canvas, marked, MARK, class_names, 2)
    if cell_m is not None:
        half = np.array(cell_m) / 2
        low, high = (tuple(np.rint(canvas.to_px(np.array([x, y]) + sign * half * [1, -1])).astype(int).tolist())
                     for sign in (-1, 1))
        cv2.rectangle(image, low, high, MARK, 1)
    return image


def draw_panels(panels: Sequence[Panel], header: Sequence[str] = ()) -> np.ndarray:
    """Panels of one size beside each other, GAP_PX apart, each with its title above and its weight below it.

    Args:
        panels: at least one.
        header: lines of text above everything.

    Returns:
        RGB uint8: HEADER_ROW_PX per header line, PANEL_TITLE_PX of titles, the crops, BAR_PX of bars where any has a weight.
    """
    height, width = panels[0].image.shape[:2]
    top = HEADER_ROW_PX * len(header) + PANEL_TITLE_PX
    bars = BAR_PX if any(panel.weight is not None for panel in panels) else 0
    image = np.full((top + height + bars, len(panels) * (width + GAP_PX) - GAP_PX, 3), BACKGROUND, dtype=np.uint8)
    for line, text in enumerate(header):
        put_text(image, text, 4, line * HEADER_ROW_PX + 20, TEXT, scale=0.5)
    for number, panel in enumerate(panels):
        left = number * (width + GAP_PX)
        put_text(image, panel.title, left + 4, top - 7, TEXT, scale=0.45)
        image[top:top + height, left:left + width] = panel.image
        if panel.weight is not None:
            image[top + height + 2:, left:left + width] = FAINT
            image[top + height + 2:, left:left + round(width * panel.weight)] = MARK
    return image


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other, GAP_PX apart, filled up to the widest."""
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, GAP_PX if number + 1 < len(rows) else 0), (0, width - row.shape[1]), (0, 0)))
              for number, row in enumerate(rows)]
    image = np.concatenate(filled)
    image[(image == 0).all(axis=2)] = BACKGROUND
    return image
