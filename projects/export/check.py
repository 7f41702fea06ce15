"""Export. In: a detector and its exported twin, a scene. Out: how far their boxes and memories lie apart, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from projects.memfusion.structures.box_scores import SEEN

from .frames import batch_of, frame_arrays
from .graphs import STATE
from .named import named_tensors
from .streaming import Arrays, ExportedDetector

BOX_TOLERANCE, STATE_TOLERANCE = 1e-3, 1e-4
_TIE = 1e-4
"""Scores that lie this near to each other, or to a threshold, may change places by rounding."""


@dataclass(frozen=True)
class FrameDifference:
    """Largest differences of one frame.

    Attributes:
        boxes: numbers of boxes, metres, radians, metres a second; inf where one has no counterpart.
        scores: of the same boxes.
        state: what is remembered after the frame, by what is largest of each tensor, at least 1; 0 without memory.
        count: boxes that the detector gave.
    """

    boxes: float
    scores: float
    state: float
    count: int

    @property
    def within(self) -> bool:
        """Whether both agree."""
        return self.boxes <= BOX_TOLERANCE and self.scores <= BOX_TOLERANCE and self.state <= STATE_TOLERANCE


def compare(detector: Any, exported: ExportedDetector, items: Iterable[Any]) -> Iterator[FrameDifference]:
    """Streams items of the test set through both, each with its own memory."""
    threshold = max(exported.description['boxes']['score_above'], 0.0)
    detector.session.clear()
    with _states_of(detector) as states:
        for item in items:
            frame = frame_arrays(item)
            if frame['is_scene_start']:
                exported.reset()
            found = exported(frame)
            with torch.no_grad():
                sample = detector(**detector.data_preprocessor(batch_of(item)), mode='predict')[0]
            truth = sample.pred_instances_3d
            wanted = dict(boxes=truth.bboxes_3d.tensor.numpy(), scores=truth.scores_3d.numpy(), labels=truth.labels_3d.numpy())
            if SEEN in truth:
                wanted['seen'] = truth[SEEN].numpy()
            boxes, scores = box_difference(wanted, found, threshold)
            yield FrameDifference(boxes, scores, _state_difference(states, exported.state), len(truth))


def box_difference(wanted: Arrays, found: Arrays, threshold: float) -> tuple[float, float]:
    """Largest difference of boxes and of scores between two sets; boxes whose score is at the threshold may be in one alone."""
    worst = np.zeros(2)
    for mine, other in ((wanted, found), (found, wanted)):
        rows, others = _table(mine), _table(other)
        for row, label in zip(rows, mine['labels']):
            each = np.abs(others[other['labels'] == label] - row)
            each[:, 6] = np.abs(np.angle(np.exp(1j * each[:, 6])))
            apart = each[each.max(axis=1).argmin()] if len(each) else np.full(len(row), np.inf)
            if apart.max() <= BOX_TOLERANCE or abs(row[9] - threshold) >= _TIE:
                worst = np.maximum(worst, [apart[:9].max(), apart[9:].max()])
    return float(worst[0]), float(worst[1])


def _table(found: Arrays) -> np.ndarray:
    """(n, 10 or 11): boxes, scores, and whether they are seen where that is told."""
    return np.column_stack([found[name].astype(np.float64) for name in ('boxes', 'scores', 'seen') if name in found])


def _state_difference(states: list[Any], held: Arrays) -> float:
    if not held:
        return 0.0
    differences = []
    for name, tensor in named_tensors(states[-1], STATE).items():
        wanted = tensor.numpy().astype(np.float64)
        differences.append(float((np.abs(wanted - held[name]) / max(1.0, np.abs(wanted).max())).max()))
    return max(differences)


@contextmanager
def _states_of(detector: Any) -> Iterator[list[Any]]:
    """While its body runs, the list holds the state after the last step that the detector took."""
    states: list[Any] = []
    if detector.temporal is None:
        yield states
        return
    original = detector.step

    def step(*args: Any) -> Any:
        out = original(*args)
        states[:] = [out.state]
        return out

    detector.step = step
    try:
        yield states
    finally:
        del detector.step
