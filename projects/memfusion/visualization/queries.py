"""Pictures of queries. In: a QueryRecord, points, images. Out: RGB from above and on the cameras; one colour for each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from .bev import BEVCanvas, draw_boxes, draw_ego, draw_points, draw_rings
from .box_set import BoxSet
from .cameras import draw_boxes_on_image, mosaic_of, scaled, tile_of
from .query_attention import blend_attention
from .query_record import QueryRecord
from .style import TRUTH, Color, colorize, draw_legend, initials

QUERY_COLORS: tuple[Color, ...] = (
    (255, 150, 40), (80, 200, 255), (255, 95, 160), (190, 255, 80), (180, 130, 255), (255, 235, 90), (70, 235, 190),
    (255, 255, 255))
_SUBPIXEL = 4


def draw_queries(record: QueryRecord, range_m: Sequence[float], points: np.ndarray | Tensor | None = None,
                 truth: BoxSet | None = None, class_names: Sequence[str] = (), title: str = '',
                 size_px: int = 900, layer: int = -1) -> np.ndarray:
    """From above: all queries as dots, brighter for higher scores; of the followed ones the way of their centres through the
    layers, the boxes at the end, and the points that they sample in one layer.

    Args:
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        points: (P, 3+) of the LiDAR, or None.
        truth: drawn green, or None.
        layer: its position.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: where the head has no such layer.
    """
    canvas = BEVCanvas.of_range(range_m, size_px)
    image = canvas.blank()
    draw_rings(image, canvas)
    if points is not None:
        draw_points(image, canvas, points, dim=0.4)
    draw_ego(image, canvas)
    if truth is not None:
        draw_boxes(image, canvas, truth, TRUTH, class_names)
    best = max(float(record.scores.max(initial=0.0)), 1e-6)
    order = np.argsort(record.scores)
    for center, color in zip(canvas.to_px(record.boxes[-1, order, :2]),
                             colorize(np.sqrt(record.scores[order] / best), -0.3, 1.0, cv2.COLORMAP_INFERNO)):
        _dot(image, center, color.tolist(), 2.0)
    looks = record.looks(layer)
    for k in reversed(range(len(record.chosen))):  # the best on top
        color = QUERY_COLORS[k % len(QUERY_COLORS)]
        if looks.points_m is not None:
            for point in canvas.to_px(looks.points_m[k, :, :2]):
                _dot(image, point, color, 2.5)
        way = canvas.to_px(record.boxes[:, record.chosen[k], :2])
        if np.isfinite(way).all():
            cv2.polylines(image, [np.rint(way * 2 ** _SUBPIXEL).astype(np.int32)], False, color, 2, cv2.LINE_AA, _SUBPIXEL)
        draw_boxes(image, canvas, record.box(k), color, class_names, thickness=2, text_below=True)
    draw_legend(image, _legend(record, class_names, title, None if looks.points_m is None else layer), 8, 8, scale=0.45)
    return image


def draw_query_cameras(record: QueryRecord, images: Mapping[str, np.ndarray], class_names: Sequence[str] = (),
                       tile_width_px: int = 640, layer: int = -1) -> np.ndarray:
    """On the cameras: boxes of the followed queries and the pixels that they sample in one layer; of queries that attend
    instead, where the best of them does.

    Args:
        images: (H, W, 3) uint8 RGB by camera name, as they came from the cameras.
        layer: its position.

    Returns:
        (H, W, 3) uint8 RGB mosaic.

    Raises:
        ValueError: for a record without cameras, or where the head has no such layer.
    """
    raw, looks = record.raw_rig, record.looks(layer)
    tiles = {name: tile_of(image, tile_width_px) for name, image in images.items()}
    for name, tile in tiles.items():
        if name not in raw.cam_names:
            continue
        camera, scale = raw.cam_names.index(name), tile_width_px / images[name].shape[1]
        if looks.images is not None:
            blend_attention(tile, looks.images[0], record, camera, scale)
        for k in reversed(range(len(record.chosen))):
            color = QUERY_COLORS[k % len(QUERY_COLORS)]
            draw_boxes_on_image(tile, raw, name, record.box(k), color, class_names, 1, scale)
            if looks.uv_px is not None:
                pixels = looks.uv_px[camera, k]
                for pixel in scaled(pixels[np.isfinite(pixels).all(1)], scale):
                    _dot(tile, pixel, color, 3.0)
    mosaic = mosaic_of(tiles, tile_width_px)
    entries = _legend(record, class_names, 'colours: one query each' if looks.images is None else
                      'bright: where the first query attends', None)
    draw_legend(mosaic, entries, 8, 34, scale=0.45)
    return mosaic


def _legend(record: QueryRecord, class_names: Sequence[str], title: str, sampled: int | None) -> list[tuple[str, Color | None]]:
    entries: list[tuple[str, Color | None]] = [(title, None)] if title else []
    if sampled is not None:
        entries.append((f'dots in colour: points sampled in layer {sampled % len(record.layers)}', None))
    for k, query in enumerate(record.chosen.tolist()):
        name = initials(int(record.labels[query]), class_names)
        entries.append((f'query {query}: {name} {record.scores[query]:.2f}', QUERY_COLORS[k % len(QUERY_COLORS)]))
    return entries


def _dot(image: np.ndarray, at_px: np.ndarray, color: Sequence[int], radius_px: float) -> None:
    if not np.isfinite(at_px).all() or (np.abs(at_px) > 1e5).any():
        return
    center = np.rint(at_px * 2 ** _SUBPIXEL).astype(int).tolist()
    cv2.circle(image, center, round(radius_px * 2 ** _SUBPIXEL), list(map(int, color)), -1, cv2.LINE_AA, _SUBPIXEL)
