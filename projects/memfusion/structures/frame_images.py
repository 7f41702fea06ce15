"""Contract, no network: image levels and the rig that saw them. In: those of scenes padded to other sizes. Out: one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .calibration import Calibration
from .rows import take_rows


@dataclass(frozen=True)
class FrameImages:
    """What the cameras of B scenes show: levels (B, N, Ci, h, w), and the rig."""

    levels: tuple[Tensor, ...]
    rig: Calibration

    def take(self, rows: Sequence[int]) -> FrameImages:
        """The scenes at these positions."""
        return FrameImages(tuple(take_rows(level, rows) for level in self.levels), self.rig.select(list(rows)))

    @staticmethod
    def join(parts: Sequence[FrameImages]) -> FrameImages:
        """Scenes side by side; where images are padded to other sizes, all to the largest.

        Raises:
            ValueError: where the cells of their levels would be of another size.
        """
        if len({part.rig.padded_hw for part in parts}) > 1:
            padded_hw = _largest([part.padded_hw for part in parts])
            sizes = [_largest([level.shape[-2:] for level in same]) for same in zip(*(part.levels for part in parts))]
            parts = [part.padded_to(padded_hw, sizes) for part in parts]
        return FrameImages(tuple(map(torch.cat, zip(*(part.levels for part in parts)))),
                           Calibration.cat([part.rig for part in parts]))

    def like(self, now: FrameImages, there: Sequence[bool]) -> FrameImages:
        """The same with as much padding as `now`, if the images of the scenes that are `there` leave room for no more."""
        height, width = now.padded_hw
        facts, rows = self.rig.facts, [row for row, ok in enumerate(there) if ok]
        fits = all(h <= height and w <= width for row in rows for h, w in zip(facts.img_height[row], facts.img_width[row]))
        sizes = [(level.shape[-2], level.shape[-1]) for level in now.levels]
        if self.padded_hw == now.padded_hw or not fits or not self._keeps_strides(now.padded_hw, sizes):
            return self
        return self.padded_to(now.padded_hw, sizes)

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Height and width, pixels, that every level covers."""
        return self.rig.padded_hw or self.rig.facts.largest_hw

    def padded_to(self, padded_hw: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> FrameImages:
        """Levels of these (h, w) that cover padded_hw; what is cut off, or comes on top as zeros, shows no image.

        Raises:
            ValueError: where a level's cells would be of another size.
        """
        if not self._keeps_strides(padded_hw, sizes):
            raise ValueError(f'images padded to {self.padded_hw} pixels share a batch with some padded to {padded_hw}, but the '
                             'cells of their levels are not of one size: let model.data_preprocessor pad to multiples of the '
                             'largest stride (pad_size_divisor)')
        levels = tuple(F.pad(level, (0, size[1] - level.shape[-1], 0, size[0] - level.shape[-2]))
                       for level, size in zip(self.levels, sizes))
        return FrameImages(levels, self.rig.padded_to(padded_hw))

    def _keeps_strides(self, padded_hw: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> bool:
        return all(cells * new == more * old for level, size in zip(self.levels, sizes)
                   for cells, more, old, new in zip(level.shape[-2:], size, self.padded_hw, padded_hw))


def _largest(sizes: Sequence[Sequence[int]]) -> tuple[int, int]:
    return max(size[0] for size in sizes), max(size[1] for size in sizes)
