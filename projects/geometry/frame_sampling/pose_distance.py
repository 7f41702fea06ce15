"""Geometry, frame sampling. In: camera poses, or frame numbers. Out: distances of frames, medoid, k-centre choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

CHUNK = 512
"""Frames compared with all others at once: T x T distances of a long video would not fit."""


@dataclass(frozen=True)
class FrameDistance:
    """How far frames are apart: angle / theta0 + distance / scale of their poses; without poses, by their numbers.

    Attributes:
        world_from_cam: (T, 4, 4) float64, or None: then frames i and j are |i - j| apart.
        num_frames: T.
        theta0_deg: an angle of this counts as much as `scale_m`.
        scale_m: metres.
    """

    world_from_cam: np.ndarray | None
    num_frames: int
    theta0_deg: float = 30.0
    scale_m: float = 1.0

    def __post_init__(self) -> None:
        if not (self.theta0_deg > 0 and self.scale_m > 0):
            raise ValueError(f'theta0_deg and scale_m must be positive, got {self.theta0_deg} and {self.scale_m}')

    def rows(self, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, T) float64, from each of `frames` to every frame."""
        if self.world_from_cam is None:
            return np.abs(np.asarray(frames)[:, None] - np.arange(self.num_frames)).astype(np.float64)
        angle_rad, distance_m = angles_and_distances(self.world_from_cam[frames], self.world_from_cam)
        return angle_rad / math.radians(self.theta0_deg) + distance_m / self.scale_m

    def medoid(self) -> int:
        """The frame with the smallest sum of distances to all; the first among equals."""
        chunks = np.array_split(np.arange(self.num_frames), -(-self.num_frames // CHUNK))
        return int(np.concatenate([self.rows(chunk).sum(axis=1) for chunk in chunks]).argmin())


def angles_and_distances(world_from_a: np.ndarray, world_from_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4, 4) and (m, 4, 4) poses -> (n, m) angles between them in radians, and distances in metres, float64."""
    def apart(part_a: np.ndarray, part_b: np.ndarray) -> np.ndarray:
        first, second = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.float64)) for part in (part_a, part_b))
        return torch.cdist(first, second, compute_mode='donot_use_mm_for_euclid_dist').numpy()

    rotations = [pose[:, :3, :3].reshape(-1, 9) for pose in (world_from_a, world_from_b)]
    # |R_a - R_b| is sqrt(8) times the sine of half the angle between them; unlike the trace, exact for small angles.
    angle_rad = 2 * np.arcsin(np.minimum(apart(*rotations) / math.sqrt(8), 1.0))
    return angle_rad, apart(world_from_a[:, :3, 3], world_from_b[:, :3, 3])


def k_centre(distance: FrameDistance, count: int, chosen: Sequence[int] = (), among: np.ndarray | None = None) -> list[int]:
    """`count` more frames, each the farthest from all before it (Gonzalez, 1985); the lowest index among equals.

    Args:
        chosen: frames that are there already; without any, the medoid is the first of the `count`.
        among: frames that may be chosen; None is all. They run out where there are too few.
    """
    free = np.zeros(distance.num_frames, bool)
    free[slice(None) if among is None else among] = True
    free[list(chosen)] = False
    new: list[int] = []
    nearest = np.full(distance.num_frames, np.inf)
    if chosen:
        for chunk in np.array_split(np.asarray(chosen), -(-len(chosen) // CHUNK)):
            nearest = np.minimum(nearest, distance.rows(chunk).min(axis=0))
    while len(new) < count and free.any():
        first = not chosen and not new
        frame = distance.medoid() if first else int(np.where(free, nearest, -1.0).argmax())
        new.append(frame)
        free[frame] = False
        nearest = np.minimum(nearest, distance.rows([frame])[0])
    return new
