"""Geometry, frame sampling. In: number of frames, K. Out: evenly spread frames, in the three forms that are published."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def truncated_linspace(num_frames: int, count: int) -> np.ndarray:
    """`linspace`: from the first to the last frame, cut to whole numbers (lmms-eval); repeats where frames are few."""
    return np.linspace(0, num_frames - 1, count).astype(np.int64)


def pooled_linspace(num_frames: int, count: int) -> np.ndarray:
    """`pool128`: truncated linspace to 128 candidates, and truncated linspace over those (Spatial-MLLM).

    All candidates where there are no more than `count`.
    """
    pool = np.arange(num_frames) if num_frames <= 128 else truncated_linspace(num_frames, 128)
    return pool if len(pool) <= count else pool[truncated_linspace(len(pool), count)]


def rounded_linspace(num_frames: int, count: int) -> np.ndarray:
    """`round`: linspace, rounded, in float32 as in qwen-vl-utils; that package also makes `count` even.

    Raises:
        ValueError: count > num_frames.
    """
    if count > num_frames:
        raise ValueError(f'{num_frames} frames are fewer than the {count} that are wanted')
    return torch.linspace(0, num_frames - 1, count).round().long().numpy()


UNIFORM_FORMS: dict[str, Callable[[int, int], np.ndarray]] = {
    'pool128': pooled_linspace, 'linspace': truncated_linspace, 'round': rounded_linspace}
