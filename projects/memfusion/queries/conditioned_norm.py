"""Queries. In: features (B, T, E), numbers that say how they were seen. Out: the features, normed by what the numbers say.

The motion-aware layer norm of StreamPETR (Wang et al., ICCV 2023), and its spatial alignment.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shift(NamedTuple):
    """Scale and offset of normed features, (..., T, E) each."""

    gamma: Tensor
    beta: Tensor

    def of(self, features: Tensor) -> Tensor:
        """(..., T, E) -> (..., T, E)."""
        return torch.addcmul(self.beta, F.layer_norm(features, features.shape[-1:]), self.gamma)


class SplitConditions(NamedTuple):
    """Numbers of T features, some of which `run` features in a row have in common.

    Attributes:
        own: (B, T, K) numbers of their own, the columns `own_columns` of all C.
        common: (B, T / run, C - K), the columns `common_columns`.
        run: how many in a row.
        own_columns, common_columns: places among the C.
    """

    own: Tensor
    common: Tensor
    run: int
    own_columns: list[int]
    common_columns: list[int]

    def through(self, layer: nn.Linear) -> Tensor:
        """What the layer makes of all C numbers, (B, T, E)."""
        common = F.linear(self.common, layer.weight[:, self.common_columns], layer.bias)
        own = F.linear(self.own, layer.weight[:, self.own_columns])
        return (own.unflatten(1, (-1, self.run)) + common[:, :, None]).flatten(1, 2)


class ConditionedNorm(nn.Module):
    """LayerNorm without weights of its own: scale and offset come from numbers. At first the scale is 1 and the offset 0.

    Args:
        num_conditions: C.
        dim: E.
    """

    def __init__(self, num_conditions: int, dim: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(num_conditions, dim)
        self.gamma, self.beta = nn.Linear(dim, dim), nn.Linear(dim, dim)
        nn.init.zeros_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)
        nn.init.ones_(self.gamma.bias)
        nn.init.zeros_(self.beta.bias)

    def shift(self, conditions: Tensor | SplitConditions) -> Shift:
        """(..., T, C) -> scale and offset, which may be used again where the numbers stay."""
        reduced = conditions.through(self.reduce) if isinstance(conditions, SplitConditions) else self.reduce(conditions)
        hidden = reduced.relu()
        return Shift(self.gamma(hidden), self.beta(hidden))

    def forward(self, features: Tensor, conditions: Tensor | SplitConditions) -> Tensor:
        """(B, T, E) and (B, T, C) -> (B, T, E)."""
        return self.shift(conditions).of(features)
