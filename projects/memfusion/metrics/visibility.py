"""Metric. In: how sure predictions are that they are seen now, which truth they found. Out: whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .box_tables import Bools, Floats

BINS = 10


def visibility(seen: Floats, holds_point: Bools) -> dict[str, float]:
    """Calibration of `seen_3d` over predictions that found a truth box.

    Args:
        seen: (m,) in 0..1.
        holds_point: (m,) whether the truth box that was found holds a LiDAR point.

    Returns:
        `seen_ece` (expected calibration error over ten bins of equal width: mean over predictions of the distance between what
        a bin says and what is so; Guo et al., ICML 2017), `seen_brier` (mean square error), `seen_accuracy` at 0.5,
        `num_seen_rated`, and for every bin that holds any `num_seen_bin{i}`, `seen_said_bin{i}` and `seen_true_bin{i}`.
    """
    values: dict[str, float] = dict(num_seen_rated=len(seen))
    if not len(seen):
        return values
    bins = np.minimum((seen * BINS).astype(np.int64), BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        said, true = float(seen[inside].mean()), float(holds_point[inside].mean())
        error += inside.mean() * abs(said - true)
        values |= {f'num_seen_bin{index}': int(inside.sum()), f'seen_said_bin{index}': said, f'seen_true_bin{index}': true}
    return values | dict(seen_ece=float(error), seen_brier=float(np.square(seen - holds_point).mean()),
                         seen_accuracy=float(((seen >= 0.5) == holds_point).mean()))


def visibility_lines(values: Mapping[str, float]) -> list[str]:
    """The reliability table; none where nothing was rated."""
    if not values.get('num_seen_rated'):
        return []
    lines = [f'{"seen now":<18}{"boxes":>8}{"said":>8}{"so":>8}']
    for index in range(BINS):
        if f'num_seen_bin{index}' in values:
            said, true = values[f'seen_said_bin{index}'], values[f'seen_true_bin{index}']
            span, boxes = f'{index / BINS:.1f} to {(index + 1) / BINS:.1f}', values[f'num_seen_bin{index}']
            lines.append(f'{span:<18}{boxes:>8.0f}{said:>8.3f}{true:>8.3f}')
    return [*lines, f'calibration error: {values["seen_ece"]:.4f}  Brier: {values["seen_brier"]:.4f}  right at 0.5: '
            f'{values["seen_accuracy"]:.4f}']
