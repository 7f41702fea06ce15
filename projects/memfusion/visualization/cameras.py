"""Pictures. In: camera images (RGB), a Calibration, boxes and points (LiDAR frame). Out: one RGB mosaic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from projects.geometry.projection import clip_segments
from projects.memfusion.structures.calibration import Calibration

from .box_set import EDGES, BoxSet
from .style import BACKGROUND, PREDICTION, TRUTH, Color, color_bar, colorize, draw_legend, initials, put_text

MOSAIC = (('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'), ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'))
NEAR_M = 0.2
_PIECES = 16  # of an edge under lens distortion, where straight lines are bent
_MIN_TEXT_PX = 12  # smaller boxes have no class initials: they would cover each other
_FAR_PX = 1e5  # OpenCV's fixed point overflows far outside the image


def draw_cameras(
    images: Mapping[str, np.ndarray],
    calibration: Calibration,
    truth: BoxSet | None = None,
    predictions: BoxSet | None = None,
    class_names: Sequence[str] = (),
    tile_width_px: int = 640,
) -> np.ndarray:
    """Boxes on all images: truth green, predictions orange, the front face crossed by its heading line.

    Args:
        images: (H, W, 3) uint8 RGB by camera name, in the pixels that `calibration` projects to.
        calibration: B must be 1.
        truth, predictions: in the frame that `calibration` projects from.
        tile_width_px: width of one image in the mosaic.

    Returns:
        (H, W, 3) uint8 RGB; nuScenes' six cameras as 2x3, front row above back row, others in rows of three.
    """
    tiles = {name: tile_of(image, tile_width_px) for name, image in images.items()}
    for name, tile in tiles.items():
        for boxes, color, thickness in ((truth, TRUTH, 2), (predictions, PREDICTION, 1)):
            if boxes is not None and name in calibration.cam_names:
                draw_boxes_on_image(tile, calibration, name, boxes, color, class_names, thickness,
                                    tile_width_px / images[name].shape[1], text_below=color == PREDICTION)
    mosaic = mosaic_of(tiles, tile_width_px)
    given = ((truth, 'truth', TRUTH), (predictions, 'prediction', PREDICTION))
    entries: list[tuple[str, Color | None]] = [(text, color) for boxes, text, color in given if boxes is not None]
    if entries:
        draw_legend(mosaic, entries, 8, 34, scale=0.5)
    return mosaic


def draw_lidar_on_cameras(
    images: Mapping[str, np.ndarray],
    calibration: Calibration,
    points: np.ndarray | Tensor,
    max_depth_m: float = 60.0,
    tile_width_px: int = 640,
) -> np.ndarray:
    """LiDAR points (P, 3+) on all images, coloured by depth, near ones on top, with a colour bar on the right; RGB."""
    values = torch.as_tensor(points)[:, :3].float()
    uv_px, depth_m, valid = (value[0].numpy() for value in calibration.project(values[None]))
    tiles = {name: tile_of(image, tile_width_px) for name, image in images.items()}
    for name, tile in tiles.items():
        if name in calibration.cam_names:
            index = calibration.cam_names.index(name)
            seen = np.flatnonzero(valid[index])
            seen = seen[np.argsort(-depth_m[index, seen], kind='stable')]
            colors = colorize(-depth_m[index, seen], -max_depth_m, 0.0)
            pixels = scaled(uv_px[index, seen], tile_width_px / images[name].shape[1])
            for center, color in zip(np.rint(pixels * 16).astype(int).tolist(), colors.tolist()):
                cv2.circle(tile, center, 24, color, -1, cv2.LINE_AA, 4)  # of 1.5 pixels
    mosaic = mosaic_of(tiles, tile_width_px)
    bar = color_bar(mosaic.shape[0], 0.0, max_depth_m, 'depth m')
    bar[34:mosaic.shape[0] - 16, 12:32] = bar[34:mosaic.shape[0] - 16, 12:32][::-1]  # near is red, as on the images
    return np.concatenate([mosaic, bar], axis=1)


def box_lines(calibration: Calibration, name: str, segments_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Line segments as this camera sees them.

    Args:
        segments_m: (S, 2, 3) ends in the frame that `calibration` projects from.

    Returns:
        (S', 2, 2) pixels of the pieces before the camera, and (S',) the segment each piece comes from. Segments are
        cut at the near plane before projection (a point behind a camera projects to nonsense), and divided where a
        lens bends them.
    """
    index = calibration.cam_names.index(name)
    ends = torch.as_tensor(segments_m, dtype=torch.float32)
    in_cam = calibration.to_cam(ends.reshape(1, -1, 3))[0, index].reshape(-1, 2, 3)
    start, end, keep = clip_segments(in_cam[:, 0], in_cam[:, 1], NEAR_M)
    origin = torch.arange(len(ends))[keep]
    start, end = start[keep], end[keep]
    pieces = _PIECES if calibration.distortion_model[0, index] else 1
    share = torch.linspace(0, 1, pieces + 1)[None, :, None]
    nodes = start[:, None] + share * (end - start)[:, None]
    uv_px, has_pixel = _pixels(calibration, index, nodes.reshape(-1, 3))
    uv_px, has_pixel = uv_px.reshape(-1, pieces + 1, 2), has_pixel.reshape(-1, pieces + 1)
    lines = torch.stack([uv_px[:, :-1], uv_px[:, 1:]], dim=2)
    drawn = has_pixel[:, :-1] & has_pixel[:, 1:]
    return lines[drawn].numpy(), origin[:, None].expand(-1, pieces)[drawn].numpy()


def draw_boxes_on_image(image: np.ndarray, calibration: Calibration, name: str, boxes: BoxSet, color: Color,
                        class_names: Sequence[str], thickness: int = 2, scale: float = 1.0,
                        text_below: bool = False) -> None:
    """Twelve edges, heading line and class initials of every box on one camera's image; in place.

    `scale` is the size of `image` relative to what `calibration` projects to.
    """
    if not len(boxes):
        return
    corners = boxes.corners_m
    edges = corners[:, np.array(EDGES)]
    segments = np.concatenate([edges, boxes.heading_m()[:, None]], axis=1)
    lines, _ = box_lines(calibration, name, segments.reshape(-1, 2, 3))
    lines = np.clip(scaled(lines, scale), -_FAR_PX, _FAR_PX)
    for line in np.rint(lines * 16).astype(np.int32):
        cv2.line(image, line[0].tolist(), line[1].tolist(), color, thickness, cv2.LINE_AA, 4)
    if boxes.labels is None:
        return
    index = calibration.cam_names.index(name)
    middles = np.concatenate([corners[:, 4:].mean(axis=1), corners[:, :4].mean(axis=1)])
    uv_px, _, valid = calibration.project(torch.as_tensor(middles, dtype=torch.float32)[None])
    top_px, bottom_px = scaled(uv_px[0, index].numpy(), scale).reshape(2, -1, 2)
    tall = bottom_px[:, 1] - top_px[:, 1] > _MIN_TEXT_PX
    seen = valid[0, index].numpy().reshape(2, -1)[int(text_below)]
    for box in np.flatnonzero(seen & tall):
        u, v = np.rint(bottom_px[box] if text_below else top_px[box]).astype(int).tolist()
        put_text(image, initials(int(boxes.labels[box]), class_names), u - 4, v + (12 if text_below else -3), color, 0.4)


def _pixels(calibration: Calibration, index: int, points_cam_m: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 3) in the frame of camera `index` -> uv_px (P, 2), has_pixel (P,)."""
    num_cameras = len(calibration.cam_names)
    uv_px, _, has_pixel = calibration.project_cam(points_cam_m.expand(1, num_cameras, -1, 3))
    return uv_px[0, index], has_pixel[0, index]


def tile_of(image: np.ndarray, width_px: int) -> np.ndarray:
    """A resized copy. Boxes are drawn after it, so that lines are as thin whatever the camera's resolution."""
    size = (width_px, round(image.shape[0] * width_px / image.shape[1]))
    shrinks = image.shape[1] >= width_px
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def scaled(uv_px: np.ndarray, scale: float) -> np.ndarray:
    """Pixels of a resized image, whose outer borders fall together (a pixel's centre is a whole number)."""
    return (uv_px + 0.5) * scale - 0.5


def mosaic_places(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Row and column of each camera's tile: nuScenes' six cameras as 2x3, front row above back row, others in rows of three."""
    given = list(names)
    rows: Sequence[Sequence[str]] = MOSAIC
    if not set(given) <= {name for row in MOSAIC for name in row}:
        rows = [given[i:i + 3] for i in range(0, len(given), 3)]
    return {name: (row, column) for row, line in enumerate(rows) for column, name in enumerate(line)}


def mosaic_of(tiles: Mapping[str, np.ndarray], tile_width_px: int) -> np.ndarray:
    places = mosaic_places(tiles)
    height = max(tile.shape[0] for tile in tiles.values())
    rows, columns = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    mosaic = np.full((height * rows, columns * tile_width_px, 3), BACKGROUND, dtype=np.uint8)
    for name, (row, column) in places.items():
        top, left = row * height, column * tile_width_px
        if name in tiles:
            tile = tiles[name]
            mosaic[top:top + tile.shape[0], left:left + tile.shape[1]] = tile
        put_text(mosaic, name if name in tiles else f'{name}: no image', left + 8, top + 22, scale=0.55)
    return mosaic
