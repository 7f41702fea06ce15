"""Report, the scene player. In: frames with points, boxes (LiDAR frame), gate, images. Out: pictures and outlines as JSON data.

Pictures are data URIs; boxes stay outlines of their own, so that truth and predictions can be switched on and off.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras
from projects.memfusion.visualization.bev import BEVCanvas
from projects.memfusion.visualization.box_set import EDGES
from projects.memfusion.visualization.cameras import box_lines, mosaic_places, scaled
from projects.memfusion.visualization.style import colorize

BEV_PX, TILE_PX = 560, 320
MIN_SCORE = 0.1
"""Predictions below it are left out of the file."""
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class PlayedFrame:
    """One frame.

    Attributes:
        title: what stands below the slider.
        points: (P, 3+) in the LiDAR frame, or None.
        truth, predictions: in the LiDAR frame, or None where there are none to show.
        gate: (Hm, Wm) in 0..1 over the scene's range, row 0 at y_min, or None.
        images: (H, W, 3) uint8 RGB by camera; may be empty.
        calibration: of the images, B = 1; None without images.
    """

    title: str
    points: np.ndarray | None = None
    truth: BoxSet | None = None
    predictions: BoxSet | None = None
    gate: np.ndarray | None = None
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    calibration: Calibration | None = None


@dataclass(frozen=True)
class PlayedScene:
    """A scene in time order.

    Attributes:
        name: of the scene.
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        classes: names of the labels.
        frames: at least one.
        gate_name: what the gate is.
    """

    name: str
    range_m: Sequence[float]
    classes: Sequence[str]
    frames: Sequence[PlayedFrame]
    gate_name: str = 'gate'

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError(f'scene {self.name}: has no frames to play')


def player_data(scene: PlayedScene) -> dict[str, Any]:
    """What the page's script reads: sizes, tiles (name, x, y, width, height), frames with pictures and boxes."""
    canvas = BEVCanvas.of_range(scene.range_m, BEV_PX)
    height, width = canvas.shape
    blanks = _blanks(scene.frames)
    tiles, rig = _tiles(blanks)
    return dict(name=scene.name, gate_name=scene.gate_name, bev=[width, height], mosaic=rig, tiles=tiles,
                has=dict(truth=any(frame.truth is not None for frame in scene.frames),
                         predictions=any(frame.predictions is not None for frame in scene.frames),
                         gate=any(frame.gate is not None for frame in scene.frames)),
                frames=[_frame(frame, scene, canvas, tiles, blanks) for frame in scene.frames])


def _blanks(frames: Sequence[PlayedFrame]) -> dict[str, np.ndarray]:
    """Of every camera that some frame has an image of, what stands for it in frames that have none."""
    found: dict[str, np.ndarray] = {}
    for frame in frames:
        found |= {name: np.zeros_like(image) for name, image in frame.images.items() if name not in found}
    return found


def _tiles(images: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], list[int]]:
    """Where each camera lies in the mosaic, and the mosaic's width and height."""
    if not images:
        return [], [0, 0]
    heights = {name: round(image.shape[0] * TILE_PX / image.shape[1]) for name, image in images.items()}
    tallest, places = max(heights.values()), mosaic_places(images)
    tiles = [dict(name=name, x=column * TILE_PX, y=row * tallest, width=TILE_PX, height=heights[name])
             for name, (row, column) in places.items() if name in heights]
    rows, columns = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    return tiles, [columns * TILE_PX, rows * tallest]


def _frame(frame: PlayedFrame, scene: PlayedScene, canvas: BEVCanvas, tiles: Sequence[Mapping[str, Any]],
           blanks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    cameras = None
    if frame.images and frame.calibration is not None:
        images = {name: frame.images.get(name, blank) for name, blank in blanks.items()}
        cameras = data_uri(draw_cameras(images, frame.calibration, tile_width_px=TILE_PX), '.jpg')
    boxes = []
    for kind, given in (('truth', frame.truth), ('prediction', frame.predictions)):
        if given is not None and len(given):
            boxes += _boxes(kind, given.above(MIN_SCORE), frame, scene.classes, canvas, tiles)
    gate = None if frame.gate is None else data_uri(_gate(frame.gate), '.png')
    bev = draw_bev(frame.points, scene.range_m, size_px=BEV_PX)
    return dict(title=frame.title, bev=data_uri(bev, '.png'), gate=gate, cameras=cameras, boxes=boxes)


def _boxes(kind: str, boxes: BoxSet, frame: PlayedFrame, classes: Sequence[str], canvas: BEVCanvas,
           tiles: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    ground = canvas.to_px(boxes.corners_m[:, :4, :2])
    heading = canvas.to_px(boxes.heading_m()[..., :2])
    seen = _camera_paths(boxes, frame, tiles)
    found = []
    for number in range(len(boxes)):
        text = 'box' if boxes.labels is None else _class_name(int(boxes.labels[number]), classes)
        score = None if boxes.scores is None else round(float(boxes.scores[number]), 3)
        found.append(dict(kind=kind, text=text, score=score, cameras=seen[number],
                          bev=f'{path_of(ground[number])}Z{path_of(heading[number])}'))
    return found


def _class_name(label: int, classes: Sequence[str]) -> str:
    return str(classes[label]) if 0 <= label < len(classes) else f'class {label}'


def _camera_paths(boxes: BoxSet, frame: PlayedFrame, tiles: Sequence[Mapping[str, Any]]) -> list[list[list[Any]]]:
    """Of each box [tile's number, path] for every camera that sees it."""
    found: list[list[list[Any]]] = [[] for _ in range(len(boxes))]
    if frame.calibration is None or not len(boxes):
        return found
    edges = boxes.corners_m[:, np.array(EDGES)]
    segments = np.concatenate([edges, boxes.heading_m()[:, None]], axis=1)
    per_box = segments.shape[1]
    for number, tile in enumerate(tiles):
        if tile['name'] not in frame.images or tile['name'] not in frame.calibration.cam_names:
            continue
        lines, origin = box_lines(frame.calibration, tile['name'], segments.reshape(-1, 2, 3))
        lines = scaled(lines, TILE_PX / frame.images[tile['name']].shape[1])
        low, high = lines.min(axis=1), lines.max(axis=1)
        inside = (high >= 0).all(axis=1) & (low[:, 0] < tile['width']) & (low[:, 1] < tile['height'])
        for box in np.unique(origin[inside] // per_box):
            found[box].append([number, ''.join(map(path_of, _joined(lines[inside & (origin // per_box == box)])))])
    return found


def _joined(lines: np.ndarray) -> list[np.ndarray]:
    """(L, 2, 2) pieces -> polylines: a piece that starts where the last one ended goes on with it."""
    runs: list[list[np.ndarray]] = []
    for start, end in lines:
        if runs and np.array_equal(runs[-1][-1], start):
            runs[-1].append(end)
        else:
            runs.append([start, end])
    return [np.stack(run) for run in runs]


def path_of(pixels: np.ndarray) -> str:
    """(N, 2) -> an SVG path with tenths of pixels."""
    return 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in pixels.tolist())


def _gate(gate: np.ndarray) -> np.ndarray:
    """One pixel a cell, RGB, y up; the page enlarges it."""
    values = np.asarray(gate, dtype=np.float32)
    return colorize(values.reshape(values.shape[-2:])[::-1], 0.0, 1.0, cv2.COLORMAP_INFERNO)


def data_uri(image: np.ndarray, kind: str) -> str:
    """(H, W, 3) uint8 RGB -> a data URI; `kind` is .png or .jpg.

    Raises:
        ValueError: where OpenCV cannot encode it.
    """
    done, encoded = cv2.imencode(kind, np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise ValueError(f'cannot encode an image of shape {image.shape} and type {image.dtype}')
    mime = dict([('.png', 'image/png'), ('.jpg', 'image/jpeg')])[kind]
    return f'data:{mime};base64,{base64.b64encode(encoded.tobytes()).decode()}'
