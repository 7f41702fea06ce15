"""Contract, no network: where queries look, for pictures. In: layers that sample or attend. Out: points, pixels, weights.

A layer through which queries look has a method `query_looks(chosen, *args, **kwargs)`: with the arguments of its `forward` it
says where some of the queries look. Nothing in `forward` knows of it; see visualization.query_record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenPlaces:
    """What tokens, in their order, show.

    Attributes:
        shape: (N, h, w), cells of N cameras' images, or (H, W), BEV cells.
        age: 0 in the current frame, 1 in the one before, ...
    """

    shape: tuple[int, ...]
    age: int = 0

    @property
    def size(self) -> int:
        """How many tokens."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Looks:
    """Where K chosen queries of B frames look in one layer; None where the layer does nothing of the kind.

    Attributes:
        points_m: (B, K, P, 3) points that are sampled, augmented LiDAR frame.
        uv_px: (B, N, K, P, 2) their network pixels in the current frame; and
        seen: (B, N, K, P) bool, whether they are read there.
        images: (B, K, N, h, w) share of the attention on the cells of the current frame's images.
        bev: (B, K, H, W) share on BEV cells.
        earlier: (B, K) share on earlier frames.
    """

    points_m: Tensor | None = None
    uv_px: Tensor | None = None
    seen: Tensor | None = None
    images: Tensor | None = None
    bev: Tensor | None = None
    earlier: Tensor | None = None

    @staticmethod
    def of_weights(weights: Tensor, places: Sequence[TokenPlaces]) -> Looks:
        """(B, K, T) shares that sum to 1, of the tokens of all places one after the other.

        Raises:
            ValueError: where the places have another number of tokens.
        """
        sizes = [place.size for place in places]
        if sum(sizes) != weights.shape[2]:
            raise ValueError(f'queries attend to {weights.shape[2]} tokens, but it is known of {sizes} where they lie')
        images = bev = None
        earlier = weights.new_zeros(weights.shape[:2])
        for place, part in zip(places, weights.split(sizes, dim=2)):
            if place.age:
                earlier = earlier + part.sum(2)
            elif len(place.shape) == 3:
                images = part.unflatten(2, place.shape)
            else:
                bev = part.unflatten(2, place.shape)
        return Looks(images=images, bev=bev, earlier=earlier)


class Looking(Protocol):
    """A layer through which queries look."""

    query_looks: Callable[..., Looks]
    """(chosen, ...) -> where the queries at `chosen`, (K,) int64 positions, look; further arguments are those of `forward`."""
