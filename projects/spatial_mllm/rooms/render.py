"""Spatial: made rooms. In: boxes in a room and cameras. Out: frames, depth along z, and whose each pixel is, by casting rays.

The light sits at the camera: a lamp in the room would tell where a camera looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.layout import Cameras, Pieces

_AMBIENT = 0.4
_ROOM_COLOURS = np.array([[205, 205, 205], [165, 160, 150], [240, 240, 240]], dtype=np.float32)  # walls, floor, ceiling
_PARALLEL = np.float32(1e-9)


@dataclass(frozen=True)
class Boxes:
    """P boxes: centre (P, 3), half sizes (P, 3), yaw (P,), whose part each is (P,), RGB (P, 3); float32."""

    centre: np.ndarray
    half: np.ndarray
    yaw: np.ndarray
    owner: np.ndarray
    colour: np.ndarray


def solid_boxes(pieces: Pieces) -> Boxes:
    """One box per piece, before it is known what it is."""
    return _boxes(pieces, [np.array([[-0.5, -0.5, 0, 0.5, 0.5, 1]], dtype=np.float32)] * len(pieces.yaw),
                  np.zeros((len(pieces.yaw), 3)))


def furniture_boxes(pieces: Pieces, categories: np.ndarray) -> Boxes:
    """All parts of pieces of the given categories (N,), indices of `CATEGORIES`."""
    kinds = [CATEGORIES[kind] for kind in categories]
    return _boxes(pieces, [kind.parts for kind in kinds], np.array([kind.colour for kind in kinds]).reshape(-1, 3))


def _boxes(pieces: Pieces, parts: list[np.ndarray], colours: np.ndarray) -> Boxes:
    owner = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    low, high = np.split(np.concatenate(parts) if parts else np.zeros((0, 6)), 2, axis=1)
    middle, size = (low + high) / 2 * pieces.size[owner], pieces.size[owner]
    cos, sin = np.cos(pieces.yaw[owner]), np.sin(pieces.yaw[owner])
    x = cos * middle[:, 0] - sin * middle[:, 1] + pieces.centre[owner, 0]
    y = sin * middle[:, 0] + cos * middle[:, 1] + pieces.centre[owner, 1]
    single = np.float32
    return Boxes(np.column_stack([x, y, middle[:, 2]]).astype(single), ((high - low) / 2 * size).astype(single),
                 pieces.yaw[owner].astype(single), owner, colours[owner].astype(single))


def render(room: np.ndarray, boxes: Boxes, cameras: Cameras, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Casts a ray through the middle of each pixel.

    Args:
        room: x, y, z sizes, metres.
        boxes: what stands in it.
        cameras: inside the room and outside all boxes; K is of images of this height, which are square.
        height: of the images, pixels.

    Returns:
        frames (T, H, W, 3) uint8 RGB, depth (T, H, W) float32 metres along the camera's z, owner (T, H, W) int16: index of the
        piece, -1 for the room.
    """
    axis = np.arange(height)
    pixels = np.stack([*np.meshgrid(axis, axis), np.ones((height, height))], axis=-1).reshape(-1, 3)
    local = pixels @ np.linalg.inv(cameras.intrinsics).T
    world_from_cam = cameras.world_from_cam
    made = [_view(room, boxes, pose, local) for pose in world_from_cam]
    shape = (len(made), height, height)
    frames, depth, owner = (np.stack(values) for values in zip(*made))
    return frames.reshape(*shape, 3), depth.reshape(shape), owner.reshape(shape)


def _view(room: np.ndarray, boxes: Boxes, pose: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One camera: rays (N, 3) in its own axes with z = 1, so that what they travel is depth."""
    origin = pose[:3, 3].astype(np.float32)
    rays = (local @ pose[:3, :3].T).astype(np.float32)
    depth, colour, cosine = _room_hit(room.astype(np.float32), origin, rays)
    owner = np.full(len(rays), -1, dtype=np.int16)
    seen = _in_view(boxes, pose, local)
    if seen.size:
        near, which, own_cosine = _box_hit(boxes, seen, origin, rays)
        hit = near < depth
        depth = np.where(hit, near, depth)
        colour = np.where(hit[:, None], boxes.colour[which], colour)
        cosine = np.where(hit, own_cosine, cosine)
        owner[hit] = boxes.owner[which[hit]]
    length = np.linalg.norm(rays, axis=1)
    shade = _AMBIENT + (1 - _AMBIENT) * cosine / length
    return np.round(colour * shade[:, None]).astype(np.uint8), depth, owner


def _room_hit(room: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, colour and |ray . normal| where rays (N, 3) leave the room."""
    low, high = np.array([-room[0] / 2, -room[1] / 2, 0], np.float32), np.array([room[0] / 2, room[1] / 2, room[2]], np.float32)
    safe = np.where(abs(rays) < _PARALLEL, _PARALLEL, rays)
    far = np.where(safe > 0, high - origin, low - origin) / safe
    axis = far.argmin(axis=1)
    rows = np.arange(len(rays))
    surface = np.where(axis < 2, 0, np.where(safe[:, 2] > 0, 2, 1))
    return far[rows, axis], _ROOM_COLOURS[surface], abs(safe[rows, axis])


def _in_view(boxes: Boxes, pose: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Boxes whose surrounding sphere meets the view's four planes."""
    centre = (boxes.centre - pose[:3, 3]) @ pose[:3, :3]
    radius = np.linalg.norm(boxes.half, axis=1)
    edge = abs(local[:, :2]).max()
    slack = radius * np.hypot(1, edge)
    inside = (abs(centre[:, :2]) < centre[:, 2:] * edge + slack[:, None]).all(axis=1)
    return np.flatnonzero(inside & (centre[:, 2] > -radius))


def _box_hit(boxes: Boxes, chosen: np.ndarray, origin: np.ndarray,
             rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest of the chosen boxes on each ray: depth (inf where none), index of the box, |ray . normal|."""
    cos, sin = np.cos(boxes.yaw[chosen])[:, None], np.sin(boxes.yaw[chosen])[:, None]
    start = origin - boxes.centre[chosen]
    turned = (cos[:, 0] * start[:, 0] + sin[:, 0] * start[:, 1], cos[:, 0] * start[:, 1] - sin[:, 0] * start[:, 0], start[:, 2])
    along = (cos * rays[:, 0] + sin * rays[:, 1], cos * rays[:, 1] - sin * rays[:, 0], rays[None, :, 2])
    entry = np.full((len(chosen), len(rays)), -np.inf, dtype=np.float32)
    leave = np.full_like(entry, np.inf)
    cosine = np.zeros_like(entry)
    for axis in range(3):
        step = np.where(abs(along[axis]) < _PARALLEL, _PARALLEL, along[axis])
        middle, half = -turned[axis][:, None] / step, boxes.half[chosen, axis][:, None] / abs(step)
        later = middle - half > entry
        entry = np.where(later, middle - half, entry)
        cosine = np.where(later, abs(step), cosine)
        leave = np.minimum(leave, middle + half)
    entry = np.where((entry < leave) & (entry > 0), entry, np.inf)
    best = entry.argmin(axis=0)
    columns = np.arange(len(rays))
    return entry[best, columns], chosen[best], cosine[best, columns]
