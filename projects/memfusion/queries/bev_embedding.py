"""Queries. In: ground positions in parts of the range. Out: embeddings (..., E), the same for BEV tokens and queries (CMT)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.pieces import in_pieces
from projects.encodings.sine import LADDERS, sine_axis, sine_points
from projects.geometry.exporting import is_exporting
from projects.geometry.precision import full_precision

_PIECE = 2 ** 19
"""Numbers of the hidden layer that are there at a time."""


class BEVEmbedding(nn.Sequential):
    """An MLP on the sine of ground positions (CMT, Yan et al., ICCV 2023); parameters have the published names.

    Args:
        dim: E.
        ladder: of the sine, see encodings.sine; 'linear' is the published one, whose frequencies lie within an octave.
    """

    def __init__(self, dim: int, ladder: str = 'power') -> None:
        if ladder not in LADDERS:
            raise ValueError(f'model.pts_bbox_head.inputs.ladder must be one of {", ".join(LADDERS)}, got {ladder!r}')
        super().__init__(nn.Linear(2 * dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, dim))
        self.dim, self.ladder = dim, ladder
        self._kept: tuple[Any, Tensor] | None = None

    def forward(self, positions: Tensor) -> Tensor:
        """(..., 2) x and y, 0 to 1 over the range -> (..., E)."""
        return super().forward(self.sine(positions))

    @full_precision
    def sine(self, positions: Tensor) -> Tensor:
        """(..., 2) -> (..., 2 E) float32, those of y first."""
        return sine_points(positions.float(), self.dim, order=(1, 0), ladder=self.ladder)

    def of_cells(self, shape: tuple[int, int]) -> Tensor:
        """(H * W, E) of the cells of a map (H, W), row by row. Without gradients they are kept as long as the weights are
        the same: no rig and no frame changes them."""
        if self.training or torch.is_grad_enabled() or is_exporting():
            self._kept = None
            return self._made(shape)
        device = next(self.parameters()).device
        weights = tuple((parameter.data_ptr(), parameter._version) for parameter in self.parameters())
        key = (tuple(shape), device, torch.is_autocast_enabled(device.type), weights)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._made(shape)
        return self._kept[1]

    def _made(self, shape: tuple[int, int]) -> Tensor:
        """The first layer is linear: what it makes of a cell is the sum of what it makes of its row and of its column."""
        first, last = self._layer(0), self._layer(2)
        rows, columns = (sine_axis(axis_fractions(count, first.weight.device), self.dim, ladder=self.ladder) for count in shape)
        of_row = F.linear(rows, first.weight[:, :self.dim], first.bias)
        of_column = F.linear(columns, first.weight[:, self.dim:])

        def make(some: Tensor) -> Tensor:
            return last((some[:, None] + of_column).relu_())

        return in_pieces(make, [of_row], 0, max(_PIECE // (shape[1] * self.dim), 1)).flatten(0, 1)

    def _layer(self, place: int) -> Any:
        return self[place]

    def forget(self) -> None:
        """Forgets what is kept."""
        self._kept = None


def axis_fractions(count: int, device: torch.device | None = None) -> Tensor:
    """(count,) float32, centres of cells side by side, 0 to 1."""
    return (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count


def cell_fractions(shape: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(H * W, 2) float32 x and y of the centres of a map's cells, 0 to 1 over the range, row by row."""
    y, x = (axis_fractions(count, device) for count in shape)
    grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1)
