"""Contract, no network: earlier frames' images as seen from now. In: a ring of past features. Out: levels, moved rigs, ages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .calibration import Calibration
from .frame_images import FrameImages
from .rows import take_rows


@dataclass(frozen=True)
class PastFrame:
    """One earlier frame of B scenes.

    Attributes:
        levels: (B, N, Ci, h, w) each; zeros where the frame is not there.
        calibration: the rig of then, `moved` into the augmented LiDAR frame of now; its stamps are those of then. No camera
            is valid where the frame is not there.
        age_s: (B,) float64, seconds before now; 0 where the frame is not there.
        there: B bools on the host; False where a scene has not so many frames behind it.
    """

    levels: tuple[Tensor, ...]
    calibration: Calibration
    age_s: Tensor
    there: tuple[bool, ...]

    def take(self, rows: Sequence[int]) -> PastFrame:
        """The scenes at these positions."""
        if list(rows) == list(range(len(self.there))):
            return self
        return PastFrame(tuple(take_rows(level, rows) for level in self.levels), self.calibration.select(list(rows)),
                         take_rows(self.age_s, rows), tuple(self.there[row] for row in rows))

    def with_levels(self, change: Callable[[Tensor], Tensor]) -> PastFrame:
        """The same with every level changed."""
        return replace(self, levels=tuple(change(level) for level in self.levels))

    @staticmethod
    def cat(parts: Sequence[PastFrame]) -> PastFrame:
        """Joins scenes along the batch."""
        if len(parts) == 1:
            return parts[0]
        images = FrameImages.join([FrameImages(part.levels, part.calibration) for part in parts])
        return PastFrame(images.levels, images.rig,
                         torch.cat([part.age_s for part in parts]), tuple(ok for part in parts for ok in part.there))


@dataclass(frozen=True)
class History:
    """The past of V frames, which are rows of time steps. Steps share what they remember, and choosing rows copies nothing, for
    T steps of T frames each would be T times the images: only `frames` puts the chosen ones together.

    Attributes:
        steps: the past of each time step's B scenes, newest frame first; all of the same length.
        rows: V pairs of a position in `steps` and one in that step's batch.
    """

    steps: tuple[tuple[PastFrame, ...], ...]
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of_step(cls, frames: Sequence[PastFrame]) -> History:
        """The past of one time step, newest frame first."""
        return cls((tuple(frames),), tuple((0, row) for row in range(len(frames[0].there))))

    @staticmethod
    def of_clips(steps: Sequence[History]) -> History | None:
        """T time steps of B clips -> their B x T frames, clip-major; None of nothing."""
        if not steps:
            return None
        first = [sum(len(step.steps) for step in steps[:t]) for t in range(len(steps))]
        rows = tuple((first[t] + step.rows[b][0], step.rows[b][1])
                     for b in range(len(steps[0].rows)) for t, step in enumerate(steps))
        return History(tuple(frames for step in steps for frames in step.steps), rows)

    def __len__(self) -> int:
        """How many earlier frames each of the V has."""
        return len(self.steps[0])

    def take(self, rows: Sequence[int]) -> History:
        """The frames at these positions."""
        return History(self.steps, tuple(self.rows[row] for row in rows))

    def detach(self) -> History:
        """The same outside the autograd graph."""
        return self._each(lambda frame: frame.with_levels(Tensor.detach))

    def float(self) -> History:
        """The same in single precision."""
        return self._each(lambda frame: frame.with_levels(Tensor.float))

    def _each(self, change: Callable[[PastFrame], PastFrame]) -> History:
        return replace(self, steps=tuple(tuple(change(frame) for frame in frames) for frames in self.steps))

    def frames(self) -> tuple[PastFrame, ...]:
        """The earlier frames of the V, newest first."""
        used = sorted({step for step, _ in self.rows})
        wanted = {step: [row for at, row in self.rows if at == step] for step in used}
        places = [(step, i) for step in used for i, _ in enumerate(wanted[step])]  # as they come out of `cat`
        given = {step: iter(range(len(wanted[step]))) for step in used}
        order = [places.index((step, next(given[step]))) for step, _ in self.rows]
        return tuple(PastFrame.cat([self.steps[step][age].take(wanted[step]) for step in used]).take(order)
                     for age in range(len(self)))
