"""Benchmark, fusion. In: BEV sizes, cameras. Out: seconds and peak bytes of FuTr++, FastBEV, dense and deformable attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from projects.memfusion.fusion import FastBEVFusion, FuTrPlusPlus
from projects.memfusion.structures import Calibration

from .models import Row
from .peak_memory import measure_cases
from .ring import ring

BEV_SIZES = (128, 180)
_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
_IMAGE_HW, _STRIDE, _CHANNELS, _DIM = (256, 704), 16, 256, 128
_DENSE = 'dense deformable attention, all cells'


@dataclass(frozen=True)
class Case:
    """One fusion block: its stages, and how much it is given. Without stages it is FastBEV, which keeps its table or not."""

    stages: dict[str, Any] | None
    bev_size: int
    cameras: int = 6
    training: bool = False
    keeps: bool = True

    def at(self, bev_size: int) -> Case:
        """The same block at another BEV size."""
        return replace(self, bev_size=bev_size)


def car_ring(cameras: int) -> Calibration:
    """Cameras all around, each of 70 deg, as on a nuScenes car, in images of 256 x 704 px."""
    height, width = _IMAGE_HW
    return ring(cameras, _IMAGE_HW, width / 2 / math.tan(math.radians(35.0)), (width / 2, height / 2))


def build(case: Case) -> Callable[[], Any]:
    """A call that runs the block once (with backward in training), on the GPU where there is one."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    layer: Any = FastBEVFusion(_CHANNELS, _CHANNELS, _RANGE, (case.bev_size,) * 2, (_STRIDE,)) if case.stages is None else (
        FuTrPlusPlus(_CHANNELS, _CHANNELS, _RANGE, (_STRIDE,), **case.stages))
    layer = layer.to(device).eval()
    calibration = car_ring(case.cameras).to(device)
    bev = torch.randn(1, _CHANNELS, case.bev_size, case.bev_size, device=device, requires_grad=case.training)
    feats = torch.randn(1, case.cameras, _CHANNELS, *(size // _STRIDE for size in _IMAGE_HW), device=device,
                        requires_grad=case.training)

    def call() -> Tensor:
        if not case.keeps:
            layer.cache.clear()
        with torch.set_grad_enabled(case.training):
            fused = layer(bev, [feats], calibration)
            if case.training:
                fused.backward(torch.ones_like(fused))
        return fused

    return call


def sample_stage(kind: str, cells: str, active_ratio: float = 0.1) -> dict[str, Any]:
    """The stages where only the sample stage changes the BEV; tokens of single feature cells for attention to tokens."""
    grid = (_IMAGE_HW[0] // _STRIDE, _IMAGE_HW[1] // _STRIDE) if kind == 'tokens' else 8
    return dict(tokens=dict(grid=grid, dim=_DIM), film=dict(kind='off'), select=dict(kind=cells, active_ratio=active_ratio),
                sample=dict(kind=kind))


def blocks(bev_size: int, training: bool = False) -> dict[str, Case]:
    """The blocks that are compared."""
    gated = {**sample_stage('deformable', 'learned'), 'film': dict(kind='per_camera_gated')}
    return {
        _DENSE: Case(sample_stage('deformable', 'all'), bev_size, training=training),
        'dense attention, all cells to all feature cells': Case(sample_stage('tokens', 'all'), bev_size, training=training),
        'FuTr++, 10 % active cells': Case(sample_stage('deformable', 'learned'), bev_size, training=training),
        'FuTr++, 10 % active cells, gated FiLM': Case(gated, bev_size, training=training),
    }


def measure_fusion(repeats: int) -> list[Row]:
    """Time and peak memory of the blocks, forward and with backward; FuTr++ over cameras and active cells; FastBEV."""
    rows = []
    for bev_size in BEV_SIZES:
        for training in (False, True):
            note = f'BEV {bev_size}, forward' + ' and backward' * training
            rows += _measure(blocks(bev_size, training), _DENSE, note, repeats)
    few = {f'FuTr++, {count} cameras': Case(sample_stage('deformable', 'learned'), 128, count) for count in (6, 3, 12)}
    rows += _measure(few, 'FuTr++, 6 cameras', 'BEV 128, forward', repeats)
    shares = {f'FuTr++, {ratio:.0%} active': Case(sample_stage('deformable', 'learned', ratio), 128)
              for ratio in (0.1, 0.05, 0.2, 0.4)}
    rows += _measure(shares, 'FuTr++, 10% active', 'BEV 128, forward', repeats)
    cheapest = {'FuTr++, 10 % active cells': Case(sample_stage('deformable', 'learned'), 128),
                'FastBEV, rig as before': Case(None, 128), 'FastBEV, first call with a rig': Case(None, 128, keeps=False)}
    return rows + _measure(cheapest, 'FuTr++, 10 % active cells', 'BEV 128, forward', repeats)


def _measure(cases: Mapping[str, Case], baseline: str, note: str, repeats: int) -> list[Row]:
    return measure_cases(cases, build, lambda case: case.at(16), baseline, note, repeats)
