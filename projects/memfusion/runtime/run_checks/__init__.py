"""Checks of a run. In: its config, before anything is built. Out: nothing, warnings, or one line that names key and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .classes import check_checkpoint, check_classes
from .clips import check_clips
from .evaluation import check_evaluators
from .processes import check_optimizer
from .ranges import check_ranges
from .sensors import check_points
from .values import check_values

__all__ = ['check_checkpoint', 'check_optimizer', 'check_run', 'check_values']


def check_run(cfg: Mapping[str, Any], phase: str) -> list[str]:
    """Compares the parts of an assembled run: settings, classes, sensors, clips, ranges, evaluators.

    Args:
        cfg: the config, as a Runner takes it.
        phase: 'train' (which also scores on the validation set), 'val' or 'test'.

    Returns:
        Warnings, a line each.

    Raises:
        UserError: naming the keys that contradict each other or cannot be used, with both values and what to do.
    """
    check_values(cfg)
    check_classes(cfg, phase)
    check_points(cfg, phase)
    check_clips(cfg, phase)
    warnings = check_ranges(cfg, phase)
    check_evaluators(cfg, phase)
    return warnings
