"""Demo, in a detector's streaming. In: a detector, the frames of a scene. Out: what each frame gave, what memory did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from projects.memfusion.memory import CopyMemory
from projects.memfusion.structures import FrameBatch, SceneFeatures, SceneTruth, TemporalState
from projects.memfusion.visualization import BoxSet


@dataclass(frozen=True)
class RecordedStep:
    """What the frame shows, the state before it (not aligned to it), the frames, the state after them.

    Both states are TemporalStates, of the detector's own kind of memory.
    """

    features: SceneFeatures
    before: Any
    frames: FrameBatch
    after: Any


@dataclass(frozen=True)
class MemoryFrame:
    """One test frame.

    Attributes:
        info: of the data set.
        points: (P, D) of the frame; none of a detector without LiDAR.
        truth: boxes with points where the infos have labels, else None.
        predictions: all boxes that the detector gave.
        gate: (Hm, Wm) in 0..1, what `gate_name` says; None where the detector has no such map.
        gate_name: what the gate is.
        step: what the memory was given and left behind; None where the detector has no memory.
        points_at: points of all frames that memory may still hold, by time stamp, in their own coordinates.
    """

    info: dict[str, Any]
    points: np.ndarray
    truth: BoxSet | None
    predictions: BoxSet
    gate: np.ndarray | None
    gate_name: str
    step: RecordedStep | None
    points_at: dict[float, np.ndarray]


@contextmanager
def recorded_steps(model: Any) -> Iterator[list[RecordedStep]]:
    """While its body runs, every `model.step` adds an entry to the list; whoever reads it clears it.

    `step` is where all testing modes pass, so the record is of what testing does, not of a second loop that imitates it.
    """
    steps: list[RecordedStep] = []
    original = model.step

    def step(features: SceneFeatures, state: TemporalState, frames: FrameBatch, truth: SceneTruth | None = None) -> Any:
        out = original(features, state, frames, truth)
        steps.append(RecordedStep(features, state, frames, out.state))
        return out

    model.step = step
    try:
        yield steps
    finally:
        del model.step


def stream_memory(model: Any, dataset: Any, positions: Sequence[int], forgets: bool = False) -> Iterator[MemoryFrame]:
    """Runs the detector over one scene's frames in time order; yields what each gave and what memory did.

    Args:
        positions: of the frames in the data set, of one item each.
        forgets: every frame is tested as if its scene began with it: the same weights without history.
    """
    points_at: dict[float, np.ndarray] = {}
    with recorded_steps(model) as steps:
        for position in positions:
            item, info = dataset[position], dataset.get_data_info(position)
            if forgets:
                model.session.clear()
                item = item[-1:]
                item[0]['data_samples'].set_metainfo(dict(is_scene_start=True))
            for packed in item:
                if packed['data_samples'].frame_valid:
                    points_at[packed['data_samples'].timestamp_s] = _points(packed)
            steps.clear()
            with torch.no_grad():
                sample = model(**model.data_preprocessor(pseudo_collate([item])), mode='predict')[0]
            step = steps[-1] if steps else None  # of a window's steps, the last is the frame's own
            gate, gate_name = gate_of(model.temporal, sample, step)
            labels = info.get('eval_ann_info')
            truth = None if labels is None else BoxSet.from_instances(labels)
            yield MemoryFrame(
                info=info,
                points=_points(item[-1]),
                truth=truth if truth is None else truth.keep(truth.labels >= 0),
                predictions=BoxSet.from_instances(sample.pred_instances_3d),
                gate=gate, gate_name=gate_name, step=step, points_at=points_at)
            points_at = _still_held(points_at, step)


def _points(packed: dict[str, Any]) -> np.ndarray:
    points = packed['inputs'].get('points')
    return np.zeros((0, 4), np.float32) if points is None else points.numpy()


def gate_of(temporal: Any, sample: Any, step: RecordedStep | None) -> tuple[np.ndarray | None, str]:
    """(Hm, Wm) in 0..1 of a frame's gate, and what it is; None where the detector has no such map."""
    if step is not None and isinstance(temporal, CopyMemory):
        copied = temporal.copied(step.features, temporal.align(step.before, step.frames), step.frames)
        return copied[0, 0].float().cpu().numpy(), 'share that is remembered'
    occupancy = sample.get('pred_occupancy')
    return None if occupancy is None else occupancy[0].cpu().numpy(), 'predicted occupancy'


def _still_held(points_at: dict[float, np.ndarray], step: RecordedStep | None) -> dict[float, np.ndarray]:
    if step is None or not hasattr(step.after, 'slot_valid'):
        return {}
    held = set(step.after.slot_time_s[step.after.slot_valid].tolist())
    return {time_s: points for time_s, points in points_at.items() if time_s in held}
