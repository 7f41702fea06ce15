"""What distributed training asks of every stage: gradients for all parameters, normalisers that all ranks share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn


def mean_over_ranks(value: Tensor) -> Tensor:
    """Its mean over all ranks, element by element and without gradient; itself in one process.

    Each call is a collective: stack all normalisers of a loss, and call it once.
    """
    if get_world_size() == 1:
        return value
    value = value.detach().clone()
    all_reduce(value, op='mean')
    return value


def zero_of(*modules: nn.Module | None) -> Tensor | float:
    """A scalar 0 that depends on every trainable parameter: distributed training waits for a gradient of each."""
    return zero_from(p for module in modules if module is not None for p in module.parameters())


def zero_from(tensors: Iterable[Tensor]) -> Tensor | float:
    """A scalar 0 that depends on the tensors, whatever they hold: 0 times an infinite number would be NaN."""
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    return _Zero.apply(*wanted) if wanted else 0.0


def tied_to(tensor: Tensor, others: Iterable[Tensor]) -> Tensor:
    """The tensor itself, not copied; its backward pass also reaches the others, with a gradient of 0."""
    wanted = [other for other in others if other.requires_grad]
    return _Tie.apply(tensor, *wanted) if wanted else tensor


class _Tie(torch.autograd.Function):
    """A tensor and others -> the tensor; the gradient of the others is 0."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *others: Tensor) -> Tensor:
        ctx.like = [(other.shape, other.dtype, other.device) for other in others]
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        own = gradient if ctx.needs_input_grad[0] else None
        return (own, *(torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like))


class _Zero(torch.autograd.Function):
    """Tensors -> 0, a number; the gradient of each is 0."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.like = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        del gradient  # it may be infinite: a loss scale that is too large
        return tuple(torch.zeros((), dtype=dtype, device=device).expand(shape) for shape, dtype, device in ctx.like)
