"""Benchmark, BEVFormer. In: how often. Out: seconds and peak bytes of its two attentions, in the published order and as here.

E 256, 8 heads, R50 at 256 x 704, one level at stride 16 with 8 points at 4 heights, six cameras; a BEV of 50 x 50 (that of the
published tiny model) and of 128 x 128 cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from projects.encodings.spatial_attention import SpatialCrossAttention
from projects.encodings.temporal_attention import TemporalSelfAttention
from projects.geometry import cell_positions

from .bevformer_plain import PlainSpatial, PlainTemporal
from .fusion import car_ring
from .models import Row
from .peak_memory import measure_cases

_DIM, _HEADS, _LEVEL, _STRIDE, _RANGE = 256, 8, (16, 44), 16, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
_HEIGHTS_M = (-4.5, -2.17, 0.17, 2.5)
BEV_SIZES = (50, 128)


@dataclass(frozen=True)
class Case:
    """What is computed: spatial or temporal attention, in the published order or ours, for how many cells, with backward?"""

    temporal: bool
    plain: bool
    bev_size: int
    training: bool = False
    quirks: bool = True


def build(case: Case) -> Callable[[], Tensor]:
    """A call of the case, on the GPU where there is one; queries with what they read (1, Q, E)."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cells = case.bev_size ** 2
    query, other = (torch.randn(1, cells, _DIM, device=device) for _ in range(2))
    query.requires_grad_(case.training)
    step = _temporal(case, query, other, device) if case.temporal else _spatial(case, query, device)

    def call() -> Tensor:
        with torch.set_grad_enabled(case.training):
            found = step()
            if case.training:
                found.backward(torch.ones_like(found))
        return found

    return call


def _temporal(case: Case, query: Tensor, past: Tensor, device: str) -> Callable[[], Tensor]:
    shape, position = (case.bev_size, case.bev_size), torch.randn(1, case.bev_size ** 2, _DIM, device=device)
    plain, shift = _random(PlainTemporal(_DIM, _HEADS, 4)).to(device), torch.tensor([[0.01, -0.02]], device=device)
    if case.plain:
        return partial(plain, query, position, shape, past, shift)
    ours = TemporalSelfAttention(_DIM, _HEADS, 4, published_quirks=case.quirks).to(device)
    ours.load_state_dict(plain.state_dict())
    return lambda: query + ours(query, position, shape, past, shift)


def _spatial(case: Case, query: Tensor, device: str) -> Callable[[], Tensor]:
    rig = car_ring(6).to(device)
    cells_m = cell_positions((case.bev_size, case.bev_size), _RANGE, torch.device(device)).flatten(0, 1).float()
    pillars = torch.cat([torch.cat([cells_m, torch.full_like(cells_m[:, :1], height)], 1) for height in _HEIGHTS_M])
    uv_px, depth_m, visible = (part.unflatten(2, (len(_HEIGHTS_M), -1)).transpose(2, 3) for part in rig.project(pillars[None]))
    covered = torch.tensor([side * _STRIDE for side in reversed(_LEVEL)], device=device)
    places = torch.where((depth_m > 0.1)[..., None], (uv_px + 0.5) / covered, -100.0)
    level = torch.randn(1, 6, _DIM, *_LEVEL, device=device)
    plain = _random(PlainSpatial(_DIM, 1, _HEADS, 8)).to(device)
    if case.plain:
        return partial(plain, query, [level], places, visible)
    ours = SpatialCrossAttention(_DIM, _DIM, 1, _HEADS, 8, len(_HEIGHTS_M), case.quirks).to(device)
    ours.load_state_dict(plain.state_dict())
    return lambda: query + ours(query, [level], ours.seen(places[..., None, :], visible))


def _random(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.data.normal_(std=0.05)
    return module


def measure_bevformer(repeats: int) -> list[Row]:
    """Time and peak memory of both attentions, forward and with backward.

    Raises:
        ValueError: where ours, with the published quirks, does not compute what the published order does.
    """
    rows = []
    for temporal, name in ((False, 'spatial'), (True, 'temporal')):
        found = [build(Case(temporal, plain, BEV_SIZES[0]))() for plain in (True, False)]
        apart = float((found[0] - found[1]).abs().max())
        if apart > 1e-3:
            raise ValueError(f"BEVFormer's {name} attention: the plain form and ours differ by {apart}")
        for size in BEV_SIZES:
            for training in (False, True):
                baseline = f'BEVFormer {name} attention, published order'
                cases = {baseline: Case(temporal, True, size, training),
                         f'BEVFormer {name} attention': Case(temporal, False, size, training)}
                note = f'BEV {size}, forward{" and backward" if training else ""}'
                rows += _measure(cases, baseline, note, repeats)
    return rows


def _measure(cases: Mapping[str, Case], baseline: str, note: str, repeats: int) -> list[Row]:
    return measure_cases(cases, build, lambda case: replace(case, bev_size=8), baseline, note, repeats)
