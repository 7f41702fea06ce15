"""Queries. In: what each query's points read, (B, Q, G, P, c). Out: the queries with it mixed in, by weights of their own.

Adaptive mixing of SparseBEV (Liu et al., ICCV 2023), after AdaMixer (Gao et al., CVPR 2022).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, cat, nn

_MOST_NUMBERS = dict(cpu=1 << 22, gpu=1 << 26)
"""Generated weights that there are at once: bounds memory. A CPU is fastest where they stay near its cache."""


class AdaptiveMixing(nn.Module):
    """Each query generates a matrix over channels and one over points for every group, applies them with an affine-free layer
    norm and a ReLU after each, and adds the projection of all that to itself.

    Queries do not meet, so they are worked off in parts: the weights that they generate are the largest thing in a decoder.

    Args:
        dim: E.
        num_groups: G; divides E.
        in_points: P, all points of a group.
        out_points: rows of the matrix over points.
    """

    def __init__(self, dim: int, num_groups: int, in_points: int, out_points: int = 128) -> None:
        super().__init__()
        self.num_groups, self.in_points, self.out_points = num_groups, in_points, out_points
        self.channels = dim // num_groups
        size = num_groups * (self.channels ** 2 + in_points * out_points)
        self.parameter_generator = nn.Linear(dim, size)
        self.out_proj = nn.Linear(dim * out_points, dim)
        nn.init.zeros_(self.parameter_generator.weight)

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """(B, Q, G, P, c) and (B, Q, E) -> (B, Q, E).

        Raises:
            ValueError: for another number of points.
        """
        if features.shape[3] != self.in_points:
            raise ValueError(f'adaptive mixing was made for {self.in_points} points in a group, got {features.shape[3]}')
        most = _MOST_NUMBERS['cpu' if query.device.type == 'cpu' else 'gpu']
        size = max(1, most // self.parameter_generator.out_features)
        mixed = [self._mix(*part) for part in zip(features.flatten(0, 1).split(size), query.flatten(0, 1).split(size))]
        return query + cat(mixed).view_as(query)

    def _mix(self, features: Tensor, query: Tensor) -> Tensor:
        """(K, G, P, c) and (K, E) -> (K, E)."""
        over_channels, over_points = self.parameter_generator(query).unflatten(-1, (self.num_groups, -1)).split(
            [self.channels ** 2, self.in_points * self.out_points], dim=-1)
        mixed = features @ over_channels.unflatten(-1, (self.channels, self.channels))
        mixed = F.relu(F.layer_norm(mixed, mixed.shape[-2:]), inplace=True)
        mixed = over_points.unflatten(-1, (self.out_points, self.in_points)) @ mixed
        mixed = F.relu(F.layer_norm(mixed, mixed.shape[-2:]), inplace=True)
        return self.out_proj(mixed.flatten(1))
