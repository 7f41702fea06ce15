"""Pictures of attention. In: a QueryRecord, images, points. Out: RGB, where one query attends on the cameras and on the BEV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from projects.geometry.rigid import invert_affine

from .bev import BEVCanvas, draw_boxes, draw_ego, draw_points, draw_rings, gate_image
from .box_set import BoxSet
from .cameras import draw_boxes_on_image, mosaic_of, tile_of
from .query_record import LayerLooks, QueryRecord
from .style import BACKGROUND, TEXT, TRUTH, Color, colorize, initials, put_text

MARK: Color = (60, 235, 255)  # light cyan: inferno and the truth do not have it
_HEADER_PX, _GAP_PX = 30, 6


def draw_query_attention(record: QueryRecord, range_m: Sequence[float], images: Mapping[str, np.ndarray] | None = None,
                         points: np.ndarray | Tensor | None = None, truth: BoxSet | None = None,
                         class_names: Sequence[str] = (), layer: int = -1, title: str = '',
                         tile_width_px: int = 480) -> np.ndarray:
    """Where the first of the record's followed queries attends: on the cameras at the left, on the LiDAR's BEV at the right.

    Args:
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        images: (H, W, 3) uint8 RGB by camera name, as they came from the cameras; None where there are none.
        points: (P, 3+) of the LiDAR, or None.
        truth: drawn green, or None.
        layer: its position.

    Returns:
        (H, W, 3) uint8 RGB; the colours of cameras and BEV each have a scale of their own, see heat_of.

    Raises:
        ValueError: where the head does not attend, or has no such layer.
    """
    looks, parts = record.looks(layer), []
    if not looks.attends:
        raise ValueError('the head that was recorded does not attend to tokens')
    if looks.images is not None and images:
        raw, tiles = record.raw_rig, {name: tile_of(image, tile_width_px) for name, image in images.items()}
        for name, tile in tiles.items():
            if name in raw.cam_names:
                camera, scale = raw.cam_names.index(name), tile_width_px / images[name].shape[1]
                blend_attention(tile, looks.images[0], record, camera, scale)
                draw_boxes_on_image(tile, raw, name, record.box(0), MARK, class_names, 1, scale)
        parts.append(mosaic_of(tiles, tile_width_px))
    size_px = parts[0].shape[0] if parts else 900
    canvas = BEVCanvas.of_range(range_m, size_px)
    bev = canvas.blank() if looks.bev is None else gate_image(canvas, heat_of(looks.bev[0]))
    if points is not None:
        draw_points(bev, canvas, points, dim=0.4 if looks.bev is None else 0.7)
    draw_rings(bev, canvas)
    draw_ego(bev, canvas)
    if truth is not None:
        draw_boxes(bev, canvas, truth, TRUTH, class_names)
    draw_boxes(bev, canvas, record.box(0), MARK, class_names, thickness=2, text_below=True)
    parts.append(bev)
    return _beside(parts, _caption(record, looks, class_names, layer % len(record.layers), title))


def blend_attention(tile: np.ndarray, shares: np.ndarray, record: QueryRecord, camera: int, scale: float) -> None:
    """Lays one camera's attention over its image; in place.

    Args:
        tile: (H, W, 3), the camera's own image resized by `scale`.
        shares: (N, h, w) of all cameras.
    """
    assert record.rig is not None  # there is none without a camera
    heat = heat_of(shares)[camera]
    tile_from_cell = _tile_from_raw(scale) @ _raw_from_cell(record, camera, heat.shape)
    size = (tile.shape[1], tile.shape[0])
    level = cv2.warpPerspective(heat, tile_from_cell, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.ones_like(heat), tile_from_cell, size, flags=cv2.INTER_LINEAR)[..., None]
    dimmed = tile * (1 - 0.5 * inside)  # what the network does not see stays as it is
    alpha = 0.85 * level[..., None]
    tile[:] = (dimmed * (1 - alpha) + colorize(level, 0.0, 1.0, cv2.COLORMAP_INFERNO) * alpha).astype(np.uint8)


def heat_of(shares: np.ndarray) -> np.ndarray:
    """Shares of attention -> the same shape in 0..1 float32: 0 up to the mean share, 1 at the highest, or at four times the
    mean where attention is spread more evenly than that."""
    mean, high = float(shares.mean()), float(shares.max())
    return np.clip((shares - mean) / max(max(high, 4 * mean) - mean, 1e-12), 0.0, 1.0).astype(np.float32)


def _raw_from_cell(record: QueryRecord, camera: int, shape: tuple[int, ...]) -> np.ndarray:
    """(3, 3): column and row of a cell, whole numbers at centres, to pixels of the camera's own image."""
    assert record.rig is not None
    height, width = record.rig.views().padded_hw
    u, v = width / shape[1], height / shape[0]
    network_from_cell = np.array([[u, 0, 0.5 * u - 0.5], [0, v, 0.5 * v - 0.5], [0, 0, 1]])
    return invert_affine(record.rig.img_aug[0, camera].double())[:3, :3].numpy() @ network_from_cell


def _tile_from_raw(scale: float) -> np.ndarray:
    """(3, 3): pixels of an image to those of the same image resized, whose borders fall together."""
    return np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5], [0, 0, 1]])


def _caption(record: QueryRecord, looks: LayerLooks, class_names: Sequence[str], number: int, title: str) -> str:
    query = int(record.chosen[0])
    shares = [f'{100 * float(part[0].sum()):.0f} % {where}' for part, where in (
        (looks.images, 'on images'), (looks.bev, 'on the BEV'), (looks.earlier, 'on earlier frames')) if part is not None]
    label = initials(int(record.labels[query]), class_names)
    said = f'query {query} ({label} {record.scores[query]:.2f}), layer {number}: {", ".join(shares)}'
    return f'{title}: {said}' if title else said


def _beside(parts: Sequence[np.ndarray], caption: str) -> np.ndarray:
    height = max(part.shape[0] for part in parts)
    width = sum(part.shape[1] for part in parts) + _GAP_PX * (len(parts) - 1)
    image = np.full((_HEADER_PX + height, width, 3), BACKGROUND, dtype=np.uint8)
    put_text(image, caption, 8, 21, TEXT, scale=0.5)
    left = 0
    for part in parts:
        image[_HEADER_PX:_HEADER_PX + part.shape[0], left:left + part.shape[1]] = part
        left += part.shape[1] + _GAP_PX
    return image
