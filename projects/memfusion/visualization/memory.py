"""Pictures. In: affinities of one query cell over stored frames, each in its own grid (metres). Out: RGB, x right, y up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .bev import BEVCanvas, draw_ego, draw_rings, gate_image
from .style import BACKGROUND, MUTED, TEXT, Color, color_bar, put_text

MARK: Color = (60, 235, 255)  # light cyan: inferno, the points' turbo and the boxes do not have it
GAP_PX = 6
HEADER_ROW_PX = 28
PANEL_TITLE_PX = 24


@dataclass(frozen=True)
class StoredFrame:
    """One slot of working memory, as a query cell of a later frame sees it.

    Attributes:
        affinity: (Hm, Wm), row 0 at y_min: what each stored cell contributes to the read.
        lag_s: seconds between this frame and the current one.
        mark_m: (2,) x, y of the query cell's world position in this frame's own coordinates; may lie outside the grid.
        points: (P, 3+) of this frame in its own coordinates, or None.
    """

    affinity: np.ndarray
    lag_s: float
    mark_m: np.ndarray
    points: np.ndarray | None = None


def draw_attention(
    current: np.ndarray,
    stored: Sequence[StoredFrame],
    range_m: Sequence[float],
    header: Sequence[str] = (),
    size_px: int = 420,
) -> np.ndarray:
    """The current frame at the left, the stored frames beside it, newest first, in two rows with one colour scale.

    Args:
        current: (H, W, 3) RGB, what the current frame looks like, see `mark_cell`.
        stored: newest first; none where memory was empty.
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range, of all grids.
        header: lines of text above everything.
        size_px: pixels along the longer side of a stored frame.

    Returns:
        RGB uint8: the header, below it `current`, the stored frames (GAP_PX apart) and the colour bar.
    """
    high = max((float(frame.affinity.max()) for frame in stored), default=0.0) or 1.0
    panels = [draw_stored_frame(frame, range_m, high, size_px) for frame in stored]
    top = HEADER_ROW_PX * len(header)
    columns = -(-len(panels) // 2)
    height, width = panels[0].shape[:2] if panels else (0, 0)
    body = max(current.shape[0], 2 * height + GAP_PX)
    left = current.shape[1] + GAP_PX
    bar_left = left + columns * (width + GAP_PX)
    image = np.full((top + body, bar_left + (110 if panels else 0), 3), BACKGROUND, dtype=np.uint8)
    for line, text in enumerate(header):
        put_text(image, text, 10, line * HEADER_ROW_PX + 20, TEXT, scale=0.55)
    image[top:top + current.shape[0], :current.shape[1]] = current
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        y, x = top + row * (height + GAP_PX), left + column * (width + GAP_PX)
        image[y:y + height, x:x + width] = panel
    if panels:
        image[top:, bar_left:bar_left + 90] = color_bar(body, 0.0, high, 'affinity', cv2.COLORMAP_INFERNO)
    return image


def draw_stored_frame(stored: StoredFrame, range_m: Sequence[float], high: float, size_px: int = 420) -> np.ndarray:
    """One stored frame: title, affinity as a heat map with this frame's points on it, a cross at the query's place.

    Args:
        range_m: as in `draw_attention`.
        high: the affinity at the bright end of the colours.

    Returns:
        RGB uint8: PANEL_TITLE_PX rows of title, below them the grid.
    """
    canvas = BEVCanvas.of_range(range_m, size_px)
    image = gate_image(canvas, stored.affinity / high)
    if stored.points is not None:
        _draw_dots(image, canvas, stored.points)
    draw_rings(image, canvas)
    draw_ego(image, canvas)
    inside = bool(canvas.contains(stored.mark_m))
    if inside:
        mark_place(image, canvas, stored.mark_m)
    title = np.full((PANEL_TITLE_PX, image.shape[1], 3), BACKGROUND, dtype=np.uint8)
    put_text(title, f'{stored.lag_s:.2f} s ago: {100 * stored.affinity.sum():.0f} % of the read', 4, 17, TEXT, scale=0.48)
    if not inside:
        put_text(image, 'the place lies outside this grid', 8, image.shape[0] - 10, MARK, scale=0.45)
    return np.concatenate([title, image])


def mark_cell(image: np.ndarray, range_m: Sequence[float], center_m: np.ndarray, cell_m: tuple[float, float]) -> None:
    """Outlines the query cell in a picture of the whole range and circles it, so that it is found; in place.

    Args:
        image: (H, W, 3), what `draw_bev` gives for the same range.
        center_m: (2,) x, y of the cell's centre.
        cell_m: its size along x and y.
    """
    canvas = BEVCanvas.of_range(range_m, max(image.shape[:2]))
    half = np.array(cell_m) / 2
    low, high = (tuple(np.rint(canvas.to_px(center_m + sign * half * [1, -1])).astype(int).tolist()) for sign in (-1, 1))
    middle = tuple(np.rint(canvas.to_px(center_m)).astype(int).tolist())
    radius = max(18, round(1.2 * float(np.hypot(*half)) * canvas.px_per_m))
    for color, thickness in (((0, 0, 0), 4), (MARK, 2)):  # a dark rim: it shows on anything
        cv2.rectangle(image, low, high, color, thickness)
        cv2.circle(image, middle, radius, color, thickness, cv2.LINE_AA)


def mark_place(image: np.ndarray, canvas: BEVCanvas, place_m: np.ndarray) -> None:
    """A tilted cross at (2,) metres, open in the middle so that the cell below it shows; in place."""
    column, row = np.rint(canvas.to_px(place_m)).astype(int).tolist()
    for color, thickness in (((0, 0, 0), 4), (MARK, 2)):
        for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            cv2.line(image, (column + 8 * x, row + 8 * y), (column + 15 * x, row + 15 * y), color, thickness, cv2.LINE_AA)


def _draw_dots(image: np.ndarray, canvas: BEVCanvas, points: np.ndarray) -> None:
    """Points as dim dots that let the heat map show through; in place."""
    xy = points[:, :2][np.isfinite(points[:, :2]).all(axis=1)]
    column, row = np.rint(canvas.to_px(xy[canvas.contains(xy)])).astype(np.int64).T
    height, width = image.shape[:2]
    at = (np.clip(row, 0, height - 1), np.clip(column, 0, width - 1))
    image[at] = (image[at] // 2 + np.array(MUTED) // 2).astype(np.uint8)
