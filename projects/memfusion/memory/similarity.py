"""Memory read. In: query and memory keys, values. Out: what each query cell remembers. Full float32, never autocast or TF32.

Anisotropic L2 similarity of XMem (Cheng and Schwing, ECCV 2022, eq. 5):
`s[n, m] = shrinkage[n] / sqrt(CK) * ( -sum_c selection[c, m] (memory_key[c, n] - query_key[c, m])^2 )`, softmax on n.
The square expands into one dot product of length 2 CK + 1, so the read is plain scaled-dot-product attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import full_precision
from projects.geometry.exporting import is_exporting

from .chunked_read import chunked_read, similarity_to_affinity


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
    num_valid: Sequence[int] | None = None,
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
        num_valid: B counts of valid elements, where the host knows them: empty elements then cost nothing. A CPU counts them
            itself; a GPU, which would have to wait for the counts, reads everything without them.

    Returns:
        (B, CV, M) readout, exactly 0 for samples in which nothing is valid; with `return_usage` also (B, N) usage, the
        affinity summed over queries. The usage has no gradient.

    Raises:
        ValueError: top_k below 1, or shapes that do not belong together.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f'top_k must be at least 1 or None, got {top_k}')
    _check_shapes(query_key, query_selection, memory_key, memory_shrinkage, memory_value, memory_valid)
    batch, _, num_elements = memory_key.shape
    if num_elements == 0:
        empty = memory_value.new_zeros(batch, memory_value.shape[1], query_key.shape[2])
        return (empty, memory_value.new_zeros(batch, 0)) if return_usage else empty
    order, memory_valid = _answering(memory_valid, num_valid)
    memory_key, memory_shrinkage, memory_value = (
        _only_answering(part, order, memory_valid) for part in (memory_key, memory_shrinkage, memory_value))
    query, memory = _expand(query_key, query_selection, memory_key, memory_shrinkage)
    value = memory_value.float().transpose(1, 2).contiguous()
    bias, something = _validity(memory_valid, query)
    at_once = is_exporting() or (query.is_cuda and not torch.are_deterministic_algorithms_enabled())
    if at_once and top_k is None and not return_usage:
        return torch.where(something, _fused_read(query, memory, value, bias), 0).transpose(1, 2)
    readout, usage = chunked_read(query, memory, value, bias, top_k, return_usage)
    readout = torch.where(something, readout, 0).transpose(1, 2)
    if not return_usage:
        return readout
    usage = torch.where(something[..., 0], usage, 0)
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


def _check_shapes(query_key: Tensor, query_selection: Tensor, memory_key: Tensor, memory_shrinkage: Tensor,
                  memory_value: Tensor, memory_valid: Tensor | None) -> None:
    """Raises ValueError where the arguments of read_memory do not belong together."""
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


def _answering(memory_valid: Tensor | None, num_valid: Sequence[int] | None) -> tuple[Tensor | None, Tensor | None]:
    """(B, N) bool -> (B, N') positions of what may answer, first the valid ones, and which of these are valid.

    N' is the largest number of valid elements of any sample: what is left out answers nobody, and costs as much as the rest.
    The positions are None where that saves less than a tenth, or where the counts are not known, as in an exported graph; what
    is valid is None where all is.
    """
    if memory_valid is None or is_exporting() or (num_valid is None and memory_valid.is_cuda):
        return None, memory_valid
    counts = memory_valid.sum(dim=1).tolist() if num_valid is None else num_valid
    most = max(1, *counts)
    if most > 0.9 * memory_valid.shape[1]:
        return None, None if min(counts) == memory_valid.shape[1] else memory_valid
    order = memory_valid.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return order, None if min(counts) == most else memory_valid.gather(1, order)


def _only_answering(part: Tensor, order: Tensor | None, valid: Tensor | None) -> Tensor:
    """(B, C, N) -> (B, C, N'), 0 where an element is not valid: there it may hold anything, NaN included."""
    if order is not None:
        part = part.gather(2, order[:, None].expand(-1, part.shape[1], -1))
    return part if valid is None else part.masked_fill(~valid[:, None], 0)


def _validity(memory_valid: Tensor | None, query: Tensor) -> tuple[Tensor | None, Tensor]:
    """Additive bias (B, 1, N) or None, and (B, 1, 1) bool: whether the sample has anything valid at all."""
    if memory_valid is None:
        return None, torch.ones(query.shape[0], 1, 1, dtype=torch.bool, device=query.device)
    something = memory_valid.any(dim=1)[:, None, None]
    # A softmax over nothing is NaN: samples without valid elements read everything here and are zeroed by the caller.
    closed = ~memory_valid[:, None] & something
    return torch.zeros_like(closed, dtype=query.dtype).masked_fill(closed, -torch.inf), something


def _fused_read(query: Tensor, memory: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """The same by the memory-efficient kernel; the dot product is padded to a multiple of 8 channels, as it needs."""
    pad = -query.shape[-1] % 8
    query, memory = F.pad(query, (0, pad)), F.pad(memory, (0, pad))
    mask = None if bias is None else bias.expand(-1, query.shape[1], -1)[:, None]
    heads = (query[:, None], memory[:, None], value[:, None])
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=1.0)[:, 0]
