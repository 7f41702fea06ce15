"""Geometry of places around boxes, each in its box's own frame. In: boxes, distances. Out: where they lie, metres, BEV frame.

What decides an agent's future lies ahead of it, not under it. A crop of the map that is turned with the agent's heading is how
forecasters look there: SpAGNN (rotated regions of interest), MTP (a raster with the agent's heading up).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import full_precision

AHEAD_M = (4.0, 8.0, 12.0, 16.0, 24.0, 32.0)
RIGHT_M = (-8.0, -4.0, 0.0, 4.0, 8.0)


@dataclass(frozen=True)
class Surroundings:
    """A grid of P points in the frame of an agent, its heading along +y: each distance ahead with each to the right.

    Attributes:
        ahead_m: rising, negative behind.
        right_m: rising, negative to the left.

    Raises:
        ValueError: naming what is not rising numbers.
    """

    ahead_m: Sequence[float] = AHEAD_M
    right_m: Sequence[float] = RIGHT_M

    def __post_init__(self) -> None:
        for name in ('ahead_m', 'right_m'):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or any(
                    isinstance(one, bool) or not isinstance(one, numbers.Real) for one in values):
                raise ValueError(f'around.{name} must be a list of numbers, metres, got {values!r}')
            if not len(values) or not all(map(math.isfinite, values)) or any(
                    low >= high for low, high in zip(values, values[1:])):
                raise ValueError(f'around.{name} must be rising numbers, metres, one at least, got {list(values)}')

    @staticmethod
    def of(pooling: str, around: Mapping[str, Sequence[float]] | None) -> Surroundings | None:
        """Those of a config: None where nothing is pooled around agents.

        Raises:
            ValueError: for settings that another pooling would not look at, or that are none.
        """
        if pooling != 'around':
            if around is not None:
                raise ValueError(f"around={dict(around)} is of pooling='around', got pooling={pooling!r}: set that, or leave "
                                 'around out')
            return None
        settings = dict(around or {})
        if unknown := sorted(set(settings) - {'ahead_m', 'right_m'}):
            raise ValueError(f'around has no {unknown[0]!r}: it takes ahead_m and right_m')
        return Surroundings(**settings)

    @property
    def num_points(self) -> int:
        """P."""
        return len(self.ahead_m) * len(self.right_m)

    @full_precision
    def places_m(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 7) as mmdet3d's LiDAR boxes -> (..., P, 2) x, y in their frame; the farthest ahead last."""
        ahead = boxes.new_tensor(self.ahead_m).repeat_interleave(len(self.right_m))
        right = boxes.new_tensor(self.right_m).repeat(len(self.ahead_m))
        cos, sin = boxes[..., 6, None].cos(), boxes[..., 6, None].sin()
        return boxes[..., None, :2] + torch.stack([ahead * cos + right * sin, ahead * sin - right * cos], dim=-1)
