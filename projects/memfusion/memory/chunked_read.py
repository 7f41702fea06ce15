"""Memory read by chunks. In: both sides of the dot product, values. Out: readout and usage, never all weights at once."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERY_CHUNK = 128
"""Queries handled at once: keeps the affinity at chunk x N instead of M x N, and small enough to be reused from cache."""

FAINTEST = 1e-13
"""Weights below this do not answer: they vanish in float32 beside the others, which sum to 1, and arithmetic on the denormal
numbers further down is many times slower on a CPU."""


def similarity_to_affinity(similarity: Tensor, top_k: int | None) -> Tensor:
    """Softmax of (B, M, N) over n; with `top_k` only the k largest of each row keep weight."""
    if top_k is None or top_k >= similarity.shape[-1]:
        return similarity.softmax(dim=-1)
    values, indices = similarity.topk(top_k, dim=-1)
    return torch.zeros_like(similarity).scatter(-1, indices, values.softmax(dim=-1))


def chunked_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None, top_k: int | None,
                 count_usage: bool) -> tuple[Tensor, Tensor]:
    """(B, M, D), (B, N, D), (B, N, CV), bias (B, 1, N) or None -> (B, M, CV) readout and (B, N) usage, 0 where not counted.

    The bias and the usage have no gradient.
    """
    wants_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (query, memory, value))
    if top_k is None and not wants_gradient:
        return _buffered_read(query, memory, value, bias, count_usage)
    return _RecomputedRead.apply(query, memory, value, bias, top_k, count_usage)


def _affinity(query: Tensor, memory: Tensor, bias: Tensor | None, top_k: int | None) -> Tensor:
    """Weights (B, chunk, N) of one chunk of queries."""
    similarity = query @ memory.transpose(1, 2)
    if bias is not None:
        similarity += bias
    best = similarity.amax(dim=-1, keepdim=True)
    F.threshold(similarity.sub_(best), math.log(FAINTEST), -torch.inf, inplace=True)
    return similarity_to_affinity(similarity, top_k)


class _RecomputedRead(torch.autograd.Function):
    """A read whose backward pass computes the weights again, chunk by chunk: nothing of size M x N is kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None, top_k: int | None,
                count_usage: bool) -> tuple[Tensor, Tensor]:
        usage, parts = value.new_zeros(memory.shape[:2]), []
        for chunk in query.split(QUERY_CHUNK, dim=1):
            affinity = _affinity(chunk, memory, bias, top_k)
            parts.append(affinity @ value)
            if count_usage:
                usage = usage + affinity.sum(dim=1)
        ctx.save_for_backward(query, memory, value, bias)
        ctx.top_k = top_k
        ctx.mark_non_differentiable(usage)
        return torch.cat(parts, dim=1), usage

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_readout: Tensor, of_usage: Tensor) -> tuple[Tensor | None, ...]:
        del of_usage
        query, memory, value, bias = ctx.saved_tensors
        of_memory, of_value, of_query = torch.zeros_like(memory), torch.zeros_like(value), []
        with torch.autocast(query.device.type, enabled=False):
            for chunk, of_chunk in zip(query.split(QUERY_CHUNK, dim=1), of_readout.split(QUERY_CHUNK, dim=1)):
                affinity = _affinity(chunk, memory, bias, ctx.top_k)
                of_value.baddbmm_(affinity.transpose(1, 2), of_chunk)
                of_similarity = torch.bmm(of_chunk, value.transpose(1, 2))
                # The gradient of a softmax, less what all weights have in common. Of the very products, not of the readout:
                # where one element answers alone it must be 0 exactly, since long keys multiply whatever rounding leaves.
                shared = (of_similarity * affinity).sum(dim=-1, keepdim=True)
                of_similarity.sub_(shared).mul_(affinity)
                of_memory.baddbmm_(of_similarity.transpose(1, 2), chunk)
                of_query.append(of_similarity @ memory)
        return torch.cat(of_query, dim=1), of_memory, of_value, None, None, None


def _buffered_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None,
                   count_usage: bool) -> tuple[Tensor, Tensor]:
    """The same where no gradient is wanted: one buffer takes the similarities of every chunk and then their weights."""
    usage = value.new_zeros(memory.shape[:2])
    readout = value.new_empty(*query.shape[:2], value.shape[2])
    buffer = value.new_empty(query.shape[0], min(QUERY_CHUNK, query.shape[1]), memory.shape[1])
    for part, answer in zip(query.split(QUERY_CHUNK, dim=1), readout.split(QUERY_CHUNK, dim=1)):
        affinity = torch.bmm(part, memory.transpose(1, 2), out=buffer[:, :part.shape[1]])
        if bias is not None:
            affinity += bias
        torch.softmax(affinity, -1, out=affinity)
        F.threshold(affinity, FAINTEST, 0.0, inplace=True)
        torch.bmm(affinity, value, out=answer)
        if count_usage:
            usage += affinity.sum(dim=1)
    return readout, usage
