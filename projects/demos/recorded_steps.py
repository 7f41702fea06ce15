"""Demo. In: a detector with an XMem memory. Out: what each of its steps was given and left behind, for looking at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from projects.memfusion.structures import FrameBatch, MemoryState, SceneFeatures, SceneTruth
from projects.memfusion.visualization import BoxSet


@dataclass(frozen=True)
class RecordedStep:
    """What the frame shows, the state before it (not aligned to it), the frames, the state after them."""

    features: SceneFeatures
    before: MemoryState
    frames: FrameBatch
    after: MemoryState


@dataclass(frozen=True)
class MemoryFrame:
    """One test frame.

    Attributes:
        points: (P, D) of the frame.
        truth: boxes where the infos have labels, else None.
        predictions: all boxes that the detector gave.
        gate: (Hm, Wm) predicted occupancy.
        step: what the memory was given and left behind.
        points_at: points of all frames that memory may still hold, by time stamp, in their own coordinates.
    """

    points: np.ndarray
    truth: BoxSet | None
    predictions: BoxSet
    gate: np.ndarray
    step: RecordedStep
    points_at: dict[float, np.ndarray]


@contextmanager
def recorded_steps(model: Any) -> Iterator[list[RecordedStep]]:
    """While its body runs, every `model.step` adds an entry to the list; whoever reads it clears it.

    `step` is where all testing modes pass, so the record is of what testing does, not of a second loop that imitates it.
    """
    steps: list[RecordedStep] = []
    original = model.step

    def step(features: SceneFeatures, state: MemoryState, frames: FrameBatch, truth: SceneTruth | None = None) -> Any:
        out = original(features, state, frames, truth)
        steps.append(RecordedStep(features, state, frames, out.state))
        return out

    model.step = step
    try:
        yield steps
    finally:
        del model.step
