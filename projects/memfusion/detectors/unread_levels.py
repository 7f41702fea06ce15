"""Detector. In: the image branch, and which of its levels are read. Out: the parameters that only the others depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .modes import evaluating

_PROBE_PX = 64


def parameters_beside(img_backbone: nn.Module, img_neck: nn.Module | None, read: Collection[int]) -> tuple[str, ...]:
    """Names, as the detector has them, of the parameters that no level of `read` depends on.

    Told from the graph of a small image, in eval mode and without checkpoints, which would hide what is under them.
    """
    branch = nn.ModuleDict({name: part for name, part in (('img_backbone', img_backbone), ('img_neck', img_neck)) if part})
    some = next(img_backbone.parameters())
    with evaluating(branch), _without_checkpoints(branch), torch.enable_grad():
        levels = img_backbone(some.new_zeros(1, 3, _PROBE_PX, _PROBE_PX))
        levels = levels if img_neck is None else img_neck(levels)
    leaves = _leaves([levels[level] for level in read])
    return tuple(name for name, parameter in branch.named_parameters() if parameter not in leaves)


@contextmanager
def _without_checkpoints(branch: nn.Module) -> Iterator[None]:
    parts: list[Any] = [part for part in branch.modules() if getattr(part, 'with_cp', False)]
    for part in parts:
        part.with_cp = False
    try:
        yield
    finally:
        for part in parts:
            part.with_cp = True


def _leaves(tensors: list[Tensor]) -> set[Tensor]:
    """The parameters that the tensors were computed from, of those that have a gradient."""
    todo: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen, found = set(todo), set()
    while todo:
        node = todo.pop()
        if hasattr(node, 'variable'):
            found.add(node.variable)
        parents = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= parents
        todo += parents
    return found
