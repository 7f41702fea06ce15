"""Replays the rotary layouts of Qwen2.5-VL and Qwen3-VL with projects/encodings: text heads, the vision tower."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from projects.encodings import build_encoding
from projects.encodings.view_sources import unposed_views

TOLERANCE, VISION_BASE, MERGE = 1e-5, 10000.0, 2
Row = tuple[str, Any, float]


def rotary_rows(arrays: Mapping[str, Tensor], device: str) -> Iterator[Row]:
    base, sections = float(arrays['settings'][3]), tuple(int(number) for number in arrays['settings'][7:10])
    heads = [arrays[name].to(device) for name in 'qk']
    cases = dict(free=('free_pos', 'sections'), interleaved=('free_pos', 'interleaved'))
    cases |= {name[2:]: (f'pos_float_{name[2:]}', 'sections') for name in filter(re.compile(r'q_\d+').fullmatch, arrays)}
    for name, (places, mix) in cases.items():
        cfg = dict(type='RoPE-THW', rotary=dict(base=base, scale=-1.0, sections=sections, mix=mix))
        for part, found in zip('qk', turn(heads, arrays[places].to(device), cfg)):
            yield f'{part}_{name}', found.cpu().numpy(), TOLERANCE
    yield from vision_rows(arrays, device)


def turn(heads: list[Tensor], positions: Tensor, cfg: dict[str, Any]) -> list[Tensor]:
    """(B, heads, S, d) each, at (3, B, S) times, rows and columns."""
    views = unposed_views(*positions.shape[1:], device=positions.device, grid=positions[1:].permute(1, 2, 0), time=positions[0])
    encoding = build_encoding(cfg)
    return [encoding.bind(views, None, *part.shape[1::2]).queries(part) for part in heads]


def vision_rows(arrays: Mapping[str, Tensor], device: str) -> Iterator[Row]:
    """Rows and columns in the order in which patches are packed: merge x merge blocks, repeated for each time."""
    places = []
    for time, rows, columns in arrays['vision_grid_thw'].tolist():
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij')
        blocks = torch.stack([y, x], -1).unflatten(1, (-1, MERGE)).unflatten(0, (-1, MERGE)).transpose(1, 2)
        places.append(blocks.reshape(-1, 2).repeat(time, 1))
    y, x = torch.cat(places).to(device).unbind(-1)
    cfg = dict(type='RoPE-HW', rotary=dict(base=VISION_BASE, scale=-1.0, mix='each'))
    heads = [arrays[f'vision_{name}'].to(device).transpose(0, 1)[None] for name in 'qk']
    for name, found in zip('qk', turn(heads, torch.stack([torch.zeros_like(y), y, x])[:, None], cfg)):
        yield f'vision_{name}_rot', found[0].transpose(0, 1).cpu().numpy(), TOLERANCE
