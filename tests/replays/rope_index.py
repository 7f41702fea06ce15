"""Replays training-time position ids of Spatial-MLLM, padded on either side. tests/reference/README.md tells the arrays."""

from __future__ import annotations

from pathlib import Path

import torch
from replays.compare import difference, read_arrays

from projects.spatial_mllm.processing.position_ids import PositionRule, VisionBlocks, position_ids

IMAGE, VIDEO = 151655, 151656
VARIANTS = {'25_a': 'float', '25_b': 'float', '25_c': 'float', '2': 'index'}
SIDES = ('right', 'left')
ARRAYS = ('image_grid_thw', 'video_grid_thw', 'second_per_grid_a', 'second_per_grid_b',
          'pos_text_only_left', 'delta_text_only_left',
          *(f'{name}_{side}' for name in ('input_ids', 'attention_mask') for side in SIDES),
          *(f'{name}{variant}_{side}' for name in ('pos', 'delta') for variant in VARIANTS for side in SIDES))


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """Ids are made on the host, whatever the device."""
    arrays = read_arrays(path, ARRAYS)
    grids = arrays['image_grid_thw'].tolist(), arrays['video_grid_thw'].tolist()
    rows = []
    for side in SIDES:
        tokens, mask = (torch.from_numpy(arrays[f'{name}_{side}']) for name in ('input_ids', 'attention_mask'))
        for variant, time in VARIANTS.items():
            seconds = arrays.get(f'second_per_grid_{variant[-1]}')
            blocks = VisionBlocks(*grids, None if seconds is None else seconds.tolist())
            ours = position_ids(tokens, PositionRule(IMAGE, VIDEO, time=time), blocks, mask)
            rows += compared(ours, arrays, variant, side)
    # Without grids the published code takes every token for text.
    text = position_ids(torch.zeros_like(tokens), PositionRule(IMAGE, VIDEO), VisionBlocks(), mask)
    return rows + compared(text, arrays, '_text_only', 'left')


def compared(ours: tuple, arrays: dict, variant: str, side: str) -> list[tuple[str, float]]:
    names = f'pos{variant}_{side}', f'delta{variant}_{side}'
    return [(name, difference(value.numpy(), arrays[name])) for name, value in zip(names, ours)]
