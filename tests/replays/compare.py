"""What all replays share: a reference file in, its arrays and settings; differences in parts of a tolerance out."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np


def read_arrays(path: Path, required: Collection[str], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Every array of an npz file; nothing in it is executed.

    Raises:
        ValueError: an array is missing, or one is there that the replay would not look at.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    missing, unknown = sorted(set(required) - set(arrays)), sorted(set(arrays) - set(required) - set(optional))
    if missing or unknown:
        raise ValueError(f'arrays missing: {missing}, arrays that nothing here compares: {unknown}')
    return arrays


def refuse_unknown(arrays: Collection[str], compared: Collection[str], given: str) -> None:
    """Raises ValueError where a name is neither compared nor matches the pattern `given` of inputs."""
    unknown = sorted(name for name in arrays if name not in compared and not re.fullmatch(given, name))
    if unknown:
        raise ValueError(f'arrays that nothing here compares: {unknown}')


def read_settings(arrays: dict[str, np.ndarray], defaults: dict) -> dict:
    """`defaults`, replaced by what the file's `settings` (a JSON object in a string array) say, if it has any.

    Raises:
        ValueError: no JSON object, or a key that is not in `defaults`.
    """
    if 'settings' not in arrays:
        return dict(defaults)
    given = json.loads(str(arrays['settings']))
    if not isinstance(given, dict):
        raise ValueError(f'settings must be a JSON object, got {type(given).__name__}')
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(f'unknown settings {unknown}. Known: {sorted(defaults)}')
    return {**defaults, **given}


def difference(ours: np.ndarray, published: np.ndarray, tolerance: float = 0.0) -> float:
    """Largest absolute difference / tolerance.

    With tolerance 0 it is 0 where all are equal, else inf. Another shape, or a number that is not finite on one side only,
    is inf.
    """
    ours, published = np.asarray(ours), np.asarray(published)
    if ours.shape != published.shape:
        return float('inf')
    equal = (ours == published) | ((ours != ours) & (published != published))
    if equal.all():
        return 0.0
    if tolerance == 0:
        return float('inf')
    apart = np.abs(ours[~equal].astype(np.float64) - published[~equal].astype(np.float64)).max()
    return float(apart / tolerance) if np.isfinite(apart) else float('inf')
