"""Encodings. In: numbers, as a rule in 0..1. Out: sines and cosines of them at many wavelengths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LADDERS = ('power', 'linear')


def sine_axis(values: Tensor, features: int, temperature: float = 10000.0, scale: float = 2 * math.pi,
              ladder: str = 'power') -> Tensor:
    """(...) -> (..., features): sine and cosine in turn, wavelengths growing (Vaswani et al., 2017).

    Args:
        values: numbers of any shape.
        features: even.
        temperature: the longest wavelength is about this many times the shortest, for the ladder 'power'.
        scale: multiplies the numbers.
        ladder: 'power' divides by temperature ** (2 i / features), 'linear' by 2 i / features + 1, i being the pair's place.

    Raises:
        ValueError: for an odd number of features, or another ladder.
    """
    if features % 2 or ladder not in LADDERS:
        raise ValueError(f'sine features must be even, and the ladder one of {", ".join(LADDERS)}; got {features} of '
                         f'{ladder!r}')
    place = 2 * torch.arange(features // 2, dtype=values.dtype, device=values.device) / features
    divisor = temperature ** place if ladder == 'power' else place + 1
    angle = (values * scale)[..., None] / divisor
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def sine_points(points: Tensor, features: int, order: Sequence[int], temperature: float = 10000.0,
                scale: float = 2 * math.pi, ladder: str = 'power') -> Tensor:
    """(..., K) -> (..., len(order) * features): the axes' sines side by side.

    Args:
        points: K coordinates.
        features: of each axis.
        order: which coordinates, e.g. (1, 0, 2) for y, x, z as in DETR's successors.
        temperature, scale, ladder: as in sine_axis.
    """
    picked = torch.stack([points[..., axis] for axis in order], dim=-1)
    return sine_axis(picked, features, temperature, scale, ladder).flatten(-2)


def sine_octaves(values: Tensor, count: int = 6) -> Tensor:
    """(..., K) -> (..., 2 K count): sines of all numbers, cosines of all, at frequencies 1, 2, 4, ... (NeRF, without pi)."""
    angles = values[..., None, :] * 2.0 ** torch.arange(count, dtype=values.dtype, device=values.device)[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)
