"""Queries. In: query features (..., E). Out: ten numbers of a box, each group of them through layers of its own (PETRv2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ORDER = 'x y w l z h'
"""First six numbers of PETRv2's box code."""
_GROUPS = (2, 1, 3, 2, 2)


class GroupedBranch(nn.Module):
    """Two shared layers, then two for each of: position, height, sizes, heading, velocity (PETRv2, Liu et al., ICCV 2023).

    Args:
        dim: E.
        as_listed: whether the groups' numbers go into the code as they are listed. The group of one is then the logarithm of
            the width, and the height above ground stands among the sizes.
    """

    def __init__(self, dim: int, as_listed: bool = False) -> None:
        super().__init__()
        self.as_listed = as_listed
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.groups = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, numbers)) for numbers in _GROUPS)

    def forward(self, queries: Tensor) -> Tensor:
        """(..., E) -> (..., 10) in the order x, y, w, l, z, h, sin, cos, vx, vy."""
        shared = self.shared(queries)
        position, height, sizes, heading, velocity = (group(shared) for group in self.groups)
        if self.as_listed:
            return torch.cat([position, height, sizes, heading, velocity], dim=-1)
        return torch.cat([position, sizes[..., :2], height, sizes[..., 2:], heading, velocity], dim=-1)
