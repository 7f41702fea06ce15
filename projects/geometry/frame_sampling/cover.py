"""Geometry, frame sampling. In: packed voxel sets. Out: greedy maximum coverage, evaluated lazily.

What a frame adds only shrinks as others are chosen, so the gain it had is a bound on the gain it has, and most frames need
not be looked at again (CELF: Leskovec et al., KDD 2007; Minoux, 1978). The choice is that of plain greedy, ties included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .voxel_sets import count_bits

FIRST_BLOCK = 32
"""Candidates evaluated in one call; half as many more each time while the best is not certain."""


@dataclass(frozen=True)
class Cover:
    """What greedy chose.

    Attributes:
        order: (n,) int64 candidates in the order of choice.
        gains: (n,) int64 voxels that each added.
        evaluations: how many gains were computed.
    """

    order: np.ndarray
    gains: np.ndarray
    evaluations: int


def lazy_cover(words: np.ndarray, count: int, frames: np.ndarray | None = None) -> Cover:
    """Up to `count` candidates, each the one that adds most voxels to those before it; the lowest index among equals.

    Stops where nothing adds a voxel.

    Args:
        words: (N, W) uint64, the set of each candidate.
        count: how many are wanted.
        frames: (N, g) int64, frames that each candidate consists of: one that shares a frame with a chosen one cannot be
            chosen any more. None is that each is a frame of its own.
    """
    frames = np.arange(len(words))[:, None] if frames is None else frames
    covered = np.zeros(words.shape[1], np.uint64)
    bound = count_bits(words)
    evaluations, current = len(words), True
    order: list[int] = []
    gains: list[int] = []
    taken = np.zeros(int(frames.max(initial=-1)) + 1, bool)
    while len(order) < count:
        alive = np.flatnonzero((bound > 0) & ~taken[frames].any(axis=1))
        if not len(alive):
            break
        if current:
            best, gain = int(alive[bound[alive].argmax()]), int(bound[alive].max())
        else:
            best, gain, looked_at = _best(words, covered, bound, alive)
            evaluations += looked_at
        if gain == 0:
            break
        order.append(best)
        gains.append(gain)
        covered |= words[best]
        taken[frames[best]] = True
        current = False
    return Cover(np.array(order, np.int64), np.array(gains, np.int64), evaluations)


def _best(words: np.ndarray, covered: np.ndarray, bound: np.ndarray, alive: np.ndarray) -> tuple[int, int, int]:
    """The candidate of `alive` (ascending) with the largest gain, that gain, and how many were evaluated; lowers `bound`."""
    order = alive[np.argsort(-bound[alive], kind='stable')]
    bounds, uncovered = bound[order], ~covered
    best, gain, at, block = -1, -1, 0, FIRST_BLOCK
    while at < len(order) and (bounds[at] > gain or (bounds[at] == gain and order[at] < best)):
        rows = order[at:at + block]
        found = count_bits(words[rows] & uncovered)
        bound[rows] = found
        most = int(found.max())
        first = int(rows[found == most].min())
        if most > gain or (most == gain and first < best):
            best, gain = first, most
        at, block = at + len(rows), block + block // 2
    return best, gain, at
