"""Memory consolidation. In: elements of working memory and how much they were used. Out: prototypes, and who may stay.

The rules of XMem (Cheng and Schwing, ECCV 2022, section 3.3), as pure functions of batched tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .similarity import read_memory


class Prototypes(NamedTuple):
    """What `consolidate` makes: P prototypes for each sample, the most used first.

    Attributes:
        key: (B, CK, P).
        shrinkage: (B, 1, P).
        value: (B, K, CV, P).
        indices: (B, P) int64, which candidate each prototype stands on.
        valid: (B, P) bool. Where it is False, key, shrinkage and value are 0.
    """

    key: Tensor
    shrinkage: Tensor
    value: Tensor
    indices: Tensor
    valid: Tensor


def consolidate(
    candidate_key: Tensor,
    candidate_shrinkage: Tensor,
    candidate_selection: Tensor,
    candidate_value: Tensor,
    candidate_usage: Tensor,
    num_prototypes: int,
    candidate_valid: Tensor | None = None,
) -> Prototypes:
    """Replaces N candidates by their P most used, each with the values of all candidates that resemble it.

    A prototype keeps its candidate's key. It asks the candidates with that key and that selection, all of them (no top-k),
    as a frame would ask memory; what it reads is its value and its shrinkage. Samples do not see each other.

    Args:
        candidate_key: (B, CK, N).
        candidate_shrinkage: (B, 1, N), at least 1.
        candidate_selection: (B, CK, N), in 0..1.
        candidate_value: (B, K, CV, N), K objects that share the keys.
        candidate_usage: (B, N) finite, usage per read: the affinity received so far, divided by the reads lived through.
        num_prototypes: P. Equal usage leaves the choice to `torch.topk`.
        candidate_valid: (B, N) bool; invalid candidates neither become prototypes nor contribute, and a sample with V < P
            valid ones has V valid prototypes. None is all valid. Their entries must be finite nevertheless.

    Raises:
        ValueError: P below 1 or above N, or shapes that do not belong together.
    """
    batch, _, num_candidates = candidate_key.shape
    if not 1 <= num_prototypes <= num_candidates:
        raise ValueError(f'num_prototypes={num_prototypes} must be at least 1 and at most the {num_candidates} candidates '
                         'that are consolidated at a time: lower it, or keep more frames in working memory')
    per_element = (batch, num_candidates)
    if candidate_selection.shape != candidate_key.shape or candidate_usage.shape != per_element \
            or candidate_value.dim() != 4 or (candidate_value.shape[0], candidate_value.shape[3]) != per_element \
            or (candidate_valid is not None and candidate_valid.shape != per_element):
        raise ValueError('consolidate: shapes do not belong together: key '
                         f'{tuple(candidate_key.shape)}, selection {tuple(candidate_selection.shape)}, value '
                         f'{tuple(candidate_value.shape)}, usage {tuple(candidate_usage.shape)}, valid '
                         f'{None if candidate_valid is None else tuple(candidate_valid.shape)}')
    if candidate_valid is None:
        indices = candidate_usage.topk(num_prototypes, dim=1).indices
        valid = torch.ones_like(indices, dtype=torch.bool)
    else:
        indices = candidate_usage.masked_fill(~candidate_valid, -torch.inf).topk(num_prototypes, dim=1).indices
        valid = candidate_valid.gather(1, indices)

    at = indices[:, None].expand(-1, candidate_key.shape[1], -1)
    key, selection = candidate_key.gather(2, at), candidate_selection.gather(2, at)
    contents = torch.cat([candidate_value.flatten(1, 2), candidate_shrinkage], dim=1)  # B, K CV + 1, N
    merged = read_memory(key, selection, candidate_key, candidate_shrinkage, contents, memory_valid=candidate_valid)
    assert isinstance(merged, Tensor)
    nothing = ~valid[:, None]
    key, merged = key.masked_fill(nothing, 0.0), merged.masked_fill(nothing, 0.0)
    value = merged[:, :-1].unflatten(1, candidate_value.shape[1:3])
    return Prototypes(key, merged[:, -1:], value, indices, valid)


def survivors(usage: Tensor, max_elements: int) -> Tensor:
    """Which elements stay when memory must shrink to at most `max_elements`.

    The surplus of least used elements goes, and with it every element used exactly as little as the last of them, so fewer
    than `max_elements` may stay. Nothing goes where nothing is surplus.

    Args:
        usage: (B, N), usage per read.
        max_elements: at least 0.

    Returns:
        (B, N) bool.
    """
    surplus = usage.shape[1] - max_elements
    if surplus <= 0:
        return torch.ones_like(usage, dtype=torch.bool)
    threshold = usage.topk(surplus, dim=1, largest=False).values.amax(dim=1, keepdim=True)
    return usage > threshold
