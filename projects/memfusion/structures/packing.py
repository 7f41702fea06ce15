"""Contract, no network: many small tensors as one. In: tensors. Out: one buffer of bytes, and the tensors as views of it.

Each tensor that crosses from a loading process costs a file descriptor, each that goes to a GPU a copy of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Layout = tuple[tuple[torch.dtype, tuple[int, ...], int], ...]
"""Of each tensor: dtype, shape, first byte."""
_ALIGNMENT = 16  # a tensor of 8-byte numbers cannot begin at any byte


def pack(tensors: Sequence[Tensor]) -> tuple[Tensor, Layout]:
    """One uint8 buffer on the tensors' device, and where in it each lies; gradients do not pass.

    Raises:
        ValueError: for a tensor with a gradient, which would be lost.
    """
    if any(tensor.requires_grad for tensor in tensors):
        raise ValueError('a tensor that requires a gradient cannot be packed: detach it first')
    layout, size = [], 0
    for tensor in tensors:
        layout.append((tensor.dtype, tuple(tensor.shape), size))
        size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    buffer = torch.zeros(size, dtype=torch.uint8, device=tensors[0].device)
    for tensor, (_, _, start) in zip(tensors, layout):
        buffer[start:start + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8)
    return buffer, tuple(layout)


def unpack(buffer: Tensor, layout: Layout) -> list[Tensor]:
    """The tensors that were packed, as views of the buffer."""
    return [buffer[start:start + dtype.itemsize * torch.Size(shape).numel()].view(dtype).view(shape)
            for dtype, shape, start in layout]
