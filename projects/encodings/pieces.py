"""Encodings. In: a function of rows, tensors of many rows. Out: what it makes of all, piece by piece, with little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_pieces(make: Callable[..., Tensor], parts: Sequence[Tensor], dim: int, size: int) -> Tensor:
    """make(*parts), whose rows along `dim` depend on the same rows of the parts, with few of its insides there at a time.

    Args:
        make: has no random numbers and no state; what it keeps for its backward pass is computed again there.
        parts: tensors of equally many rows along `dim`.
        dim: of the parts and of the result, not negative.
        size: rows at a time.
    """
    count, learns = parts[0].shape[dim], torch.is_grad_enabled()
    if learns:
        pieces = [checkpoint(make, *some, use_reentrant=False, preserve_rng_state=False)
                  for some in zip(*(part.split(size, dim) for part in parts))]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    result = None
    for start in range(0, max(count, 1), size):
        piece = make(*(part.narrow(dim, start, min(size, count - start)) for part in parts))
        if piece.shape[dim] == count:
            return piece
        if result is None:
            result = piece.new_empty(*piece.shape[:dim], count, *piece.shape[dim + 1:])
        result.narrow(dim, start, piece.shape[dim]).copy_(piece)
    assert result is not None
    return result
