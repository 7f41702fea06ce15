"""Naming stage: a seed and names in, deterministic tokens and independent random streams out (no frame)."""

from __future__ import annotations

import hashlib

import numpy as np


def token(seed: int, *names: object) -> str:
    """32 hex digits that depend on the seed and the names only, as nuScenes' tokens look."""
    return hashlib.md5('/'.join(['memfusion', str(seed), *map(str, names)]).encode()).hexdigest()


def random_stream(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for each (seed, names), so that no order of work can change a draw."""
    digest = hashlib.sha256('/'.join([str(seed), *map(str, names)]).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], 'little')))
