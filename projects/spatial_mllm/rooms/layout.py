"""Spatial: made rooms. In: a random generator. Out: a room's walls, its pieces of furniture, and where cameras stand.

World: x and y on the floor, z up, the origin on the floor in the room's middle; metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.spatial_mllm.rooms.settings import RoomSettings

HEIGHTS_M = (0.6, 0.8, 1.0, 1.2)
"""Of furniture: its longest side, equally often."""
_FOOT_M = (0.3, 0.42)
_ROOM_HEIGHT_M = 2.6
_FREE_RADIUS_M = 0.8
"""Round the middle, where the cameras stand."""
_GAP_M = 0.12
_WALL_GAP_M = 0.05
_CAMERA_HEIGHT_M = (1.35, 1.6)
_PITCH_DEG = (12.0, 18.0)
"""Downwards."""
_JITTER = 0.15
"""Of a view's direction, in parts of the step from one to the next."""


@dataclass(frozen=True)
class Pieces:
    """N pieces of furniture: centre of the foot (N, 2), sizes x, y, z (N, 3), yaw about z (N,), which of `HEIGHTS_M` (N,)."""

    centre: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    height_class: np.ndarray

    def take(self, kept: np.ndarray) -> Pieces:
        """Some of them, in the order of the indices."""
        return Pieces(self.centre[kept], self.size[kept], self.yaw[kept], self.height_class[kept])


@dataclass(frozen=True)
class Cameras:
    """T views: cam_from_world (T, 4, 4) float64, OpenCV's axes (x right, y down, z ahead); intrinsics (3, 3) of square pixels,
    integers at their centres."""

    cam_from_world: np.ndarray
    intrinsics: np.ndarray

    @property
    def world_from_cam(self) -> np.ndarray:
        """(T, 4, 4)."""
        return np.linalg.inv(self.cam_from_world)


def room_size(rng: np.random.Generator, area_m2: float) -> np.ndarray:
    """(3,) x, y, z of a room of exactly that floor."""
    aspect = np.exp(rng.uniform(-0.12, 0.12))
    return np.array([np.sqrt(area_m2 * aspect), np.sqrt(area_m2 / aspect), _ROOM_HEIGHT_M])


def place_pieces(rng: np.random.Generator, size: np.ndarray, count: int) -> Pieces:
    """Up to `count` pieces that touch neither each other nor a wall, none near the middle; fewer where no room is left."""
    foot = rng.uniform(*_FOOT_M, size=(count, 2))
    radius = np.hypot(*foot.T) / 2
    tried = rng.uniform(-0.5, 0.5, size=(count, 40, 2)) * (size[:2] - 2 * (radius[:, None, None] + _WALL_GAP_M))
    free = np.hypot(*np.moveaxis(tried, -1, 0)) > _FREE_RADIUS_M + radius[:, None]
    kept: list[int] = []
    centre = np.zeros((count, 2))
    for number in range(count):
        apart = radius[kept] + radius[number] + _GAP_M
        clear = np.linalg.norm(tried[number][:, None] - centre[kept], axis=-1) > apart
        allowed = np.flatnonzero(free[number] & clear.all(axis=1))
        if allowed.size:
            centre[number] = tried[number, allowed[0]]
            kept.append(number)
    height_class = rng.permutation(np.arange(count) % len(HEIGHTS_M))
    sizes = np.column_stack([foot, np.array(HEIGHTS_M)[height_class]])
    yaw = rng.uniform(0, 2 * np.pi, size=count)
    return Pieces(centre, sizes, yaw, height_class).take(np.array(kept, dtype=int))


def place_cameras(rng: np.random.Generator, settings: RoomSettings) -> Cameras:
    """Cameras near the middle, independent of the furniture."""
    count = settings.num_frames
    steps = count // 2 if settings.path == 'pairs' else count
    turn = (np.arange(steps) + rng.uniform(-_JITTER, _JITTER, steps)) * 2 * np.pi / steps
    spot = _in_disc(rng, steps, settings.camera_radius_m)
    if settings.path == 'walk':
        spot = _in_disc(rng, 1, settings.camera_radius_m) + np.cumsum(_in_disc(rng, steps, 0.1), axis=0)
        spot *= np.minimum(1.0, settings.camera_radius_m / np.linalg.norm(spot, axis=1, keepdims=True))
    else:
        turn = rng.permutation(turn)
    if settings.path == 'pairs':
        near = np.repeat(turn, 2) + np.where(np.arange(count) % 2, rng.uniform(-0.1, 0.1, count), 0.0)
        spot = np.repeat(spot, 2, axis=0) + np.where(np.arange(count)[:, None] % 2, _in_disc(rng, count, 0.12), 0.0)
        turn = near
    yaw = turn + rng.uniform(0, 2 * np.pi)
    pitch = np.radians(rng.uniform(*_PITCH_DEG, size=count))
    height = rng.uniform(*_CAMERA_HEIGHT_M, size=count)
    focal = settings.image_size / 2 / np.tan(np.radians(settings.view_deg) / 2)
    middle = (settings.image_size - 1) / 2
    return Cameras(_looking(np.column_stack([spot, height]), yaw, pitch),
                   np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]]))


def _in_disc(rng: np.random.Generator, count: int, radius: float) -> np.ndarray:
    angle, distance = rng.uniform(0, 2 * np.pi, count), radius * np.sqrt(rng.uniform(0, 1, count))
    return np.column_stack([np.cos(angle) * distance, np.sin(angle) * distance])


def _looking(origin: np.ndarray, yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """cam_from_world (T, 4, 4) of cameras at `origin`, turned by yaw from +x to +y, looking down by pitch, without roll."""
    zero = np.zeros_like(yaw)
    ahead = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)], axis=-1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), zero], axis=-1)
    pose = np.tile(np.eye(4), (len(yaw), 1, 1))
    pose[:, :3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    pose[:, :3, 3] = -np.einsum('tij,tj->ti', pose[:, :3, :3], origin)
    return pose


def corners(pieces: Pieces) -> np.ndarray:
    """(N, 4, 2): each foot's corners, in order round it."""
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    local = unit * pieces.size[:, None, :2]
    cos, sin = np.cos(pieces.yaw)[:, None], np.sin(pieces.yaw)[:, None]
    x, y = local[..., 0], local[..., 1]
    return pieces.centre[:, None] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def distances(points: np.ndarray) -> np.ndarray:
    """(N, N) metres between the closest points of feet (N, 4, 2) that do not overlap: all pieces stand on the floor."""
    start, along = points, np.roll(points, -1, axis=1) - points
    offset = points[:, None, :, None] - start[None, :, None, :]  # from each edge of the second to each corner of the first
    share = (offset * along[None, :, None]).sum(-1) / (along ** 2).sum(-1)[None, :, None]
    gap = np.linalg.norm(offset - np.clip(share, 0, 1)[..., None] * along[None, :, None], axis=-1).min(axis=(2, 3))
    return np.where(np.eye(len(points), dtype=bool), 0.0, np.minimum(gap, gap.T))
