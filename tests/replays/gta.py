"""Replays GTA's attention: any sizes, cameras, channels, factors; outputs, attention weights, rotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from replays.compare import difference, read_arrays
from torch import Tensor

from projects.encodings import Views, attention, build_encoding

TOLERANCE = 1e-10
INPUTS = ('q', 'k', 'v', 'extrinsic', 'coord', 'settings', 'trans_coeff')
CROSS = ('cross_extrinsic', 'cross_k', 'cross_v')
OUTPUTS = ('out', 'attn', 'out_unit', 'out_qk_only', 'out_se3_only', 'out_cross', 'attn_cross', 'so2rep')


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    arrays = read_arrays(path, INPUTS, (*CROSS, *OUTPUTS))
    published = {name: arrays.pop(name) for name in OUTPUTS if name in arrays}
    given = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
    ours = outputs_of(given)
    return [(name, difference(ours[name].detach().cpu().numpy(), value, TOLERANCE)) for name, value in published.items()]


def outputs_of(given: dict[str, Tensor]) -> dict[str, Tensor]:
    rows, columns, _, *rest = given['settings'].tolist()
    factors, (untouched, of_poses, turned) = rest[:2], (int(number) for number in rest[2:])
    parts = [f'{letters}{size}' for letters, size in (('I', untouched), ('P', of_poses), ('HW', turned)) if size]
    layout, grid = ' '.join(parts), (int(rows), int(columns))
    settings: dict[str, Any] = dict(layout=layout, rotary=dict(scale=(0.0, -factors[0], -factors[1])))
    heads = [given[name] for name in 'qkv']

    def views_of(extrinsic: Tensor, factor: Tensor) -> Views:
        """With lengths times the file's factor, which may be 0 or negative, as no setting of ours may."""
        lengths = torch.stack([factor, factor, factor, one])[:, None]
        scaled = torch.cat([extrinsic[..., :3], extrinsic[..., 3:] * lengths], dim=-1)
        return Views(scaled, grid=grid, validate=False)

    coefficient = given['trans_coeff'].reshape(())
    one = torch.ones_like(coefficient)
    views, unit = views_of(given['extrinsic'], coefficient), views_of(given['extrinsic'], one)
    full = encoding_of(settings)
    ours = dict(
        out=attention(*heads, full, views, views), attn=weights(heads[0], heads[1], full, views, views),
        out_unit=attention(*heads, full, unit, unit),
        out_qk_only=attention(*heads, encoding_of(settings, values=False), views, views),
        out_se3_only=attention(*heads, encoding_of(settings, layout=f'P{heads[0].shape[-1]}'), views, views))
    if turned:
        pairs = full.bind(views, None, heads[0].shape[1], heads[0].shape[3]).side_q
        cos, sin = (part[0, 0, 0, :, -int(turned)::2] for part in (pairs.cos, pairs.sin))
        ours['so2rep'] = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    if 'cross_k' in given:
        others = views_of(given['cross_extrinsic'], coefficient)
        ours['out_cross'] = attention(heads[0], given['cross_k'], given['cross_v'], full, views, others)
        ours['attn_cross'] = weights(heads[0], given['cross_k'], full, views, others)
    return ours


def encoding_of(settings: dict[str, Any], **changed: Any) -> Any:
    return build_encoding({'type': 'GTA', 'trans_scale': 1.0, **settings, **changed}).double()


def weights(q: Tensor, k: Tensor, encoding: Any, views_q: Views, views_k: Views) -> Tensor:
    bound = encoding.bind(views_q, views_k, q.shape[1], q.shape[3])
    return (bound.queries(q) @ bound.keys(k).transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
