"""Encodings. In: heads of an attention, the matrices and angles of their tokens. Out: the heads, every block transformed.

Outside autocast and never in TF32. There is no tensor of queries by keys, and no matrix for each token and head: all tokens of
a camera go through one product with the block-diagonal matrix of its channels, which also exchanges the partners of rotary
pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from projects.geometry.precision import full_precision

from .layouts import Block

Blocks = tuple[Block, ...]


def transform(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks, views: int,
              back: bool = False) -> Tensor:
    """(B, heads, N * T, d) -> the same, in the dtype that came in; computed in float32, or float64 where that came in.

    Args:
        heads: features of N views with T tokens each.
        matrix: (B or 1, N, 4, 4), multiplies groups of four channels of P blocks.
        cos, sin: (B or 1, heads or 1, N or 1, T or 1, d), see `positions.turns_of`.
        blocks: what channels do.
        views: N.
        back: whether rotary pairs turn back.
    """
    if not heads.shape[2]:
        return heads
    dtype = torch.float64 if heads.dtype == torch.float64 else torch.float32
    matrix, cos, sin = (None if part is None else part.to(dtype) for part in (matrix, cos, sin))
    if torch.compiler.is_compiling():
        return _by_numbers(heads, matrix, cos, sin, blocks, views, back)
    return _in_full_precision(heads, matrix, cos, sin, blocks, views, back)


@full_precision
def _in_full_precision(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks, views: int,
                       back: bool) -> Tensor:
    return _Transform.apply(heads, matrix, cos, sin, blocks, views, back)


class _Transform(torch.autograd.Function):
    """Keeps matrices and angles for the backward pass, which transforms by transposes; features only where a matrix learns."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks,
                views: int, back: bool) -> Tensor:
        ctx.save_for_backward(matrix, cos, sin, heads if ctx.needs_input_grad[1] else None)
        ctx.blocks, ctx.views, ctx.back = blocks, views, back
        return _by_products(heads, matrix, cos, sin, blocks, views, back)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, cos, sin, heads = ctx.saved_tensors
        of_heads = of_matrix = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                turned = None if matrix is None else matrix.transpose(-1, -2)
                of_heads = _by_products(gradient, turned, cos, sin, ctx.blocks, ctx.views, not ctx.back)
            if ctx.needs_input_grad[1]:
                of_matrix = _matrix_gradient(heads, gradient, matrix, ctx.blocks, ctx.views)
        return of_heads, of_matrix, None, None, None, None, None


def _by_products(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks, views: int,
                 back: bool) -> Tensor:
    known = cos if matrix is None else matrix
    if known is None:
        return heads.clone()
    features = heads.to(known.dtype).unflatten(2, (views, -1))
    every_token = features.shape[3] == 1  # has a matrix of its own
    if matrix is None or every_token:
        wide = _wide(features, None, blocks, back)[0, :, 0]
        result = torch.matmul(features.flatten(2, 3), wide[0] if len(wide) == 1 else wide).view(features.shape)
    else:
        result = torch.matmul(features, _wide(features, matrix, blocks, back))
    if cos is not None and sin is not None:
        result.mul_(sin).addcmul_(features, cos)
    if matrix is not None and every_token:
        for block in blocks:
            if block.kind == 'P':
                rows = _channels(features, block).squeeze(3).unflatten(-1, (-1, 4)).transpose(1, 2)
                product = torch.matmul(rows.flatten(2, 3), matrix.transpose(-1, -2))  # (B, N, heads * groups, 4), one for all
                placed = product.unflatten(2, rows.shape[2:4]).transpose(1, 2).flatten(-2).unsqueeze(3)
                _channels(result, block).copy_(placed)
    return result.flatten(2, 3).to(heads.dtype)


def _wide(features: Tensor, matrix: Tensor | None, blocks: Blocks, back: bool) -> Tensor:
    """(B or 1, heads or 1, N or 1, d, d), multiplied from the right: matrices of P blocks, exchange of rotary pairs."""
    dim = features.shape[-1]
    grouped = blocks[0].heads != blocks[-1].heads
    shape = (1, 1) if matrix is None else matrix.shape[:2]
    wide = features.new_zeros(shape[0], features.shape[1] if grouped else 1, shape[1], dim, dim)
    for block in blocks:
        some = slice(*block.heads) if grouped else slice(None)
        square = wide[:, some, :, slice(*block.channels), slice(*block.channels)]
        if block.kind == 'I':
            square.diagonal(dim1=-2, dim2=-1).fill_(1)
        elif block.kind == 'R':
            sizes = (-1, 2) if block.adjacent else (2, -1)
            pairs = square.unflatten(-1, sizes).unflatten(-3, sizes)
            pairs = pairs if block.adjacent else pairs.transpose(-1, -2).transpose(-3, -4)  # (..., pairs, 2, pairs, 2)
            for one in (0, 1):
                pairs[..., :, one, :, 1 - one].diagonal(dim1=-2, dim2=-1).fill_(-1 if back else 1)
        elif matrix is not None:
            groups = square.unflatten(-1, (-1, 4)).unflatten(-3, (-1, 4))  # (..., groups, 4, groups, 4)
            groups.diagonal(dim1=-4, dim2=-2).copy_(matrix.transpose(-1, -2)[:, None, ..., None])
    return wide


def _by_numbers(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks, views: int,
                back: bool) -> Tensor:
    """The same without products, for a compiler, which fuses it: no setting of products' precision touches it."""
    features = heads.unflatten(2, (views, -1))
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for block in blocks:
        part = _channels(features, block)
        if block.kind == 'R':
            assert cos is not None and sin is not None
            part = part.to(cos.dtype)
            sizes = (-1, 2) if block.adjacent else (2, -1)
            partner = part.unflatten(-1, sizes).flip(-1 if block.adjacent else -2).flatten(-2)
            part = part * _channels(cos, block) + partner * (-_channels(sin, block) if back else _channels(sin, block))
        elif block.kind == 'P':
            assert matrix is not None
            numbers = part.to(matrix.dtype).unflatten(-1, (-1, 4)).unbind(-1)
            entry = matrix[:, None, :, None, None]
            part = torch.stack([sum(entry[..., row, column] * numbers[column] for column in range(4))  # type: ignore[misc]
                                for row in range(4)], dim=-1).flatten(-2)
        groups.setdefault(block.heads, []).append(part.to(heads.dtype))
    return torch.cat([torch.cat(parts, dim=-1) for parts in groups.values()], dim=1).flatten(2, 3)


def _channels(features: Tensor, block: Block) -> Tensor:
    """(B, some heads, N, T, some channels) of (B, heads or 1, N, T, d), the same memory."""
    heads = slice(*block.heads) if features.shape[1] > 1 else slice(None)
    return features[:, heads, ..., slice(*block.channels)]


def _matrix_gradient(heads: Tensor, gradient: Tensor, matrix: Tensor, blocks: Blocks, views: int) -> Tensor:
    total = torch.zeros_like(matrix)
    for block in blocks:
        if block.kind == 'P':
            part, out = (_channels(value.unflatten(2, (views, -1)), block).to(matrix.dtype).unflatten(-1, (-1, 4))
                         for value in (heads, gradient))
            total += torch.einsum('bhntgi,bhntgj->bnij', out, part).sum_to_size(matrix.shape)
    return total
