"""Contract, no network: what the host knows of a rig, so that nobody has to ask a tensor on a GPU. In, out: Calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from projects.geometry.distortion import PINHOLE

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class RigFacts:
    """Plain numbers of B frames and N cameras: codes of lens models, 1 for a camera that is there,
    and the sizes of network images."""

    lens_model: Table
    cam_valid: Table
    img_height: Table
    img_width: Table

    @classmethod
    def of(cls, distortion_model: Tensor, cam_valid: Tensor, img_hw: Tensor) -> RigFacts:
        """Of (B, N), (B, N) and (B, N, 2) tensors; waits for the GPU where they are on one."""
        columns = torch.stack([distortion_model, cam_valid.long(), *img_hw.unbind(-1)]).tolist()
        return cls(*(tuple(map(tuple, column)) for column in columns))

    @classmethod
    def cat(cls, parts: Sequence[RigFacts]) -> RigFacts:
        """Joins frames along B."""
        return cls(*(tuple(chain.from_iterable(tables)) for tables in zip(*(part._tables for part in parts))))

    def select(self, frames: Sequence[int]) -> RigFacts:
        """The frames at these positions."""
        return RigFacts(*(tuple(table[b] for b in frames) for table in self._tables))

    def take_cameras(self, order: Sequence[int]) -> RigFacts:
        """The cameras at these positions."""
        return RigFacts(*(tuple(tuple(row[n] for n in order) for row in table) for table in self._tables))

    @property
    def lens_models(self) -> tuple[int, ...]:
        """Codes that occur, see geometry.distortion."""
        return tuple(sorted(set(chain.from_iterable(self.lens_model))))

    @property
    def bent_cameras(self) -> tuple[int, ...]:
        """Positions of the cameras that have lens distortion in any frame."""
        return tuple(n for n, codes in enumerate(zip(*self.lens_model)) if any(code != PINHOLE for code in codes))

    @property
    def largest_hw(self) -> tuple[int, int]:
        """Height and width that the images of all cameras that are there fit in; of all cameras, where none is."""
        there = list(chain.from_iterable(self.cam_valid))
        sizes = [list(chain.from_iterable(table)) for table in (self.img_height, self.img_width)]
        height, width = (max((size for size, keep in zip(every, there) if keep or not any(there)), default=0)
                         for every in sizes)
        return height, width

    @property
    def _tables(self) -> tuple[Table, Table, Table, Table]:
        return self.lens_model, self.cam_valid, self.img_height, self.img_width
