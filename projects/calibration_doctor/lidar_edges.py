"""Doctor. In: one LiDAR sweep (x y z intensity ring, LiDAR frame). Out: points where an image should have an edge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
KINDS = ('side', 'top', 'paint')
"""Side and top of what hides something; a step in reflectance."""
_MIN_RANGE_M = 1.5  # nearer are the vehicle's own points and firings without an echo
_MAX_RANGE_M = 60.0
_GAP_M, _GAP_SHARE = 0.5, 0.06
_MIN_STEP_RATIO = 2.5  # to the step before it: a wall seen along its length has steps that grow slowly
_GROUND_RINGS_M = (4.0, 20.0)
_TOP_SHARE = 0.6  # of the way to the ray above, where images show tops (real and synthetic); half way, pitch is 0.2 deg low
_PAINT_STEP = 2.0  # of the square root of the intensity, which makes its noise even


@dataclass(frozen=True)
class LidarEdges:
    """E edge points.

    Attributes:
        points_m: (E, 3) LiDAR frame.
        kind: (E,) position in KINDS.
        weight: (E,) how sure the edge is, up to 1.
        velocity_m_s: (E, 3) LiDAR frame, over ground; 0 where not known.
        share: (E,) of the turn that had passed, 0 to 1, by the order of the points.
        age_s: (E,) by how much the edge was there before the stamp of the sweep.
    """

    points_m: Floats
    kind: npt.NDArray[np.int64]
    weight: Floats
    velocity_m_s: Floats
    share: Floats
    age_s: Floats


def find_lidar_edges(points: npt.NDArray[np.float32]) -> tuple[LidarEdges, float]:
    """Edges of a spinning LiDAR's sweep, and the angle between neighbouring rays of a ring in degrees.

    Args:
        points: (P, 5) x, y, z, intensity, ring; in any order, which then gives wrong shares of the turn.

    Depth edges after Levinson and Thrun, "Automatic Online Calibration of Cameras and Lasers" (2013): only the near
    side of a depth step is an edge of the image. Each is put half-way to the ray that went past it.
    """
    sweep = _Sweep(points)
    parts = [*_side_edges(sweep), _top_edges(sweep), _paint_edges(sweep)]
    points_m = np.concatenate([part[0] for part in parts])
    kind = np.concatenate([np.full(len(part[0]), KINDS.index(part[2])) for part in parts])
    weight = np.concatenate([part[1] for part in parts])
    share = np.concatenate([part[3] for part in parts])
    edges = LidarEdges(points_m, kind, weight, np.zeros_like(points_m), share, np.zeros_like(share))
    return edges, float(np.degrees(sweep.step))


Part = tuple[Floats, Floats, str, Floats]


class _Sweep:
    """Rays sorted by ring, then azimuth, with their neighbours. -1 is no neighbour."""

    def __init__(self, points: npt.NDArray[np.float32]) -> None:
        range_m = np.linalg.norm(points[:, :3], axis=1)
        kept = np.flatnonzero((range_m > _MIN_RANGE_M) & np.isfinite(range_m))
        share = kept / max(1, len(points) - 1)
        points = points[kept].astype(np.float64)
        ring = points[:, 4].astype(np.int64)
        azimuth = np.arctan2(points[:, 1], points[:, 0])
        self._key = ring * 10.0 + azimuth  # a ring's azimuths span less than 10
        order = np.argsort(self._key, kind='stable')
        self.points, self.ring, self.azimuth, self._key = points[order], ring[order], azimuth[order], self._key[order]
        self.share = share[order]
        self.range_m = np.linalg.norm(self.points[:, :3], axis=1)
        self.elevation = np.arcsin(self.points[:, 2] / self.range_m)
        steps = np.diff(self.azimuth)[np.diff(self.ring) == 0]
        self.step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.01
        low = (self.range_m > _GROUND_RINGS_M[0]) & (self.range_m < _GROUND_RINGS_M[1]) & (self.elevation < -0.05)
        self.ground_z = float(np.median(np.sort(self.points[low, 2])[:max(1, low.sum() // 2)])) if low.any() else -1.8

    def beside(self, step: int) -> npt.NDArray[np.int64]:
        """The next ray of the same ring, at most 1.6 steps away (a missing echo between leaves none)."""
        index = np.arange(len(self.ring)) + step
        inside = (index >= 0) & (index < len(self.ring))
        index = np.where(inside, index, 0)
        near = np.abs(self.azimuth[index] - self.azimuth) < 1.6 * self.step
        return np.where(inside & (self.ring[index] == self.ring) & near, index, -1)

    def on_ring(self, step: int) -> npt.NDArray[np.int64]:
        """The ray of the ring `step` above that is nearest in azimuth, at most 0.8 steps away."""
        key = self._key + 10.0 * step
        right = np.clip(np.searchsorted(self._key, key), 1, len(key) - 1)
        index = np.where(np.abs(self._key[right] - key) < np.abs(self._key[right - 1] - key), right, right - 1)
        return np.where(np.abs(self._key[index] - key) < 0.8 * self.step, index, -1)

    def along(self, rows: npt.NDArray[np.bool_], azimuth: Floats, elevation: Floats) -> Floats:
        """Points at the range of these rows, in other directions."""
        flat = self.range_m[rows] * np.cos(elevation)
        return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), self.range_m[rows] * np.sin(elevation)], axis=1)


def _behind(sweep: _Sweep, neighbour: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Where the neighbour is well behind the point, and the weight of that."""
    gap = np.where(neighbour >= 0, sweep.range_m[neighbour] - sweep.range_m, 0.0)
    hides = (gap > _GAP_M) & (gap > _GAP_SHARE * sweep.range_m) & (sweep.range_m < _MAX_RANGE_M)
    return hides, np.sqrt(np.clip(gap / sweep.range_m, 0.0, 1.0))


def _side_edges(sweep: _Sweep) -> list[Part]:
    parts: list[Part] = []
    for step in (-1, 1):
        neighbour = sweep.beside(step)
        hides, weight = _behind(sweep, neighbour)
        before = sweep.beside(-step)
        slope_m = np.where(before >= 0, np.abs(sweep.range_m - sweep.range_m[before]), 0.0)
        hides &= sweep.range_m[neighbour] - sweep.range_m > _MIN_STEP_RATIO * slope_m
        middle = (sweep.azimuth[hides] + sweep.azimuth[neighbour[hides]]) / 2
        parts.append((sweep.along(hides, middle, sweep.elevation[hides]), weight[hides], 'side', sweep.share[hides]))
    return parts


def _top_edges(sweep: _Sweep) -> Part:
    """Of surfaces that stand above the ground: the ring below hits them at about the same range."""
    above, below = sweep.on_ring(1), sweep.on_ring(-1)
    close = 0.2 + 0.01 * sweep.range_m
    stands = (below >= 0) & (np.abs(sweep.range_m[below] - sweep.range_m) < close)
    hides, weight = _behind(sweep, above)
    chosen = hides & stands & (sweep.points[:, 2] - sweep.ground_z > 0.4)
    middle = sweep.elevation[chosen] + _TOP_SHARE * (sweep.elevation[above[chosen]] - sweep.elevation[chosen])
    return sweep.along(chosen, sweep.azimuth[chosen], middle), weight[chosen], 'top', sweep.share[chosen]


def _paint_edges(sweep: _Sweep) -> Part:
    """Steps of the reflectance on one surface: lane paint, signs."""
    behind, ahead = sweep.beside(-1), sweep.beside(1)
    root = np.sqrt(np.maximum(sweep.points[:, 3], 0.0))
    step = np.abs(root[ahead] - root[behind])
    flat = (behind >= 0) & (ahead >= 0) & (np.abs(sweep.range_m[ahead] - sweep.range_m) < 0.3) \
        & (np.abs(sweep.range_m[behind] - sweep.range_m) < 0.3) & (sweep.range_m < 40)
    chosen = flat & (step > _PAINT_STEP)
    return sweep.points[chosen, :3].astype(np.float64), np.clip(step[chosen] / 6.0, 0.0, 1.0), 'paint', sweep.share[chosen]
