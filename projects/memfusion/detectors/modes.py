"""Train and eval modes. In: a model and module-name prefixes. Out: parameters without gradient, modules in eval mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Runs its body with the module in eval mode, then puts every part back as it was."""
    was = [(part, part.training) for part in module.modules()]
    for part, _ in was:
        part.training = False
    try:
        yield
    finally:
        for part, training in was:
            part.training = training


def _under(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + '.') for prefix in prefixes)


def freeze(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Takes the gradient from all parameters under these module names.

    Before the model is wrapped for distributed training, which expects a gradient of every parameter that wants one.

    Raises:
        ValueError: where a prefix names no module of the model.
    """
    names = [name for name, _ in model.named_modules()]
    unknown = [prefix for prefix in prefixes if prefix not in names]
    if unknown:
        parts = sorted(name for name in names if name and '.' not in name)
        raise ValueError(f'model.train_cfg.frozen names modules that the model does not have: {unknown}; it has {parts}')
    for name, parameter in model.named_parameters():
        if _under(name, prefixes):
            parameter.requires_grad_(False)


def keep_frozen_in_eval(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Puts the modules under these names into eval mode, so that BatchNorm keeps its statistics too."""
    for name, module in model.named_modules():
        if _under(name, prefixes):
            module.training = False


def choose_voxels(voxels: dict[str, Tensor], chosen: Sequence[int], num_frames: int) -> dict[str, Tensor]:
    """The voxels of the frames at `chosen`, in rising order, of `num_frames`; the frames are counted anew."""
    number = torch.full((num_frames,), -1)
    number[list(chosen)] = torch.arange(len(chosen))
    renumbered = number.to(voxels['coors'].device, non_blocking=True)[voxels['coors'][:, 0].long()]
    kept = (renumbered >= 0).nonzero()[:, 0]
    count = len(renumbered)
    picked = {name: tensor[kept] for name, tensor in voxels.items() if len(tensor) == count}
    coors = torch.cat([renumbered[kept][:, None].to(picked['coors'].dtype), picked['coors'][:, 1:]], dim=1)
    return {**picked, 'coors': coors}
