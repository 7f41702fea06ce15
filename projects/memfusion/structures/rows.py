"""Contract, no network: rows of a batch. In: tensors, positions that the host knows. Out: the tensors' rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take_rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows at these positions, which the host knows, of (B, ...); the tensor itself where that is all in order."""
    if list(rows) == list(range(tensor.shape[0])):
        return tensor
    return tensor.index_select(0, torch.tensor(list(rows), dtype=torch.long).to(tensor.device, non_blocking=True))
