"""Common. Out and in: the states of python's, numpy's, torch's and CUDA's random generators, as plain numbers and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMPY_KIND = 'MT19937'


def random_state() -> dict[str, Any]:
    """The states of this process's generators as ints, lists and tensors, which torch's safe loader reads."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    if kind != _NUMPY_KIND:
        raise RuntimeError(f'numpy.random has a {kind} generator; only {_NUMPY_KIND} can be kept')
    state: dict[str, Any] = {
        'python': [version, list(words), gauss],
        'numpy': [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()  # of this process's device
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave, wherever the checkpoint's tensors were mapped to."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((_NUMPY_KIND, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state['torch']))
    if torch.cuda.is_available() and 'cuda' in state:
        torch.cuda.set_rng_state(_bytes(state['cuda']))


def _bytes(state: Tensor) -> Tensor:
    return state.cpu().to(torch.uint8)
