"""Replays CaPE with six degrees of freedom: any sizes and cameras; transformed features and their products."""

from __future__ import annotations

from pathlib import Path

import torch
from replays.compare import difference, read_arrays

from projects.encodings import Views, build_encoding

TOLERANCE = 1e-10
OUTPUTS = ('tq', 'tk', 'score')


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    arrays = read_arrays(path, ('f_q', 'f_k', 'p_q', 'p_k'), OUTPUTS)
    published = {name: arrays.pop(name) for name in OUTPUTS if name in arrays}
    given = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
    encoding = build_encoding(dict(type='CaPE6', convention='eschernet', reference='world', trans_scale=1.0))
    sides = (Views(given[name], validate=False) for name in ('p_q', 'p_k'))
    bound = encoding.bind(*sides, 1, given['f_q'].shape[-1])
    tq, tk = bound.queries(given['f_q'][:, None])[:, 0], bound.keys(given['f_k'][:, None])[:, 0]
    ours = dict(tq=tq, tk=tk, score=tq @ tk.transpose(-1, -2))
    return [(name, difference(ours[name].cpu().numpy(), value, TOLERANCE)) for name, value in published.items()]
