"""Benchmark. In: a config and its data. Out: parameters and floating-point operations of a test frame, by slot of the detector.

Operations are counted while the frame runs (torch's FlopCounterMode): convolutions and matrix products, a multiplication and an
addition as two. Voxelisation, scattering, sampling (grid_sample) and sparse or deformable convolutions have no count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry

BETWEEN = '(between layers)'
"""What runs outside any layer: similarities, readouts, attention weights."""


@dataclass(frozen=True)
class Cost:
    """One slot: its parameters and the operations of one frame."""

    slot: str
    parameters: int
    flops: int


def count_frame(cfg: Config, frame: int) -> list[Cost]:
    """Costs of test item `frame` after the items before it, so that a memory holds what it holds there; the total comes last.

    Raises:
        UserError: where the data set has fewer items.
    """
    init_registry()
    model = MODELS.build(cfg.model).eval().to('cuda' if torch.cuda.is_available() else 'cpu')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if frame >= len(dataset):
        raise UserError(f'--frame {frame}: {cfg.test_dataloader.dataset.ann_file} has {len(dataset)} test items, from 0')
    with torch.no_grad():
        for index in range(frame):
            model.test_step(_batch(dataset[index]))
        flops = _count(model, _batch(dataset[frame]))
    costs = [Cost(name, sum(p.numel() for p in slot.parameters()), flops[name]) for name, slot in model.named_children()]
    costs = [cost for cost in costs if cost.parameters or cost.flops] + [Cost(BETWEEN, 0, flops[BETWEEN])]
    return [*costs, Cost('total', sum(p.numel() for p in model.parameters()), sum(flops.values()))]


def _batch(item: Any) -> Any:
    """One item as the loader batches it: frames are samples, clips are lists of frames."""
    return pseudo_collate([item])


def _count(model: BaseModel, batch: Any) -> Counter[str]:
    flops: Counter[str] = Counter()
    before: list[int] = []

    model.requires_grad_(False)  # the counter asks views of parameters for gradient functions, which no_grad leaves out

    def enter(module: nn.Module, inputs: Any) -> None:
        before.append(counter.get_total_flops())

    leaves = [(name.split('.')[0], module) for name, module in model.named_modules() if not list(module.children())]

    def leave_to(slot: str) -> Any:
        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            flops[slot] += counter.get_total_flops() - before.pop()
        return leave

    handles = [handle for slot, module in leaves
               for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave_to(slot)))]
    try:
        with FlopCounterMode(display=False) as counter:
            model.test_step(batch)
    finally:
        for handle in handles:
            handle.remove()
    flops[BETWEEN] = counter.get_total_flops() - sum(flops.values())
    return flops
