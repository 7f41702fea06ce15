"""Pictures. In: points, boxes and a gate in the LiDAR frame (metres). Out: an RGB bird's eye view, x right, y up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from .box_set import BoxSet
from .style import (
    BACKGROUND,
    EGO,
    FAINT,
    HIDDEN,
    MUTED,
    PREDICTION,
    TEXT,
    TRUTH,
    Color,
    colorize,
    draw_legend,
    initials,
    put_text,
)

_SUBPIXEL = 4  # bits: OpenCV draws at 1/16 pixel
HEIGHT_RANGE_M = (-2.5, 3.0)


@dataclass(frozen=True)
class BEVCanvas:
    """Maps metres to pixels of a picture.

    Args:
        range_m: (x_min, y_min, x_max, y_max).
        size_px: pixels along the longer side.
    """

    range_m: tuple[float, float, float, float]
    size_px: int = 900

    @classmethod
    def of_range(cls, range_m: Sequence[float], size_px: int = 900) -> BEVCanvas:
        """`range_m` is 4 numbers as above or mmdet3d's 6-number point_cloud_range; ValueError where it is neither."""
        values = tuple(float(value) for value in range_m)
        if len(values) == 6:
            values = (values[0], values[1], values[3], values[4])
        if len(values) != 4 or values[2] <= values[0] or values[3] <= values[1]:
            raise ValueError(f'range_m must be x_min, y_min, x_max, y_max or a point_cloud_range, got {list(range_m)}')
        return cls((values[0], values[1], values[2], values[3]), size_px)

    @property
    def px_per_m(self) -> float:
        """Scale."""
        x_min, y_min, x_max, y_max = self.range_m
        return self.size_px / max(x_max - x_min, y_max - y_min)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        x_min, y_min, x_max, y_max = self.range_m
        return round((y_max - y_min) * self.px_per_m), round((x_max - x_min) * self.px_per_m)

    def to_px(self, xy_m: np.ndarray) -> np.ndarray:
        """(..., 2) metres -> (..., 2) column and row; a pixel's centre is a whole number."""
        columns = (xy_m[..., 0] - self.range_m[0]) * self.px_per_m - 0.5
        rows = (self.range_m[3] - xy_m[..., 1]) * self.px_per_m - 0.5
        return np.stack([columns, rows], axis=-1)

    def contains(self, xy_m: np.ndarray) -> np.ndarray:
        """(..., 2) metres -> (...) bool."""
        x_min, y_min, x_max, y_max = self.range_m
        x, y = xy_m[..., 0], xy_m[..., 1]
        return (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max)

    def blank(self) -> np.ndarray:
        """An empty picture."""
        return np.full((*self.shape, 3), BACKGROUND, dtype=np.uint8)


def draw_bev(
    points: np.ndarray | Tensor | None,
    range_m: Sequence[float],
    truth: BoxSet | None = None,
    predictions: BoxSet | None = None,
    class_names: Sequence[str] = (),
    gate: np.ndarray | Tensor | None = None,
    title: str = '',
    size_px: int = 900,
) -> np.ndarray:
    """Points by height, truth (green), predictions (orange) with heading lines and class initials, rings every 10 m.

    Predictions that say whether they are seen now are violet where they are not, and both scores stand beside them.

    Args:
        points: (P, 3+) in the LiDAR frame, or None.
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        truth, predictions: what to draw; filter by score with BoxSet.above.
        class_names: names of the labels.
        gate: (Hm, Wm) in 0..1 over the same range, row 0 at y_min: drawn below the points.
        title: first line of the legend.
        size_px: pixels along the longer side.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = BEVCanvas.of_range(range_m, size_px)
    image = canvas.blank()
    if gate is not None:
        heat = gate_image(canvas, gate)
        image = cv2.addWeighted(image, 0.45, heat, 0.55, 0)
    draw_rings(image, canvas)
    if points is not None:
        draw_points(image, canvas, points)
    draw_ego(image, canvas)
    entries: list[tuple[str, Color | None]] = [(title, None)] if title else []
    seen: set[int] = set()
    hidden = None
    if predictions is not None and predictions.seen is not None:
        hidden, predictions = predictions.keep(predictions.seen < 0.5), predictions.keep(predictions.seen >= 0.5)
    for boxes, color, name in ((truth, TRUTH, 'truth'), (predictions, PREDICTION, 'prediction'),
                               (hidden, HIDDEN, 'prediction, hidden now')):
        if boxes is not None:
            thickness = 2 if color == TRUTH else 1
            draw_boxes(image, canvas, boxes, color, class_names, thickness, text_below=color != TRUTH)
            inside = boxes.keep(canvas.contains(boxes.boxes[:, :2]))
            entries.append((f'{name} ({len(inside)})', color))
            seen.update([] if inside.labels is None else inside.labels.tolist())
    for label in sorted(seen):
        name = class_names[label] if 0 <= label < len(class_names) else 'other'
        entries.append((f'{initials(label, class_names)}: {name}', None))
    if entries:
        draw_legend(image, entries, 8, 8, scale=0.45)
    return image


def draw_points(image: np.ndarray, canvas: BEVCanvas, points: np.ndarray | Tensor, dim: float = 0.75) -> None:
    """One pixel per point (two where the scale allows), coloured by height, higher points on top; in place."""
    values = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points)[:, :3]
    values = values[np.isfinite(values).all(axis=1)]
    values = values[np.argsort(values[:, 2], kind='stable')]
    pixels = np.rint(canvas.to_px(values[:, :2])).astype(np.int64)
    colors = (colorize(values[:, 2], *HEIGHT_RANGE_M) * dim).astype(np.uint8)
    height, width = image.shape[:2]
    for shift in ((0, 0), (1, 0), (0, 1), (1, 1)) if canvas.px_per_m >= 12 else ((0, 0),):
        column, row = pixels[:, 0] + shift[0], pixels[:, 1] + shift[1]
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        image[row[inside], column[inside]] = colors[inside]


def draw_boxes(image: np.ndarray, canvas: BEVCanvas, boxes: BoxSet, color: Color, class_names: Sequence[str],
               thickness: int = 1, text_below: bool = False) -> None:
    """Outlines, a line from the centre through the front, and class initials (with the score where there is one)."""
    corners = canvas.to_px(boxes.corners_m[:, :4, :2])
    heading = canvas.to_px(boxes.heading_m()[..., :2])
    heading[:, 1] += 0.35 * (heading[:, 1] - heading[:, 0])  # so that it can be seen on small boxes
    for index in range(len(boxes)):
        if not _near(corners[index], image.shape):
            continue
        cv2.polylines(image, [_fixed(corners[index])], True, color, thickness, cv2.LINE_AA, _SUBPIXEL)
        cv2.polylines(image, [_fixed(heading[index])], False, color, thickness, cv2.LINE_AA, _SUBPIXEL)
        if boxes.labels is not None:
            text = initials(int(boxes.labels[index]), class_names)
            if boxes.scores is not None:
                text += f' {boxes.scores[index]:.2f}'[:5]
            if boxes.seen is not None:
                text += f'/{boxes.seen[index]:.1f}'
            left, right = corners[index, :, 0].min(), corners[index, :, 0].max()
            middle = round(float(corners[index, :, 1].mean()))
            # truth to the right, predictions to the left, so that they do not cover each other
            x = round(float(left)) - 8 * len(text) - 4 if text_below else round(float(right)) + 4
            put_text(image, text, x, middle + 5, color, scale=0.38)


def draw_rings(image: np.ndarray, canvas: BEVCanvas, step_m: float = 10.0) -> None:
    """Circles around the LiDAR every `step_m` metres, with their radius written on them; in place."""
    x_min, y_min, x_max, y_max = canvas.range_m
    center = _fixed(canvas.to_px(np.zeros(2)))
    reach = float(np.hypot(max(abs(x_min), abs(x_max)), max(abs(y_min), abs(y_max))))
    for radius in np.arange(step_m, reach, step_m):
        radius_px = round(radius * canvas.px_per_m * 2 ** _SUBPIXEL)
        cv2.circle(image, center.tolist(), radius_px, FAINT, 1, cv2.LINE_AA, _SUBPIXEL)
        column, row = canvas.to_px(np.array([0.0, -radius]))
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            put_text(image, f'{radius:g} m', round(float(column)) + 3, round(float(row)) - 3, MUTED, scale=0.4)


def draw_ego(image: np.ndarray, canvas: BEVCanvas) -> None:
    """A cross at the LiDAR's place; in place."""
    column, row = (round(float(value)) for value in canvas.to_px(np.zeros(2)))
    cv2.drawMarker(image, (column, row), EGO, cv2.MARKER_CROSS, 18, 2, cv2.LINE_AA)
    put_text(image, 'ego', column + 8, row - 6, EGO, scale=0.4)


def gate_image(canvas: BEVCanvas, gate: np.ndarray | Tensor, colormap: int = cv2.COLORMAP_INFERNO) -> np.ndarray:
    """(Hm, Wm) in 0..1, row 0 at y_min -> RGB of the canvas's size, one flat patch per cell."""
    values = np.asarray(gate.detach().float().cpu() if isinstance(gate, Tensor) else gate, dtype=np.float32)
    values = values.reshape(values.shape[-2:])
    height, width = canvas.shape
    return cv2.resize(colorize(values[::-1], 0.0, 1.0, colormap), (width, height), interpolation=cv2.INTER_NEAREST)


def title_line(image: np.ndarray, text: str) -> None:
    """A line of text at the bottom left; in place."""
    put_text(image, text, 10, image.shape[0] - 10, TEXT, scale=0.5)


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """Pixels -> OpenCV's fixed point, int32."""
    return np.rint(pixels * 2 ** _SUBPIXEL).astype(np.int32)


def _near(pixels: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether a polygon touches the picture."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return bool(np.isfinite(pixels).all() and (high >= 0).all() and low[0] < shape[1] and low[1] < shape[0])
