"""Replays Qwen2.5-VL's rotary positions: ids, rotated vectors, the vision tower's order.

tests/reference/README.md says what the arrays are. Ids are ours; rotations and the vision tower are those of the library whose
classes our models use, and those of projects/encodings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from replays.compare import difference, refuse_unknown
from replays.rotary_layouts import rotary_rows
from torch import Tensor
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen25
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from projects.spatial_mllm.processing.position_ids import PositionRule, VisionBlocks, position_ids

TOLERANCE = 1e-5
IMAGE, VIDEO = 151, 152
GIVEN = r'settings|input_ids|(video|vision)_grid_thw|second_per_grid_\d+|q|k|free_pos|vision_[qk]'
Row = tuple[str, Any, float]


@torch.no_grad()
def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    rows = [*ids(arrays), *rotations(arrays, device), *vision_tower(arrays, device), *rotary_rows(arrays, device)]
    refuse_unknown(arrays, {name for name, _, _ in rows}, GIVEN)
    return [(name, difference(ours, arrays[name].numpy(), tolerance)) for name, ours, tolerance in rows]


def ids(arrays: dict[str, Tensor]) -> Iterator[Row]:
    tokens_per_second = float(arrays['settings'][4])
    for number in numbers(arrays, 'second_per_grid_'):
        for time in ('float', 'int', 'v5'):
            rule = PositionRule(IMAGE, VIDEO, tokens_per_second=tokens_per_second, time=time)
            seconds = arrays[f'second_per_grid_{number}'].tolist()
            blocks = VisionBlocks(videos=arrays['video_grid_thw'].tolist(), seconds=seconds)
            places, delta = position_ids(arrays['input_ids'], rule, blocks)
            yield f'pos_{time}_{number}', places.numpy(), 0
            yield f'delta_{time}_{number}', delta[0].numpy(), 0


def rotations(arrays: dict[str, Tensor], device: str) -> Iterator[Row]:
    head_dim, base = int(arrays['settings'][0]), float(arrays['settings'][3])
    sections = [int(number) for number in arrays['settings'][7:]]
    frequencies = 1 / base ** (torch.arange(0, head_dim, 2) / head_dim)
    yield 'inv_freq', frequencies.numpy(), TOLERANCE
    q, k = arrays['q'].to(device), arrays['k'].to(device)

    def rotated(places: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
        angles = places[..., None].to(device) * frequencies.to(device)  # (3, 1, n, pairs)
        if interleaved:
            mixed = Qwen3VLTextRotaryEmbedding.apply_interleaved_mrope(None, angles, sections)
            angles = mixed[None].expand(3, -1, -1, -1)
        both = torch.cat([angles, angles], dim=-1)
        return qwen25.apply_multimodal_rotary_pos_emb(q, k, both.cos(), both.sin(), sections)

    cases = dict(free=('free_pos', False), interleaved=('free_pos', True))
    cases |= {number: (f'pos_float_{number}', False) for number in numbers(arrays, 'q_')}
    for name, (places, interleaved) in cases.items():
        for letter, ours in zip('qk', rotated(arrays[places], interleaved)):
            yield f'{letter}_{name}', ours.cpu().numpy(), TOLERANCE


def vision_tower(arrays: dict[str, Tensor], device: str) -> Iterator[Row]:
    q, k = arrays['vision_q'].to(device), arrays['vision_k'].to(device)
    heads, head_dim = q.shape[1:]
    settings = Qwen2_5_VLVisionConfig(depth=0, hidden_size=heads * head_dim, num_heads=heads, out_hidden_size=8,
                                      window_size=int(arrays['settings'][6]))
    tower = qwen25.Qwen2_5_VisionTransformerPretrainedModel(settings)
    grids = arrays['vision_grid_thw']
    angles = tower.rot_pos_emb(grids)
    index, lengths = tower.get_window_index(grids)
    yield 'vision_freqs', angles.numpy(), TOLERANCE
    yield 'window_index', index.numpy(), 0
    yield 'cu_window_seqlens', np.array(lengths), 0
    both = torch.cat([angles, angles], dim=-1).to(device)
    for name, ours in zip(('vision_q_rot', 'vision_k_rot'), qwen25.apply_rotary_pos_emb_vision(q, k, both.cos(), both.sin())):
        yield name, ours.cpu().numpy(), TOLERANCE


def numbers(arrays: dict[str, Tensor], start: str) -> list[str]:
    return sorted(name.removeprefix(start) for name in arrays if name.startswith(start) and name.removeprefix(start).isdigit())
