"""World stage: which candidate footprints touch, at any time; world (x, y, yaw) tracks in, booleans out."""

from __future__ import annotations

import numpy as np

from projects.synthetic_nuscenes.transforms import FloatArray


def _axes(yaw: FloatArray) -> FloatArray:
    """(...,) to (..., 2, 2), rows are the box's x and y axes."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)


def rectangles_overlap(track_a: FloatArray, half_a: FloatArray, track_b: FloatArray, half_b: FloatArray) -> FloatArray:
    """Separating-axis test of oriented rectangles.

    Args:
        track_a, track_b: (..., 3) world x, y, yaw, broadcastable.
        half_a, half_b: (..., 2) half length and half width, m, broadcastable.

    Returns:
        (...) booleans, True where the rectangles overlap.
    """
    axes_a, axes_b = _axes(track_a[..., 2]), _axes(track_b[..., 2])
    delta = track_b[..., :2] - track_a[..., :2]
    overlap = np.ones(np.broadcast_shapes(track_a.shape[:-1], track_b.shape[:-1]), dtype=bool)
    for axes in (axes_a, axes_b):
        gap = np.abs(np.einsum('...ij,...j->...i', axes, delta))
        reach_a = np.einsum('...ij,...j->...i', np.abs(np.einsum('...ik,...jk->...ij', axes, axes_a)), half_a)
        reach_b = np.einsum('...ij,...j->...i', np.abs(np.einsum('...ik,...jk->...ij', axes, axes_b)), half_b)
        overlap &= (gap < reach_a + reach_b).all(axis=-1)
    return overlap


class Occupancy:
    """Footprints accepted so far, all sampled at the same times."""

    def __init__(self, times_s: FloatArray) -> None:
        self.times_s = times_s
        self._tracks: list[FloatArray] = []
        self._halves: list[FloatArray] = []

    def try_add(self, track: FloatArray, size_lw_m: tuple[float, float], margin_m: float) -> bool:
        """Accept a footprint unless it touches an accepted one.

        Args:
            track: (T, 3) or (1, 3) world x, y, yaw.
            size_lw_m: length and width.
            margin_m: free space kept on every side.
        """
        half = np.asarray(size_lw_m) / 2
        track = np.broadcast_to(track, (len(self.times_s), 3))
        if self._tracks:
            tracks, halves = np.stack(self._tracks), np.stack(self._halves)
            distance = np.hypot(*(np.moveaxis(tracks[..., :2] - track[None, :, :2], -1, 0)))
            reach = np.hypot(*half) + np.hypot(halves[:, 0], halves[:, 1]) + margin_m
            near = np.nonzero((distance < reach[:, None]).any(axis=1))[0]
            if len(near) and rectangles_overlap(
                tracks[near], halves[near][:, None], track[None], half[None, None] + margin_m
            ).any():
                return False
        self._tracks.append(track)
        self._halves.append(half)
        return True

    def reserve(self, track: FloatArray, size_lw_m: tuple[float, float]) -> None:
        """Let nothing come here from now on, whoever is here already."""
        self._tracks.append(np.broadcast_to(track, (len(self.times_s), 3)))
        self._halves.append(np.asarray(size_lw_m) / 2)
