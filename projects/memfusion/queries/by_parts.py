"""Queries. In: a function of views. Out: its result, computed for some views at a time, so that little is in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CELLS_AT_ONCE = 1024


def by_parts(function: Callable[..., Tensor], cells: int, *views: Tensor) -> Tensor:
    """`function(*views)`, some rows at a time; where a gradient is wanted, the inside is computed again in the backward pass.

    Args:
        function: of (V, ...) tensors, each row by itself -> (V, ...).
        cells: of a row; about CELLS_AT_ONCE of them are worked on together, at least a row.
        views: (V, ...) each.
    """
    rows = max(CELLS_AT_ONCE // max(cells, 1), 1)
    parts = zip(*(view.split(rows) for view in views))
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
    whole: Tensor | None = None
    for index, part in enumerate(parts):
        made = function(*part)
        if whole is None:
            whole = made.new_empty(len(views[0]), *made.shape[1:])
        whole[index * rows:index * rows + len(made)] = made
    assert whole is not None
    return whole
