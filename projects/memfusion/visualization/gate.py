"""Pictures. In: a BEV gate or occupancy (Hm, Wm) in 0..1. Out: an RGB heat map with colour bar, x right, y up."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor

from .bev import BEVCanvas, draw_boxes, draw_ego, draw_rings, gate_image, title_line
from .box_set import BoxSet
from .style import TRUTH, color_bar


def draw_gate(
    gate: np.ndarray | Tensor,
    range_m: Sequence[float],
    points: np.ndarray | Tensor | None = None,
    truth: BoxSet | None = None,
    class_names: Sequence[str] = (),
    title: str = '',
    size_px: int = 900,
) -> np.ndarray:
    """The gate as a heat map, with the points and the truth's outlines over it.

    Args:
        gate: (Hm, Wm), or with leading axes of one, in 0..1; row 0 lies at y_min as in mmdet3d's BEV maps.
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        points: (P, 3+), drawn as white dots, or None.
        truth: outlines, or None.

    Returns:
        (H, W + 90, 3) uint8 RGB; the colour bar is on the right.
    """
    canvas = BEVCanvas.of_range(range_m, size_px)
    image = gate_image(canvas, gate)
    if points is not None:
        values = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points)[:, :2]
        pixels = np.rint(canvas.to_px(values[np.isfinite(values).all(axis=1)])).astype(np.int64)
        height, width = image.shape[:2]
        inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        column, row = pixels[inside].T
        image[row, column] = image[row, column] // 2 + 100  # half clear, so that the gate shows through
    draw_rings(image, canvas)
    draw_ego(image, canvas)
    if truth is not None:
        draw_boxes(image, canvas, BoxSet(truth.boxes, truth.labels), TRUTH, class_names, thickness=2)
    if title:
        title_line(image, title)
    return np.concatenate([image, color_bar(image.shape[0], 0.0, 1.0, 'gate', cv2.COLORMAP_INFERNO)], axis=1)
