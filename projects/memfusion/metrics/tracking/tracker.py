"""Metric, tracks. In: boxes of consecutive frames, global frame. Out: which object each is, by centre distance and velocity.

The tracker of CenterPoint (Yin, Zhou, Kraehenbuehl, CVPR 2021): boxes are moved back by their velocities and, the surest first,
take the nearest object of their class that is still free; an object that is not found goes on at its velocity for some frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

MAX_DISTANCE_M = dict(car=4.0, truck=4.0, bus=5.5, trailer=3.0, pedestrian=1.0, motorcycle=13.0, bicycle=3.0)
"""The published limits for nuScenes' tracked classes, at 2 Hz: 99 % of a detector's velocity errors lie below."""


@dataclass
class _Track:
    """An object: where it was when last found or foreseen, and for how many frames it was not found."""

    number: int
    name: str
    place_m: np.ndarray
    velocity_mps: np.ndarray
    missed: int = 0


@dataclass
class GreedyTracker:
    """Objects of one scene.

    Args:
        max_distance_m: by class, how far a box moved back may lie from an object; classes that are not listed are not tracked.
        max_age: frames that an object may go unfound.
    """

    max_distance_m: Mapping[str, float] = field(default_factory=lambda: dict(MAX_DISTANCE_M))
    max_age: int = 3
    _tracks: list[_Track] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        if self.max_age < 0:
            raise ValueError(f'max_age must be 0 or more frames, got {self.max_age}')
        for name, limit in self.max_distance_m.items():
            if not limit > 0:
                raise ValueError(f'max_distance_m of {name} must be above 0, got {limit}')

    def step(self, names: Sequence[str], centre_m: np.ndarray, velocity_mps: np.ndarray, scores: np.ndarray,
             gap_s: float) -> np.ndarray:
        """Links the boxes of the next frame.

        Args:
            names: k classes.
            centre_m: (k, 2) on the ground; velocity_mps: (k, 2), NaN counts as standing; scores: (k,).
            gap_s: since the frame before; anything for the first.

        Returns:
            (k,) numbers of objects from 0, each once; -1 for classes that are not tracked.
        """
        velocity = np.where(np.isfinite(velocity_mps), velocity_mps, 0.0)
        before = centre_m - velocity * gap_s
        numbers, free, found = np.full(len(names), -1), list(self._tracks), []
        for row in np.argsort(-np.asarray(scores), kind='stable'):
            if names[row] not in self.max_distance_m:
                continue
            track = self._nearest(free, names[row], before[row])
            if track is None:
                track, self._count = _Track(self._count, names[row], centre_m[row], velocity[row]), self._count + 1
            else:
                free.remove(track)
            track.place_m, track.velocity_mps, track.missed = centre_m[row], velocity[row], 0
            numbers[row] = track.number
            found.append(track)
        for track in free:
            track.missed += 1
            track.place_m = track.place_m + track.velocity_mps * gap_s
        self._tracks = found + [track for track in free if track.missed <= self.max_age]
        return numbers

    def _nearest(self, tracks: Sequence[_Track], name: str, place_m: np.ndarray) -> _Track | None:
        alike = [track for track in tracks if track.name == name]
        if not alike:
            return None
        distances = np.linalg.norm(np.array([track.place_m for track in alike]) - place_m, axis=1)
        best = int(distances.argmin())
        return alike[best] if distances[best] < self.max_distance_m[name] else None
