"""Study, a drive. In: a seed. Out: an ego that drives, turns and stands among houses and trucks at 2 Hz, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAP_M = 51.2
CELLS = 32
FRAME_S = 0.5
STEPS = ((10, 8.0, 0.0), (16, 0.0, 0.0), (8, 4.0, 90.0), (10, 8.0, 0.0), (24, 0.0, 0.0), (8, 4.0, -90.0), (12, 10.0, 0.0),
         (16, 0.0, 0.0), (6, 8.0, 0.0), (8, 3.0, 90.0), (12, 8.0, 0.0), (30, 0.0, 0.0), (10, 8.0, 0.0))
"""Frames, speed in m/s, and degrees turned on the way."""


@dataclass(frozen=True)
class Drive:
    """T frames.

    Attributes:
        global_from_ego: (T, 4, 4), x ahead.
        visible: (T, CELLS, CELLS) bool, cells of each frame's own map that nothing hides.
        stands: (T,) bool, whether the ego stands.
    """

    global_from_ego: np.ndarray
    visible: np.ndarray
    stands: np.ndarray


def make_drive(seed: int) -> Drive:
    """The way is always the same; houses beside it and trucks that halt next to a standing ego differ with the seed."""
    rng = np.random.default_rng(seed)
    poses, stands = _way()
    centre = poses[:, :2, 3]
    places, sizes = rng.uniform(centre.min(0) - 60, centre.max(0) + 60, (400, 2)), rng.uniform(4, 9, (400, 2))
    off_road = (np.abs(places[:, None] - centre) > sizes[:, None] + 4).any(axis=2).all(axis=1)
    houses = np.concatenate([places, sizes], axis=1)[off_road]
    visible = []
    trucks = np.zeros((0, 4))
    for frame, pose in enumerate(poses):
        if stands[frame] and not stands[frame - 1]:
            beside = np.array([[along, side, 0, 1] for side in (-5.0, 5.0) for along in (-9.0, 9.0)])
            beside = beside[rng.random(4) < 0.7]
            half_m = [1.3, 8.0] if abs(pose[1, 0]) > 0.5 else [8.0, 1.3]  # along the road
            trucks = np.concatenate([(beside @ pose.T)[:, :2], np.tile(half_m, (len(beside), 1))], axis=1)
        visible.append(_seen_cells(pose, np.concatenate([houses, trucks]) if stands[frame] else houses))
    return Drive(poses, np.stack(visible), stands)


def _way() -> tuple[np.ndarray, np.ndarray]:
    yaw, place, poses, stands = 0.0, np.zeros(2), [], []
    for frames, speed, turn_deg in STEPS:
        for _ in range(frames):
            yaw += np.radians(turn_deg) / frames
            place = place + FRAME_S * speed * np.array([np.cos(yaw), np.sin(yaw)])
            pose = np.eye(4)
            pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
            pose[:2, 3] = place
            poses.append(pose)
            stands.append(speed == 0)
    return np.stack(poses), np.array(stands)


def cell_centres() -> np.ndarray:
    """(CELLS, CELLS, 4) centres of a map's cells in its own frame, x along the columns, homogeneous."""
    at = -MAP_M + (np.arange(CELLS) + 0.5) * 2 * MAP_M / CELLS
    x, y = np.meshgrid(at, at)
    return np.stack([x, y, np.zeros_like(x), np.ones_like(x)], axis=-1)


def _seen_cells(pose: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(CELLS, CELLS): whether the line from the ego to a cell's centre leaves all boxes (n, 4: centre, half sizes) aside."""
    origin, line = pose[:2, 3], (cell_centres() @ pose.T)[..., None, :2] - pose[:2, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        first, second = ((boxes[:, :2] + side * boxes[:, 2:] - origin) / line for side in (-1, 1))
    enter, leave = np.fmin(first, second).max(axis=-1), np.fmax(first, second).min(axis=-1)
    return ~((enter < leave) & (leave > 0) & (enter < 0.97)).any(axis=-1)
