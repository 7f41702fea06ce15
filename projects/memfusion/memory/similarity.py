"""Memory read. In: query and memory keys, values. Out: what each query cell remembers. Full float32, never autocast or TF32.

Anisotropic L2 similarity of XMem (Cheng and Schwing, ECCV 2022, eq. 5):
`s[n, m] = shrinkage[n] / sqrt(CK) * ( -sum_c selection[c, m] (memory_key[c, n] - query_key[c, m])^2 )`, softmax on n.
The square expands into one dot product of length 2 CK + 1, so the read is plain scaled-dot-product attention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import full_precision

QUERY_CHUNK = 128
"""Queries handled at once: keeps the affinity at chunk x N instead of M x N, and small enough to be reused from cache."""

FAINTEST = 1e-13
"""Weights below this do not answer: they vanish in float32 beside the others, which sum to 1, and arithmetic on the denormal
numbers further down is many times slower on a CPU."""


def expand_query(query_key: Tensor, query_selection: Tensor) -> Tensor:
    """(B, CK, M), (B, CK, M) -> (B, M, 2 CK + 1), the query side of the dot product."""
    weighted = query_selection * query_key
    return torch.cat([query_selection, weighted, (weighted * query_key).sum(1, keepdim=True)], dim=1).transpose(1, 2)


def expand_memory(memory_key: Tensor, memory_shrinkage: Tensor) -> Tensor:
    """(B, CK, N), (B, 1, N) -> (B, N, 2 CK + 1), the memory side of the dot product."""
    scaled = memory_shrinkage * memory_key
    return torch.cat([-scaled * memory_key, 2 * scaled, -memory_shrinkage], dim=1).transpose(1, 2)


def _expand(query_key: Tensor, query_selection: Tensor, memory_key: Tensor, memory_shrinkage: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides of the dot product in float32, scaled. Distances do not change when all keys move alike, and the expanded
    square loses less to rounding around the queries. Memory's own mean would not do: invalid elements, which may lie
    anywhere, would take part, so that a sample's answer depended on how full the others of its batch are."""
    center = query_key.detach().float().mean(dim=2, keepdim=True)
    query = expand_query(query_key.float() - center, query_selection.float()) / math.sqrt(memory_key.shape[1])
    return query, expand_memory(memory_key.float() - center, memory_shrinkage.float())


def similarity_to_affinity(similarity: Tensor, top_k: int | None) -> Tensor:
    """Softmax of (B, M, N) over n; with `top_k` only the k largest of each row keep weight."""
    if top_k is None or top_k >= similarity.shape[-1]:
        return similarity.softmax(dim=-1)
    values, indices = similarity.topk(top_k, dim=-1)
    return torch.zeros_like(similarity).scatter(-1, indices, values.softmax(dim=-1))


@full_precision
def read_memory(
    query_key: Tensor,
    query_selection: Tensor,
    memory_key: Tensor,
    memory_shrinkage: Tensor,
    memory_value: Tensor,
    top_k: int | None = None,
    memory_valid: Tensor | None = None,
    return_usage: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Reads memory by content.

    Args:
        query_key: (B, CK, M).
        query_selection: (B, CK, M), in 0..1: which key channels matter to the query.
        memory_key: (B, CK, N).
        memory_shrinkage: (B, 1, N), at least 1: how sharply an element answers.
        memory_value: (B, CV, N).
        top_k: how many elements may answer each query; None is all.
        memory_valid: (B, N) bool; invalid elements never answer. None is all valid.
        return_usage: also return how much each element was used.

    Returns:
        (B, CV, M) readout, exactly 0 for samples in which nothing is valid; with `return_usage` also (B, N) usage, the
        affinity summed over queries.

    Raises:
        ValueError: top_k below 1, or shapes that do not belong together.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f'top_k must be at least 1 or None, got {top_k}')
    batch, key_dim, num_elements = memory_key.shape
    fits = query_key.shape == query_selection.shape and query_key.shape[:2] == (batch, key_dim) \
        and memory_shrinkage.shape == (batch, 1, num_elements) and memory_value.shape[::2] == (batch, num_elements) \
        and (memory_valid is None or (memory_valid.shape == (batch, num_elements) and memory_valid.dtype == torch.bool))
    if not fits:
        raise ValueError('read_memory: shapes do not belong together: query_key '
                         f'{tuple(query_key.shape)}, query_selection {tuple(query_selection.shape)}, memory_key '
                         f'{tuple(memory_key.shape)}, memory_shrinkage {tuple(memory_shrinkage.shape)}, memory_value '
                         f'{tuple(memory_value.shape)}, memory_valid '
                         f'{None if memory_valid is None else (memory_valid.dtype, tuple(memory_valid.shape))} (bool)')
    if num_elements == 0:
        empty = memory_value.new_zeros(batch, memory_value.shape[1], query_key.shape[2])
        return (empty, memory_value.new_zeros(batch, 0)) if return_usage else empty
    order = None if memory_valid is None else _answering(memory_valid)
    if memory_valid is not None and order is not None:
        memory_key, memory_shrinkage, memory_value = (
            part.gather(2, order[:, None].expand(-1, part.shape[1], -1))
            for part in (memory_key, memory_shrinkage, memory_value))
        memory_valid = memory_valid.gather(1, order)
    if memory_valid is not None and not bool(memory_valid.all()):  # what is not valid may hold anything, NaN included
        silent = ~memory_valid[:, None]
        memory_key, memory_value = memory_key.masked_fill(silent, 0), memory_value.masked_fill(silent, 0)
        memory_shrinkage = memory_shrinkage.masked_fill(silent, 0)
    query, memory = _expand(query_key, query_selection, memory_key, memory_shrinkage)
    value = memory_value.float().transpose(1, 2).contiguous()
    bias, something = _validity(memory_valid, query)
    if query.is_cuda and top_k is None and not return_usage and not torch.are_deterministic_algorithms_enabled():
        readout = _fused_read(query, memory, value, bias)
        return torch.where(something, readout, readout.new_zeros(())).transpose(1, 2)
    readout, usage = _chunked_read(query, memory, value, bias, top_k, return_usage)
    readout = torch.where(something, readout, readout.new_zeros(())).transpose(1, 2)
    if not return_usage:
        return readout
    usage = torch.where(something[..., 0], usage, usage.new_zeros(()))
    return readout, usage if order is None else usage.new_zeros(batch, num_elements).scatter(1, order, usage)


@full_precision
def affinity_of(
    query_key: Tensor, query_selection: Tensor, memory_key: Tensor, memory_shrinkage: Tensor, top_k: int | None = None,
    memory_valid: Tensor | None = None,
) -> Tensor:
    """The weights (B, M, N) with which `read_memory` reads, for looking at; 0 where nothing is valid."""
    query, memory = _expand(query_key, query_selection, memory_key, memory_shrinkage)
    similarity = query @ memory.transpose(1, 2)
    bias, something = _validity(memory_valid, query)
    affinity = similarity_to_affinity(similarity if bias is None else similarity + bias, top_k)
    return affinity * something


def _answering(memory_valid: Tensor) -> Tensor | None:
    """(B, N) bool -> (B, N') positions of what may answer, first the valid ones; None where that saves less than a tenth.

    N' is the largest number of valid elements of any sample: what is left out answers nobody, and costs as much as the rest.
    """
    count = max(1, int(memory_valid.sum(dim=1).max()))
    if count > 0.9 * memory_valid.shape[1]:
        return None
    return memory_valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]


def _validity(memory_valid: Tensor | None, query: Tensor) -> tuple[Tensor | None, Tensor]:
    """Additive bias (B, 1, N) or None, and (B, 1, 1) bool: whether the sample has anything valid at all."""
    if memory_valid is None:
        return None, torch.ones(query.shape[0], 1, 1, dtype=torch.bool, device=query.device)
    something = memory_valid.any(dim=1)[:, None, None]
    # A softmax over nothing is NaN: samples without valid elements read everything here and are zeroed by the caller.
    closed = ~memory_valid[:, None] & something
    return torch.zeros_like(closed, dtype=query.dtype).masked_fill(closed, -torch.inf), something


def _chunked_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None, top_k: int | None,
                  count_usage: bool) -> tuple[Tensor, Tensor]:
    """(B, M, D), (B, N, D), (B, N, CV) -> (B, M, CV) readout and (B, N) usage, 0 where it is not counted."""
    usage = value.new_zeros(memory.shape[:2])
    wants_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (query, memory, value))
    if top_k is None and not wants_gradient:
        return _buffered_read(query, memory, value, bias, usage, count_usage)
    parts = []
    for part in query.split(QUERY_CHUNK, dim=1):
        similarity = part @ memory.transpose(1, 2)
        if bias is not None:
            similarity = similarity + bias
        best = similarity.detach().amax(dim=-1, keepdim=True)
        affinity = similarity_to_affinity(similarity.masked_fill(similarity < best + math.log(FAINTEST), -torch.inf), top_k)
        parts.append(affinity @ value)
        if count_usage:
            usage = usage + affinity.detach().sum(dim=1)
    return torch.cat(parts, dim=1), usage


def _buffered_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None, usage: Tensor,
                   count_usage: bool) -> tuple[Tensor, Tensor]:
    """The same where no gradient is wanted: one buffer takes the similarities of every chunk and then their weights."""
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


def _fused_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """The same by the memory-efficient kernel; the dot product is padded to a multiple of 8 channels, as it needs."""
    pad = -query.shape[-1] % 8
    query, memory = F.pad(query, (0, pad)), F.pad(memory, (0, pad))
    mask = None if bias is None else bias.expand(-1, query.shape[1], -1)[:, None]
    heads = (query[:, None], memory[:, None], value[:, None])
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=1.0)[:, 0]
