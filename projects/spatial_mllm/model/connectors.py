"""Spatial: model. In: vision tokens (M, D) and tokens of a geometry encoder. Out: vision tokens (M, D) that carry geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


class Connector(nn.Module):
    """What goes between vision tower and language model.

    Attributes:
        needs: the part of a `Scene` that it reads.
        adds_tokens: whether each grid step has a token more, before its vision tokens (`Processor(camera_tokens=True)`).
    """

    needs: str
    adds_tokens = False

    def reset(self) -> None:
        """Initial weights."""

    def forward(self, vision: Tensor, geometry: Tensor) -> Tensor:
        """Vision tokens (M, D) and what is known of each token, (M, C) -> (M, D)."""
        raise NotImplementedError


class AddConnector(Connector):
    """Spatial-MLLM's additive connector: vision tokens + MLP(norm(geometry)).

    The parameters have the published names, `ln_q.weight`, `mlp.0.*`, `mlp.2.*`.

    Args:
        geometry_dim: width of a packed row (see `pack_tokens`), or of a camera token.
        dim: D.
        zero: begin as an exact no-op.
    """

    needs = 'geometry'

    def __init__(self, geometry_dim: int, dim: int, zero: bool = True) -> None:
        super().__init__()
        self.zero = zero
        self.ln_q = RMSNorm(geometry_dim)
        self.mlp = nn.Sequential(nn.Linear(geometry_dim, geometry_dim), nn.GELU(), nn.Linear(geometry_dim, dim))
        self.reset()

    def reset(self) -> None:
        for layer in (self.mlp[0], self.mlp[2]):
            layer.reset_parameters()  # type: ignore[operator]
        if self.zero:
            for parameter in self.mlp[2].parameters():
                nn.init.zeros_(parameter)
        nn.init.ones_(self.ln_q.weight)

    def forward(self, vision: Tensor, geometry: Tensor) -> Tensor:
        """(M, D) and packed (M, geometry_dim) -> (M, D)."""
        return vision + self.mlp(self.ln_q(geometry.to(self.ln_q.weight.dtype))).to(vision.dtype)


class CameraConnector(AddConnector):
    """The camera's token alone, the same for all tokens of a grid step, added as `AddConnector` adds geometry."""

    needs = 'camera'


class CameraPrefix(Connector):
    """A token of its own for each grid step's camera, before the step's vision tokens, which stay as they are.

    Args:
        geometry_dim: width of a camera's numbers.
        dim: D.
    """

    needs, adds_tokens = 'camera', True

    def __init__(self, geometry_dim: int, dim: int) -> None:
        super().__init__()
        self.ln_q = RMSNorm(geometry_dim)
        self.mlp = nn.Sequential(nn.Linear(geometry_dim, geometry_dim), nn.GELU(), nn.Linear(geometry_dim, dim))
        self.reset()

    def reset(self) -> None:
        for layer in (self.mlp[0], self.mlp[2]):
            layer.reset_parameters()  # type: ignore[operator]
        nn.init.ones_(self.ln_q.weight)

    def forward(self, vision: Tensor, geometry: Tensor) -> Tensor:
        """(M, D) and cameras (S, geometry_dim) -> the cameras' tokens (S, D)."""
        return self.mlp(self.ln_q(geometry.to(self.ln_q.weight.dtype))).to(vision.dtype)


def put_before_steps(tokens: Tensor, firsts: Tensor, per_step: Tensor) -> Tensor:
    """Tokens (M, D) of S grid steps, per_step (S,) of each, and one (S, D) for each -> (M + S, D), each before its step's."""
    steps = torch.arange(len(per_step), device=tokens.device)
    before = per_step.cumsum(0) - per_step
    place = torch.arange(len(tokens), device=tokens.device) + steps.repeat_interleave(per_step, output_size=len(tokens)) + 1
    both = tokens.new_zeros(len(tokens) + len(firsts), tokens.shape[1])
    return both.index_copy(0, before + steps, firsts).index_copy(0, place, tokens)


class CatConnector(Connector):
    """Half of the channels from the picture, half from geometry.

    Args:
        geometry_dim: width of a packed row.
        dim: D, even.
    """

    needs = 'geometry'

    def __init__(self, geometry_dim: int, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"connector 'cat' halves the {dim} channels of a token, which are odd")
        self.picture = nn.Linear(dim, dim // 2)
        self.ln_q = RMSNorm(geometry_dim)
        self.mlp = nn.Sequential(nn.Linear(geometry_dim, geometry_dim), nn.GELU(), nn.Linear(geometry_dim, dim // 2))
        self.reset()

    def reset(self) -> None:
        """The picture's half begins with the first half of its channels."""
        for layer in (self.mlp[0], self.mlp[2]):
            layer.reset_parameters()  # type: ignore[operator]
        nn.init.eye_(self.picture.weight)
        nn.init.zeros_(self.picture.bias)
        nn.init.ones_(self.ln_q.weight)

    def forward(self, vision: Tensor, geometry: Tensor) -> Tensor:
        """(M, D) and packed (M, geometry_dim) -> (M, D)."""
        added = self.mlp(self.ln_q(geometry.to(self.ln_q.weight.dtype)))
        return torch.cat([self.picture(vision), added.to(vision.dtype)], dim=-1)


CONNECTORS: dict[str, type[Connector]] = dict(add=AddConnector, cat=CatConnector, camera_token=CameraConnector,
                                              camera_prefix=CameraPrefix)


def build_connector(cfg: Mapping[str, Any] | None, dim: int) -> Connector | None:
    """`type`: a name of CONNECTORS or 'none' (or no config at all), and what its constructor takes beside `dim`.

    Raises:
        ValueError: for another type.
    """
    settings = dict(cfg or {})
    kind = settings.pop('type', 'none')
    if kind == 'none':
        return None
    if kind not in CONNECTORS:
        raise ValueError(f"connector.type must be one of {', '.join(CONNECTORS)} or none, got {kind!r}")
    return CONNECTORS[kind](dim=dim, **settings)
