"""Queries. In: nothing, or positions in metres. Out: reference points in 0..1 of the range, and how layers refine them.

References are kept in 0..1; only `refined` goes through the sigmoid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projects.encodings.frustum import in_metres, inverse_sigmoid, normalised


def refined(offset: Tensor, reference: Tensor) -> Tensor:
    """sigmoid(offset + inverse sigmoid of reference), (..., K) in 0..1, float32: the offset is one of logits."""
    return (offset.float() + inverse_sigmoid(reference.float())).sigmoid()


def grid_references(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2) x and y of the cells' centres in 0..1, x fastest: pillars that cover the range evenly."""
    y, x = ((torch.arange(count) + 0.5) / count for count in (rows, columns))
    grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1)


class PointReferences(nn.Module):
    """Learned points, in 0..1 of the range without a sigmoid (PETR, Liu et al., ECCV 2022).

    Args:
        num: Q.
    """

    def __init__(self, num: int) -> None:
        super().__init__()
        if num < 1:
            raise ValueError(f'pts_bbox_head wants at least one query, got {num}: set num_queries')
        self.weight = nn.Parameter(torch.rand(num, 3))

    def forward(self, batch_size: int) -> Tensor:
        """(B, Q, 3)."""
        return self.weight.expand(batch_size, -1, -1)


__all__ = ['PointReferences', 'grid_references', 'in_metres', 'inverse_sigmoid', 'normalised', 'refined']
