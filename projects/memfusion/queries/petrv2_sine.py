"""Queries. In: which feature cells lie in an image. Out: an embedding of where a cell is: frame, row and column (PETRv2).

The three say their sines side by side, so the layer above is a sum of one layer of frames, one of rows and one of columns;
where every image fills its frame it is computed for those alone and not for every cell.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.sine import sine_axis

from .by_parts import by_parts

_EPS = 1e-6
Place = tuple[Tensor, ...]
"""How far along its axes each cell of a frame is, 0..1: (frame, row, column) or (row, column), each broadcast to (B, N, h, w).
"""


class ImageSine(nn.Module):
    """Sine of (frame, row, column) through two layers (PETRv2, Liu et al., ICCV 2023).

    Args:
        dim: E; each axis of three has E / 2 numbers, so has each of two.
        frames: whether frames are told apart; else rows and columns alone, through a narrower layer.
        counted_views: whether the views of all frames are counted in place of the frames.
    """

    def __init__(self, dim: int, frames: bool = True, counted_views: bool = False) -> None:
        super().__init__()
        self.features, self.frames, self.counted = dim // 2, frames, counted_views
        wide, hidden = (3 * self.features, 4 * dim) if frames else (dim, dim)
        first, last = nn.Linear(wide, hidden), nn.Linear(hidden, dim)
        self.layers = nn.Sequential(first, nn.ReLU(), last)
        self.kept: tuple[Hashable, list[Tensor]] | None = None

    def forward(self, shown: Sequence[Tensor | None], cameras: Sequence[int], level_shape: tuple[int, int]) -> list[Tensor]:
        """The embedding of each frame, (B or 1, N or 1, h * w, E).

        In eval mode those of images that fill their frames are computed once.

        Args:
            shown: (B, N, h, w) bool, the cells that lie in an image; None is all.
            cameras: N of each frame.
            level_shape: h, w.
        """
        whole = all(one is None for one in shown)
        if self.training or torch.is_grad_enabled() or not whole:
            self.kept = None
            return self._make(shown, cameras, level_shape)
        key: Any = (tuple(cameras), level_shape, self._device, torch.is_autocast_enabled(self._device.type),
                    *((parameter.data_ptr(), parameter._version) for parameter in self.parameters()))
        if self.kept is None or self.kept[0] != key:
            self.kept = key, self._make(shown, cameras, level_shape)
        return self.kept[1]

    def places(self, shown: Sequence[Tensor | None], cameras: Sequence[int], level_shape: tuple[int, int]) -> list[Place]:
        """See Place, of each frame. Rows and columns are counted over the cells in the image; a frame is its number, or the
        number of views up to this one that show the cell."""
        device, count = self._device, len(cameras)
        places: list[Place]
        if all(one is None for one in shown):
            rows, columns = (_ranks(size, device) for size in level_shape)
            views = _ranks(sum(cameras), device)[None, :, None, None].split(list(cameras), dim=1)
            places = [(view, rows[None, None, :, None], columns[None, None, None]) for view in views]
        else:
            batch = next(len(one) for one in shown if one is not None)
            there = torch.cat([torch.ones(batch, number, *level_shape, device=device) if one is None else one.float()
                               for number, one in zip(cameras, shown)], dim=1)
            sums = [there.cumsum(axis) for axis in (1, 2, 3)]
            shares = [each / (each.narrow(axis, -1, 1) + _EPS) for axis, each in enumerate(sums, 1)]
            places = list(zip(*(share.split(list(cameras), dim=1) for share in shares)))
        if not self.frames:
            return [place[1:] for place in places]
        if self.counted:
            return places
        return [(torch.full((1, 1, 1, 1), (t + 1) / count, device=device), *place[1:]) for t, place in enumerate(places)]

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def sines(self, place: Place) -> list[Tensor]:
        """The axes' sines, (..., E / 2) each."""
        return [sine_axis(axis, self.features) for axis in place]

    def _make(self, shown: Sequence[Tensor | None], cameras: Sequence[int], level_shape: tuple[int, int]) -> list[Tensor]:
        made = []
        for place in self.places(shown, cameras, level_shape):
            batch, views = torch.broadcast_shapes(*(axis.shape[:2] for axis in place))
            flat = [axis.expand(batch, views, -1, -1).flatten(0, 1) for axis in place]
            made.append(by_parts(self._adapt, level_shape[0] * level_shape[1], *flat).unflatten(0, (batch, views)))
        return made

    def _adapt(self, *place: Tensor) -> Tensor:
        """(V, h or 1, w or 1) each -> (V, h * w, E)."""
        first: Any = self.layers[0]
        weights = first.weight.split(self.features, dim=1)
        *frame, rows, columns = (F.linear(sine, weight) for sine, weight in zip(self.sines(place), weights))
        wide = sum(frame, rows + first.bias) + columns
        return self.layers[1:](wide.flatten(1, 2))


def _ranks(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) / (count + _EPS)
