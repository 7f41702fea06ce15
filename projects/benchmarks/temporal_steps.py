"""Benchmark, memories. In: nothing. Out: seconds and state bytes of a step at the full grid, beside the stack of four."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmdet3d.registry import MODELS

from projects.memfusion.structures import SceneFeatures

from .memory import _frame
from .models import Row, interleave, rows_of

CHANNELS, CELLS, RANGE_M = 384, 128, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
WARM_FRAMES = 12
MODULES: dict[str, dict[str, Any]] = {
    'stack of 4': dict(type='StackFusion', hidden_dim=64, num_frames=4),
    'stack of 8': dict(type='StackFusion', hidden_dim=64, num_frames=8),
    'stack of 4, given `observed` and the copying start': dict(type='StackFusion', hidden_dim=64, observed=True, copy=True),
    'ConvGRU': dict(type='ConvGRUFusion', hidden_dim=64),
    'copying ConvGRU': dict(type='CopyGRU'),
    'copy, 3 slots': dict(type='CopyMemory'),
    'copy, 6 slots': dict(type='CopyMemory', num_slots=6),
    'copy, 12 slots': dict(type='CopyMemory', num_slots=12),
    'copy, 3 slots and a world map': dict(type='CopyMemory', long_term=True),
    'copy, the features, half precision': dict(type='CopyMemory', value='bev', half=True),
    'stack of 4, 32 channels as in the study': dict(type='StackFusion', hidden_dim=32, num_frames=4),
    'its control, 32 channels': dict(type='StackFusion', hidden_dim=32, observed=True, copy=True),
    'ConvGRU, 32 channels': dict(type='ConvGRUFusion', hidden_dim=32),
}
"""Widths are those of configs/temporal; in the memory study the stack and ConvGRU keep as many channels as the copies, 32."""


@torch.no_grad()
def measure_temporal_steps(repeats: int) -> list[Row]:
    """A step with all slots filled: align, read, write; the head not counted."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    draw = torch.Generator().manual_seed(0)
    features = SceneFeatures(torch.randn(1, CHANNELS, CELLS, CELLS, generator=draw).to(device),
                             observed=(torch.rand(1, 1, CELLS, CELLS, generator=draw) < 0.3).to(device))
    steps: dict[str, Callable[[], Any]] = {}
    bytes_of: dict[str, int] = {}
    for name, settings in MODULES.items():
        module = MODELS.build(dict(settings, in_channels=CHANNELS, point_cloud_range=RANGE_M)).eval().to(device)
        state = module.init_state(features)
        for index in range(WARM_FRAMES):
            state = _step(module, features, state, index)
        bytes_of[name] = state.num_bytes
        steps[name] = partial(_step, module, features, state, WARM_FRAMES)
    base = next(iter(MODULES))
    note = f'{CHANNELS} channels, {CELLS} x {CELLS} cells'
    return [Row(row.name, row.seconds, row.low, row.high, base, row.ratio,
                f'{note}; state of {bytes_of[row.name] / 1e6:.1f} MB ({bytes_of[row.name] / bytes_of[base]:.2f}x)')
            for row in rows_of(interleave(steps, repeats), base)]


def _step(module: Any, features: SceneFeatures, state: Any, index: int) -> Any:
    frames = _frame(index, features.any_tensor.device)
    aligned = module.align(state, frames)
    return module.write(aligned, module.read(aligned, features, frames), None, frames)
