"""Spatial: model. In: vision tokens (M, D) and tokens of a geometry encoder. Out: vision tokens (M, D) that carry geometry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, in float32 whatever comes in."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, tokens: Tensor) -> Tensor:
        wide = tokens.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(tokens.dtype)


def pack_tokens(videos: Sequence[Tensor], grids: Sequence[Sequence[int]], temporal: int = 2, merge: int = 2) -> Tensor:
    """Encoder tokens of each patch, laid out like the language model's vision tokens.

    Args:
        videos: each (frames, h * w, C), patches row by row, without special tokens.
        grids: (t, h, w) in patches, in the videos' order; a video may span several rows with the same h and w.
        temporal: frames that make one token.
        merge: patches along a side of a token.

    Returns:
        (M, merge * merge * C * temporal): row in the block, column in the block, channel, frame (fastest).

    Raises:
        ValueError: frames or patches do not fit the grids.
    """
    rows, taken = [], 0
    for number, tokens in enumerate(videos):
        if len(tokens) % temporal:
            raise ValueError(f'video {number}: {len(tokens)} frames of geometry do not divide into {temporal} a token')
        steps = len(tokens) // temporal
        height, width = grids[taken][1:] if taken < len(grids) else (0, 0)
        there = 0
        while there < steps and taken < len(grids) and tuple(grids[taken][1:]) == (height, width):
            there, taken = there + grids[taken][0], taken + 1
        if there != steps or tokens.shape[1] != height * width:
            raise ValueError(f'video {number}: geometry has {len(tokens)} frames of {tokens.shape[1]} patches, its grid '
                             f'{there * temporal} of {height} x {width}')
        cells = tokens.reshape(steps, temporal, height // merge, merge, width // merge, merge, tokens.shape[-1])
        rows.append(cells.permute(0, 2, 4, 3, 5, 6, 1).reshape(-1, merge * merge * tokens.shape[-1] * temporal))
    if taken != len(grids):
        raise ValueError(f'{len(grids)} grids, but geometry for {taken} of them')
    return torch.cat(rows)


class AddConnector(nn.Module):
    """Spatial-MLLM's additive connector: vision tokens + MLP(norm(geometry)).

    The parameters have the published names, `ln_q.weight`, `mlp.0.*`, `mlp.2.*`.

    Args:
        geometry_dim: width of a packed row (see `pack_tokens`).
        dim: D.
        zero: begin as an exact no-op.
    """

    def __init__(self, geometry_dim: int, dim: int, zero: bool = True) -> None:
        super().__init__()
        self.ln_q = RMSNorm(geometry_dim)
        last = nn.Linear(geometry_dim, dim)
        self.mlp = nn.Sequential(nn.Linear(geometry_dim, geometry_dim), nn.GELU(), last)
        if zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, vision: Tensor, geometry: Tensor) -> Tensor:
        """(M, D) and packed (M, geometry_dim) -> (M, D)."""
        return vision + self.mlp(self.ln_q(geometry.to(self.ln_q.weight.dtype))).to(vision.dtype)
