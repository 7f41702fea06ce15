"""Encodings. In: a number of depths and their range. Out: the depths of frustum points, metres."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ('lid', 'linear')


def make_depths(kind: str, num: int, start_m: float, end_m: float) -> Tensor:
    """(D,) float64, rising from start_m and below end_m.

    Args:
        kind: 'lid', whose steps grow linearly (CaDDN, Reading et al., CVPR 2021), or 'linear', equal steps.
        num: D.
        start_m, end_m: where the first lies, and where the one after the last would.

    Raises:
        ValueError: for another kind, no depth at all, or an empty range.
    """
    if kind not in KINDS:
        raise ValueError(f'depths.kind must be one of {", ".join(KINDS)}, got {kind!r}')
    if num < 1 or not 0 <= start_m < end_m:
        raise ValueError(f'depths: {num} depths from {start_m} to {end_m} m are none: num must be at least 1, and 0 <= start_m '
                         '< end_m')
    step = torch.arange(num, dtype=torch.float64)
    share = step * (step + 1) / (num * (num + 1)) if kind == 'lid' else step / num
    return start_m + (end_m - start_m) * share
