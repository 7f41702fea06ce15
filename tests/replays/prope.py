"""Replays PRoPE's attention: any sizes, cameras, patch grids, frequencies; transformed heads and outputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from replays.compare import difference, read_arrays
from torch import Tensor

from projects.encodings import Views, attention, build_encoding

TOLERANCE = 1e-10
seen_from = partial(Views, validate=False)  # published numbers may have been made with any K and poses
INPUTS = ('q', 'k', 'v', 'viewmats', 'Ks', 'settings')
OF_TOKENS, CROSS = ('viewmats_tok', 'Ks_tok'), ('cross_k', 'cross_v', 'cross_viewmats', 'cross_Ks')
OUTPUTS = ('out_K', 'out_noK', 'out_K_causal', 'out_K_freq', 'out_tok_K', 'out_tok_noK', 'out_cross',
           *(f't{name}_{kind}' for name in 'qkv' for kind in ('K', 'noK')))


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    arrays = read_arrays(path, INPUTS, (*OF_TOKENS, *CROSS, 'freq', *OUTPUTS))
    numbers = [int(number) for number in arrays['settings']]
    published = {name: arrays.pop(name) for name in OUTPUTS if name in arrays}
    given = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
    ours = outputs_of(given, numbers)
    return [(name, difference(ours[name].cpu().numpy(), value, TOLERANCE)) for name, value in published.items()]


def outputs_of(given: dict[str, Tensor], numbers: list[int]) -> dict[str, Tensor]:
    columns, rows, width, height = numbers[:4]
    image, grid = (height, width), (rows, columns)
    heads = [given[name] for name in 'qkv']
    plain = encoding_of()
    seen = {'K': seen_from(given['viewmats'], given['Ks'], image, grid), 'noK': seen_from(given['viewmats'], None, None, grid)}
    ours = {}
    for kind, views in seen.items():
        bound = plain.bind(views, None, heads[0].shape[1], heads[0].shape[3])
        ours |= {f'tq_{kind}': bound.queries(heads[0]), f'tk_{kind}': bound.keys(heads[1]),
                 f'tv_{kind}': bound.values(heads[2]), f'out_{kind}': attention(*heads, plain, views, views)}
    ours['out_K_causal'] = attention(*heads, plain, seen['K'], seen['K'], is_causal=True)
    if 'freq' in given:
        base, scale = given['freq'].tolist()
        ours['out_K_freq'] = attention(*heads, encoding_of(base=base, scale=scale), seen['K'], seen['K'])
    if 'viewmats_tok' in given:
        for kind, intrinsics in (('K', given['Ks_tok']), ('noK', None)):
            views = seen_from(given['viewmats_tok'], intrinsics, None if intrinsics is None else image, grid, per='token')
            ours[f'out_tok_{kind}'] = attention(*heads, plain, views, views)
    if 'cross_k' in given:
        views = seen_from(given['cross_viewmats'], given['cross_Ks'], image, (numbers[5], numbers[4]))
        ours['out_cross'] = attention(heads[0], given['cross_k'], given['cross_v'], plain, seen['K'], views)
    return ours


def encoding_of(**rotary: float) -> Any:
    """As published: poses as they are given."""
    return build_encoding(dict(type='PRoPE', reference='world', trans_scale=1.0, rotary=rotary, published_quirks=True))
