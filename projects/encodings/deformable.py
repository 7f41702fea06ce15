"""Encodings, pure functions. In: maps, places in them, weights. Out: the weighted bilinear samples of each query.

Multi-scale deformable attention (Zhu et al., ICLR 2021) without a compiled operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from projects.geometry import sample_bilinear


def sample_weighted(values: Sequence[Tensor], places: Tensor, weights: Tensor) -> Tensor:
    """What Q queries read of B images; beyond a map lies 0.

    Args:
        values: L levels of (B, heads, d, h, w).
        places: (B, Q, heads, L, P, 2) x and y, 0 to 1 from border to border of a level.
        weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * d), float32.
    """
    reads = []
    for level, value in enumerate(values):
        grid = places[:, :, :, level].float().transpose(1, 2).flatten(0, 1).mul(2).sub_(1)  # (B * heads, Q, P, 2)
        sampled = sample_bilinear(value.float().flatten(0, 1), grid)  # (B * heads, d, Q, P)
        weight = weights[:, :, :, level].float().transpose(1, 2).flatten(0, 1)
        reads.append((sampled * weight[:, None]).sum(-1))
    return reduce(torch.add, reads).unflatten(0, values[0].shape[:2]).flatten(1, 2).transpose(1, 2)


def into_heads(features: Tensor, shape: Sequence[int], num_heads: int) -> Tensor:
    """(B, h * w, D), row-major -> (B, heads, d, h, w)."""
    return features.transpose(1, 2).unflatten(2, tuple(shape)).unflatten(1, (num_heads, -1))


def start_offsets(linear: nn.Linear, num_heads: int, maps: int, num_points: int) -> None:
    """Starts a layer of offsets (heads, maps, points, x y) as published: each head looks into a direction of its own, one cell
    further with each point, whatever the query says."""
    angle = torch.arange(num_heads) * (2 * math.pi / num_heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, num_points + 1).view(1, 1, -1, 1)
    start = (direction.view(num_heads, 1, 1, 2) * steps).expand(-1, maps, -1, -1)
    nn.init.zeros_(linear.weight)
    with torch.no_grad():
        linear.bias.copy_(start.flatten())


def check_heads(dim: int, num_heads: int) -> None:
    """ValueError where the heads do not divide the width."""
    if dim % num_heads:
        raise ValueError(f'dim={dim} does not divide by num_heads={num_heads}')
