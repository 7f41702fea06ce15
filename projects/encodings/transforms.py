"""Encodings. In: heads of an attention, the matrices and angles of their tokens. Out: the heads, every block transformed.

One pass over the features, outside autocast and never in TF32. There is no tensor of queries by keys, and no matrix for each
token and head: a camera's tokens are multiplied in one product by the block-diagonal matrix of its channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from projects.geometry.precision import full_precision

from .layouts import Block

Blocks = tuple[Block, ...]


def transform(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks,
              views: int) -> Tensor:
    """(B, heads, N * T, d) -> the same, in the dtype that came in; computed in float32, or float64 where that came in.

    Args:
        heads: features of N views with T tokens each.
        matrix: (B or 1, N, 4, 4), multiplies groups of four channels of P blocks.
        cos, sin: (B or 1, N or 1, T or 1, angles) of the pairs of rotary blocks.
        blocks: what channels do.
        views: N.
    """
    dtype = torch.float64 if heads.dtype == torch.float64 else torch.float32
    matrix, cos, sin = (None if part is None else part.to(dtype) for part in (matrix, cos, sin))
    if torch.compiler.is_compiling():
        return _transformed(heads, matrix, cos, sin, blocks, views)
    return _in_full_precision(heads, matrix, cos, sin, blocks, views)


class _Transform(torch.autograd.Function):
    """Keeps matrices and angles for the backward pass, which transforms by transposes; features only where a matrix learns."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks,
                views: int) -> Tensor:
        ctx.save_for_backward(matrix, cos, sin, heads if ctx.needs_input_grad[1] else None)
        ctx.blocks, ctx.views = blocks, views
        return _transformed(heads, matrix, cos, sin, blocks, views)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrix, cos, sin, heads = ctx.saved_tensors
        of_heads = of_matrix = None
        if ctx.needs_input_grad[0]:
            turned = None if matrix is None else matrix.transpose(-1, -2)
            of_heads = _transformed(gradient, turned, cos, None if sin is None else -sin, ctx.blocks, ctx.views)
        if ctx.needs_input_grad[1]:
            of_matrix = _matrix_gradient(heads, gradient, matrix, ctx.blocks, ctx.views)
        return of_heads, of_matrix, None, None, None, None


@full_precision
def _in_full_precision(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks,
                       views: int) -> Tensor:
    return _Transform.apply(heads, matrix, cos, sin, blocks, views)


def _transformed(heads: Tensor, matrix: Tensor | None, cos: Tensor | None, sin: Tensor | None, blocks: Blocks,
                 views: int) -> Tensor:
    result = torch.empty_like(heads)
    for block in blocks:
        part, out = _channels(heads, block, views), _channels(result, block, views)
        if block.kind == 'R':
            assert cos is not None and sin is not None
            pairs = slice(block.first, block.first + len(block.axes))
            c, s = cos[:, None, ..., pairs], sin[:, None, ..., pairs]
            (first, second), (out_first, out_second) = _pairs(part, block.adjacent), _pairs(out, block.adjacent)
            first, second = first.to(c.dtype), second.to(c.dtype)
            out_first.copy_(torch.addcmul(first * c, second, s))
            out_second.copy_(torch.addcmul(second * c, first, s, value=-1))
        else:
            out.copy_(part if block.kind == 'I' else _multiplied(part, matrix))
    return result


def _channels(heads: Tensor, block: Block, views: int) -> Tensor:
    """(B, some heads, N, T, some channels) of (B, heads, N * T, d), the same memory."""
    return heads[:, slice(*block.heads), :, slice(*block.channels)].unflatten(2, (views, -1))


def _pairs(part: Tensor, adjacent: bool) -> tuple[Tensor, Tensor]:
    if adjacent:
        return part[..., 0::2], part[..., 1::2]
    half = part.shape[-1] // 2
    return part[..., :half], part[..., half:]


def _multiplied(part: Tensor, matrix: Tensor | None) -> Tensor:
    """matrix (B or 1, N, 4, 4) times each four channels of (B, heads, N, T, c)."""
    assert matrix is not None
    part = part.to(matrix.dtype)
    groups = part.shape[-1] // 4
    if torch.compiler.is_compiling():  # number by number, so that no setting of products touches it; a compiler fuses it
        numbers = part.unflatten(-1, (groups, 4)).unbind(-1)
        entry = matrix[:, None, :, None, None]
        return torch.stack([sum(entry[..., row, column] * numbers[column] for column in range(4))  # type: ignore[misc]
                            for row in range(4)], dim=-1).flatten(-2)
    turned = matrix.transpose(-1, -2)
    if part.shape[3] == 1:  # every token has a matrix of its own: heads and groups are the rows of its product
        rows = part.squeeze(3).unflatten(-1, (groups, 4)).transpose(1, 2)  # (B, N, heads, groups, 4)
        product = torch.matmul(rows.flatten(2, 3), turned)
        return product.unflatten(2, rows.shape[2:4]).transpose(1, 2).flatten(-2).unsqueeze(3)
    wide = turned.new_zeros(*turned.shape[:2], groups, 4, groups, 4)
    wide.diagonal(dim1=2, dim2=4).copy_(turned[..., None])
    return torch.matmul(part, wide.flatten(4).flatten(2, 3)[:, None])


def _matrix_gradient(heads: Tensor, gradient: Tensor, matrix: Tensor, blocks: Blocks, views: int) -> Tensor:
    total = torch.zeros_like(matrix)
    for block in blocks:
        if block.kind == 'P':
            part, out = (_channels(value, block, views).to(matrix.dtype).unflatten(-1, (-1, 4)) for value in (heads, gradient))
            total += torch.einsum('bhntgi,bhntgj->bnij', out, part).sum_to_size(matrix.shape)
    return total
