"""What distributed training asks of every stage: gradients for all parameters, normalisers that all ranks share."""

from __future__ import annotations

from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn


def mean_over_ranks(value: Tensor) -> Tensor:
    """Scalar tensor -> its mean over all ranks, without gradient; itself in one process."""
    if get_world_size() == 1:
        return value
    value = value.detach().clone()
    all_reduce(value, op='mean')
    return value


def zero_of(*modules: nn.Module | None) -> Tensor | float:
    """A scalar 0 that depends on every trainable parameter: distributed training waits for a gradient of each."""
    return sum((0.0 * p.sum() for module in modules if module is not None for p in module.parameters() if p.requires_grad), 0.0)
