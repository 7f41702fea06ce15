"""Train and eval modes. In: a model and module-name prefixes. Out: parameters without gradient, modules in eval mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def choose_voxels(voxels: dict[str, Tensor], frames: Tensor) -> dict[str, Tensor]:
    """The voxels of the frames where `frames` (V,) bool is True; the frames are counted anew."""
    keep = frames[voxels['coors'][:, 0].long()]
    chosen = {name: tensor[keep] for name, tensor in voxels.items() if len(tensor) == len(keep)}
    coors = chosen['coors'].clone()
    coors[:, 0] = (frames.long().cumsum(0) - 1)[coors[:, 0].long()].to(coors.dtype)
    return {**chosen, 'coors': coors}
