"""Stage memory: what BEV cells say of copying. In: BEV features and which cells hold points. Out: gate, worth, similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, constant_init
from torch import Tensor, nn

from .cell_values import CellValue


def copy_into(bev: Tensor, kind: CellValue, remembered: Tensor, share: Tensor, gate: Tensor) -> Tensor:
    """`bev + gate * (features - share * bev)` with the features of remembered values, in few passes over features: what can be
    is done to values, which are narrow.

    Args:
        bev: (B, C, H, W).
        kind: of the values.
        remembered, share: (B, V, H, W) and (B, 1, H, W), as CellValue.decode takes them.
        gate: (B, 1, H, W) in 0..1; where it is 0, or nothing is remembered, the answer is bev, bit for bit.
    """
    return bev * (1 - gate * share) + kind.decode(gate * remembered, gate * share)


def convolve_once(seen: Tensor, *layers: nn.Conv2d) -> tuple[Tensor, ...]:
    """What convolutions of one shape say of the same map, as one: alone, each of so few channels takes as long as all."""
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ('weight', 'bias'))
    return F.conv2d(seen, weight, bias, padding=1).split([layer.out_channels for layer in layers], dim=1)


class CopyGate(nn.Conv2d):
    """Where what is remembered stands in for the features: a 3x3 convolution over [bev, observed] -> (B, 1, H, W) in 0..1.

    It starts with what `observed` tells alone: open (0.88) where no point is, shut (0.12) where one is.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels + 1, 1, 3, padding=1)
        constant_init(self, 0.0, bias=2.0)
        self.weight.data[:, -1, 1, 1] = -4.0

    def forward(self, seen: Tensor) -> Tensor:
        """[bev, observed] (B, C + 1, H, W) -> (B, 1, H, W)."""
        return super().forward(seen).sigmoid()


class CellCues(nn.Conv2d):
    """What single cells of a frame say, a 3x3 convolution over [bev, observed]: logits (B, 2, H, W) of the null element now,
    and of what the cell is worth when it is remembered.

    At the start what was seen is worth e times what was not, and null has a weight of 0.14 against 1 of a cell.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels + 1, 2, 3, padding=1)
        constant_init(self, 0.0)
        self.weight.data[1, -1, 1, 1] = 1.0
        nn.init.constant_(self.bias.data[:1], -2.0)  # type: ignore[union-attr]


class CellKeys(BaseModule):
    """XMem's key vocabulary for single cells: key and selection, anisotropic L2 (Cheng and Schwing, ECCV 2022, eq. 5); what it
    calls shrinkage is the cell's worth here.

    Args:
        in_channels, dim: C and CK.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.key, self.selection = nn.Conv2d(in_channels, dim, 1), nn.Conv2d(in_channels, dim, 1)

    def similarity(self, bev: Tensor, stored: Tensor) -> Tensor:
        """bev (B, C, H, W) asks keys (B, F, CK, H, W) of its own cells -> (B, F, H, W), at most 0."""
        query, selection = self.key(bev)[:, None], self.selection(bev).sigmoid()[:, None]
        return -(selection * (stored - query).square()).sum(dim=2) / stored.shape[2] ** 0.5
