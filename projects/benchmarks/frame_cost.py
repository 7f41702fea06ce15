"""Benchmark. In: a config of full size. Out: what one frame costs: parameters, operations, CPU seconds, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.runtime.launch import init_registry

from .flops import _count
from .full_frames import full_config, full_frame
from .models import build_model, predict_step
from .peak_memory import peak_of_call


@dataclass(frozen=True)
class FrameCost:
    """One frame from points and pixels to boxes, batch 1, with memories full.

    Attributes:
        parameters: of the whole model.
        flops: operations, counted as `flops.py` counts them.
        cpu_s: seconds of the CPU, which others on the machine hardly change; of the clock, on a GPU.
        times_reference: how many times that of the reference, measured in turn with it; None where there is none.
        peak_bytes: beyond inputs and weights.
        machine: what it was measured on.
    """

    parameters: int
    flops: int
    cpu_s: float
    times_reference: float | None
    peak_bytes: int
    machine: str


def item_of(cfg: Config) -> Any:
    """A full frame with what this config reads of it."""
    item = full_frame()
    if not cfg.model.get('pts_backbone'):
        del item[0]['inputs']['points']
    if not cfg.model.get('img_backbone'):
        del item[0]['inputs']['cameras']
    return item


def frames_to_fill(cfg: Config) -> int:
    """How many frames come before the one that is measured: the first meets an empty memory and no cached rig."""
    temporal = cfg.model.get('temporal') or {}
    return max(int(temporal.get('num_frames', 1)), 1) + 1 if temporal else 1


def measure_frame(config: str, repeats: int = 1, reference: str | None = None) -> FrameCost:
    """The cost of a frame of this config, median of `repeats` after those that fill its memory; its weights are drawn.

    Args:
        config: path.
        repeats: how often.
        reference: the config that the time is compared with, frame by frame in turn: on a machine with other work the ratio
            is worth more than the seconds.
    """
    init_registry()
    other = None if reference is None else _prepared(reference)[2]
    model, item, call = _prepared(config)
    seconds, ratios = [], []
    for _ in range(repeats):
        seconds.append(_seconds(call))
        if other is not None:
            ratios.append(seconds[-1] / _seconds(other))
    item[0]['data_samples'].set_metainfo(dict(frame_index=10 ** 6, is_scene_start=False, timestamp_s=1e6))
    flops: dict[str, int] = {}

    @torch.no_grad()
    def counted() -> None:
        flops.update(_count(model, pseudo_collate([item])))

    peak = peak_of_call(counted)
    threads = torch.get_num_threads()
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f'a CPU, {threads} thread{"s" * (threads > 1)}'
    return FrameCost(sum(p.numel() for p in model.parameters()), sum(flops.values()), median(seconds),
                     median(ratios) if ratios else None, peak, f'{machine}, torch {torch.__version__}')


def _prepared(config: str) -> tuple[Any, Any, Callable[[], None]]:
    """Model, frame, and a call that predicts the next one, with memories full."""
    cfg = full_config(config)
    model, item = build_model(cfg), item_of(cfg)
    return model, item, predict_step(model, [item], warm_frames=frames_to_fill(cfg))


def _seconds(call: Callable[[], None]) -> float:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start
