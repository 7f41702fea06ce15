"""Benchmark, StreamPETR. In: repeats. Out: seconds and peak bytes of a step with its memory, and of its head alone.

R50 at 256 x 704: one level of 16 x 44 cells for each of six cameras, six layers of width 256; 644 learned queries and 256 of a
memory of 1024, against 900 learned queries without a memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from torch.utils.benchmark import timer

from projects.memfusion.detectors.modes import evaluating
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.structures import Calibration, FrameBatch, FrameMeta, HeadOutputs, Readout, SceneFeatures

from .fusion import car_ring
from .models import Row, interleave, rows_of
from .peak_memory import peak_of_call, with_peaks

ALONE = 'head alone, 900 learned queries'
_RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
_LENGTHS = (10, 30, 60)


@dataclass(frozen=True)
class Case:
    """What is run: `propagated` queries of a memory after `frames` frames; `new_rig`: one not seen before, in every call."""

    propagated: int = 256
    queries: int = 900
    cameras: int = 6
    frames: int = 5
    layers: int = 6
    new_rig: bool = False

    def small(self) -> Case:
        """One that warms up."""
        return Case(self.propagated // 16, self.queries // 16, 1, 1, 1)


class Stream:
    """A head with its memory, frame by frame of one scene, on the GPU where there is one."""

    def __init__(self, case: Case) -> None:
        init_registry()
        torch.manual_seed(0)
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        kept = case.propagated
        self.case, self.index = case, 0
        self.head = MODELS.build(dict(
            type='StreamPETR', num_classes=10, point_cloud_range=_RANGE,
            queries=dict(num_learned=case.queries - kept, num_propagated=kept), image_tokens=dict(in_channels=256),
            transformer=dict(num_layers=case.layers))).to(device).eval()
        self.memory = MODELS.build(dict(
            type='QueryMemory', point_cloud_range=_RANGE, num_slots=4 * kept, num_kept=kept)).to(device) if kept else None
        self.rig = car_ring(case.cameras).to(device)
        level = torch.randn(1, case.cameras, 256, 16, 44, device=device)
        self.features = SceneFeatures(None, levels=(level,), calibration=self.rig)
        self.state = None if self.memory is None else self.memory.init_state(self.features)

    @torch.no_grad()
    def step(self) -> Any:
        """The next frame."""
        features = self.features
        if self.case.new_rig:
            features = replace(features, calibration=self._moved_rig())
        frames = self._frame()
        self.index += 1
        if self.memory is None:
            return self.head.forward(features, Readout(), None)
        aligned = self.memory.align(self.state, frames)
        readout = self.memory.read(aligned, features, frames)
        raw = self.head.forward(features, readout, None)
        self.state = self.memory.write(aligned, readout, HeadOutputs(raw, list), frames)
        return raw

    def _moved_rig(self) -> Calibration:
        """The rig a millimetre further than in the call before."""
        shift = torch.eye(4, dtype=torch.float64, device=self.rig.bev_aug.device)
        shift[0, 3] = 1e-3 * self.index
        return self.rig.moved(shift[None])

    def _frame(self) -> FrameBatch:
        pose = np.eye(4)
        pose[0, 3] = 4.0 * self.index
        meta = FrameMeta(
            sample_token=str(self.index), scene_token='scene', frame_index=self.index, is_scene_start=self.index == 0,
            is_scene_end=False, timestamp_s=1.0 + 0.5 * self.index, global_from_lidar=pose, bev_aug=np.eye(4), frame_valid=True,
            is_keyframe=True)
        return FrameBatch.from_metas([meta], self.rig.bev_aug.device)


def build(case: Case) -> Callable[[], Any]:
    """A call that steps to the next frame, after so many that the memory is full."""
    stream = Stream(case)
    with evaluating(stream.head):
        for _ in range(case.frames):
            stream.step()
    return stream.step


def measure_streampetr(repeats: int) -> list[Row]:
    """Time and peak memory of a step with memory and of the head alone; over known rigs, cameras and scene length."""
    rows = _measure({ALONE: Case(propagated=0), 'StreamPETR with memory, 644 + 256 queries': Case()}, '6 layers, memory full',
                    repeats)
    rigs = {'StreamPETR, rig unchanged': Case(layers=1), 'StreamPETR, rig not seen before': Case(layers=1, new_rig=True)}
    few = {f'StreamPETR, {count} cameras': Case(cameras=count, layers=1) for count in (6, 3, 12)}
    return [*rows, *_measure(rigs, '1 layer', repeats), *_measure(few, '1 layer', repeats), *_over_a_scene(Case(layers=1))]


def _measure(cases: dict[str, Case], note: str, repeats: int) -> list[Row]:
    calls = {name: build(case) for name, case in cases.items()}
    seconds = interleave(calls, repeats)
    peaks = {name: peak_of_call(call) for name, call in calls.items()}
    baseline = next(iter(cases))
    return with_peaks(seconds, peaks, baseline, note)


def _over_a_scene(case: Case) -> list[Row]:
    """Seconds of five steps in a row, after so many frames of one scene."""
    stream, seconds = Stream(case), []
    for _ in range(max(_LENGTHS)):
        start = timer()
        stream.step()
        seconds.append(timer() - start)
    parts = {f'StreamPETR, frames {length - 4} to {length}': seconds[length - 5:length] for length in _LENGTHS}
    return rows_of(parts, next(iter(parts)), f'{case.layers} layer')
