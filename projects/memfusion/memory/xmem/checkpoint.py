"""Official XMem checkpoints. In: a file with a state dict. Out: the network, filled with it completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from projects.common.safe_pickle import TRUST_FLAG, files_are_trusted

SHOWN = 4
"""Names of each kind that an error lists."""


def load_checkpoint(network: nn.Module, path: str) -> None:
    """Loads an official checkpoint such as `XMem.pth` strictly: every name and shape must agree.

    Args:
        network: usually `XMem()`; it stays as it was when the file does not fit.
        path: a file with a bare state dict, as published.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is no state dict, or that of another network; the message lists names that differ.
    """
    try:
        weights = torch.load(path, map_location='cpu', weights_only=not files_are_trusted())
    except OSError:
        raise
    except Exception as error:  # torch and pickle raise many kinds here, and none of them names the file
        raise ValueError(f'{path} cannot be read as a checkpoint of weights only: give an official XMem checkpoint, or '
                         f'{TRUST_FLAG} if you trust whoever made it ({error})') from error
    if not isinstance(weights, dict):
        raise ValueError(f'{path} holds a {type(weights).__name__}, not a state dict: give an official XMem checkpoint')
    own = network.state_dict()
    other_shapes = [f'{name} {_shape(weights[name])} instead of {tuple(value.shape)}'
                    for name, value in own.items() if name in weights and _shape(weights[name]) != tuple(value.shape)]
    differences = [
        *_listed('missing', [name for name in own if name not in weights]),
        *_listed('unexpected', [name for name in weights if name not in own]),
        *_listed('of another shape', other_shapes),
    ]
    if differences:
        hint = ''
        if _shape(weights.get('value_encoder.conv1.weight'))[1:2] == (4,):
            hint = ' It is a single-object XMem, which has no channel for the other objects.'
        raise ValueError(f'{path} is a checkpoint of another network than {type(network).__name__}: '
                         f'{"; ".join(differences)}.{hint} Give the official multi-object checkpoint (XMem.pth)')
    network.load_state_dict(weights, strict=True)


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    """One clause of the message, or none."""
    names = [str(name) for name in names]
    more = ', ...' if len(names) > SHOWN else ''
    return [f'{len(names)} {kind}: {", ".join(names[:SHOWN])}{more}'] if names else []
