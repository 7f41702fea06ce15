"""Benchmark, frame sampling. In: an overlapping walk. Out: seconds of lazy and of plain greedy over the same packed bits."""

from __future__ import annotations

from functools import partial

import numpy as np

from projects.geometry.frame_sampling import Cover, VoxelSets, lazy_cover
from projects.geometry.frame_sampling.voxel_sets import count_bits

from .models import Row, interleave, rows_of

SIZES = ((2000, 64), (2000, 16), (500, 64), (128, 16))
"""Frames, and how many are chosen."""


def plain_cover(words: np.ndarray, count: int) -> Cover:
    """Greedy maximum coverage as it is usually vectorised: every step counts the new voxels of all frames in one call."""
    covered, order, gains = np.zeros(words.shape[1], np.uint64), [], []
    evaluations, taken = 0, np.zeros(len(words), bool)
    for _ in range(count):
        found = count_bits(words & ~covered)
        evaluations += int((~taken).sum())
        found[taken] = 0
        best = int(found.argmax())
        if found[best] == 0:
            break
        order.append(best)
        gains.append(int(found[best]))
        covered |= words[best]
        taken[best] = True
    return Cover(np.array(order, np.int64), np.array(gains, np.int64), evaluations)


def walk(frames: int, seen: int = 400, spread: int = 1200, seed: int = 0) -> VoxelSets:
    """A walk of so many frames: each sees `seen` of the `spread` voxels before it, and the next one stands two voxels on."""
    rng = np.random.default_rng(seed)
    keys = [np.stack([2 * frame + rng.integers(0, spread, seen), *np.zeros((2, seen), np.int64)], axis=1)
            for frame in range(frames)]
    return VoxelSets.of_keys(keys, np.zeros(3), 1.0)


def measure_sampling(repeats: int) -> list[Row]:
    """Plain and lazy greedy side by side.

    Raises:
        AssertionError: they do not choose the same frames.
    """
    rows = []
    for frames, count in SIZES:
        words = walk(frames).words
        plain, lazy = plain_cover(words, count), lazy_cover(words, count)
        assert plain.order.tolist() == lazy.order.tolist()
        names = {f'plain greedy, {count} of {frames} frames': (plain_cover, plain),
                 f'lazy greedy, {count} of {frames} frames': (lazy_cover, lazy)}
        seconds = interleave({name: partial(cover, words, count) for name, (cover, _) in names.items()}, repeats)
        base = next(iter(names))
        for row in rows_of(seconds, base):
            looks = names[row.name][1].evaluations
            rows.append(Row(row.name, row.seconds, row.low, row.high, base, row.ratio,
                            f'{looks} gains computed ({looks / plain.evaluations:.2f}x); {64 * words.shape[1]} voxels'))
    return rows
