"""Geometry, frame sampling. In: the voxels that each frame sees. Out: packed bits, their counts, unions, gains and overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_BITS_OF = np.array([bin(value).count('1') for value in range(1 << 16)], dtype=np.uint8)


def count_bits(words: np.ndarray) -> np.ndarray:
    """(..., W) uint64 -> (...) int64, how many bits are set in each row."""
    return _BITS_OF[np.ascontiguousarray(words).view(np.uint16)].sum(axis=-1, dtype=np.int64)


def distinct(keys: np.ndarray) -> np.ndarray:
    """(n, 3) whole voxel coordinates -> (m, 3) int64, each once, sorted. Much faster than `unique` of rows."""
    if not len(keys):
        return keys.astype(np.int64)
    low, number, extent = _numbered(keys)
    return np.stack(np.unravel_index(np.unique(number), extent), axis=1) + low


def _numbered(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """(n, 3), n > 0 -> their lowest corner, a number for each within their box, and the box's size.

    Raises:
        ValueError: the box has more voxels than can be numbered.
    """
    low = keys.min(axis=0).astype(np.int64)
    extent = keys.max(axis=0) - low + 1
    if float(np.prod(extent.astype(np.float64))) >= 2.0 ** 62:
        raise ValueError(f'voxels are too small for points that reach over {extent.tolist()} of them: set a larger voxel_m, or '
                         'look for points that are far off')
    size = tuple(extent.tolist())
    return low, np.ravel_multi_index(tuple((keys - low).T), size), size


@dataclass(frozen=True)
class VoxelSets:
    """Which of V voxels each of M frames sees.

    Attributes:
        words: (M, W) uint64, one bit for each voxel; bits beyond V are 0.
        keys: (V, 3) int64, whole numbers of voxels from the origin; voxel k reaches from key to key + 1.
        origin_m: (3,) float64, metres in the world frame.
        voxel_m: side of a voxel, metres.
    """

    words: np.ndarray
    keys: np.ndarray
    origin_m: np.ndarray
    voxel_m: float

    @classmethod
    def of_keys(cls, keys: Sequence[np.ndarray], origin_m: np.ndarray, voxel_m: float) -> VoxelSets:
        """Packs the sets of M frames, each given by (n, 3) whole voxel coordinates, in any order and with repetitions."""
        joined = np.concatenate([np.zeros((0, 3), np.int64), *keys]).astype(np.int64)
        if not len(joined):
            return cls(np.zeros((len(keys), 1), np.uint64), joined, origin_m, voxel_m)
        low, numbers, extent = _numbered(joined)
        number, which = np.unique(numbers, return_inverse=True)
        width = -(-len(number) // 64)
        words, start = np.zeros((len(keys), width), np.uint64), 0
        for row, own in enumerate(keys):
            seen = np.zeros(64 * width, bool)
            seen[which[start:start + len(own)]] = True
            words[row] = np.packbits(seen, bitorder='little').view(np.uint64)
            start += len(own)
        return cls(words, np.stack(np.unravel_index(number, extent), axis=1) + low, origin_m, voxel_m)

    @cached_property
    def counts(self) -> np.ndarray:
        """(M,) int64, voxels that each frame sees."""
        return count_bits(self.words)

    @property
    def centers_m(self) -> np.ndarray:
        """(V, 3) float64, the voxels' centres in the world frame."""
        return self.origin_m + (self.keys + 0.5) * self.voxel_m

    def union_count(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> int:
        """How many voxels the frames at `rows` see together."""
        return int(count_bits(np.bitwise_or.reduce(self.words[rows], axis=0)))

    def overlap(self, row: int, others: np.ndarray) -> np.ndarray:
        """(n,) intersection over union of one frame with each of `others`; 0 where neither sees anything."""
        both = count_bits(self.words[row] & self.words[others])
        return both / np.maximum(self.counts[row] + self.counts[others] - both, 1)

    def members(self, row: int) -> np.ndarray:
        """(V,) bool, what one frame sees."""
        return np.unpackbits(self.words[row].view(np.uint8), bitorder='little', count=len(self.keys)).astype(bool)
