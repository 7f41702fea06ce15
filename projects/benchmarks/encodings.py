"""Benchmark, pose encodings. In: repeats. Out: seconds and peak memory of attention with and without, side by side.

900 object queries read 6 cameras of 16 x 44 tokens, 8 heads of 32 channels. Making matrices and angles is a part of each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.encodings import attention, build_encoding
from projects.encodings.view_sources import camera_views, query_views

from .fusion import car_ring
from .models import Row, interleave, rows_of
from .peak_memory import peak_bytes

_PLAIN, _HEADS, _DIM = 'plain attention', 8, 32
CASES: dict[str, dict[str, Any]] = {
    _PLAIN: dict(type='none'), 'PRoPE': dict(type='PRoPE', layout='P1/2 W1/4 H1/4'), 'CaPE6': dict(type='CaPE6'),
    'PoseALiBi, factored': dict(type='PoseALiBi', form='factored'), 'PoseALiBi, table': dict(type='PoseALiBi')}


@dataclass(frozen=True)
class Case:
    """What is measured: which of CASES, with backward or not, how many queries, rows and columns."""

    name: str
    training: bool = False
    queries: int = 900
    size: tuple[int, int] = (16, 44)


def inputs_of(case: Case) -> list[Tensor]:
    """Random queries, keys and values of 6 cameras, on the GPU where there is one."""
    device, generator = 'cuda' if torch.cuda.is_available() else 'cpu', torch.Generator().manual_seed(0)
    tokens = 6 * case.size[0] * case.size[1]
    return [torch.randn(1, _HEADS, count, _DIM, generator=generator).to(device).requires_grad_(case.training)
            for count in (case.queries, tokens, tokens)]


def build(case: Case) -> Callable[[], Tensor]:
    """A call that attends once, with backward in training."""
    (q, k, v), encoding = inputs_of(case), build_encoding(CASES[case.name])
    device = q.device
    views_k = camera_views(car_ring(6).to(device).views(), case.size)
    references = torch.randn(1, case.queries, 3, generator=torch.Generator().manual_seed(1)) * 20
    views_q = replace(query_views(references.to(device)), grid=torch.zeros(1, case.queries, 2, device=device))

    def call() -> Tensor:
        for part in (q, k, v):
            part.grad = None
        with torch.set_grad_enabled(case.training):
            read = (F.scaled_dot_product_attention(q, k, v) if case.name == _PLAIN
                    else attention(q, k, v, encoding, views_q, views_k))
            if case.training:
                read.backward(torch.ones_like(read))
        return read

    return call


def measure_encodings(repeats: int) -> list[Row]:
    """Forward, and forward with backward; peak memory with the inputs."""
    return [*_measure(tuple(CASES), False, repeats), *_measure((_PLAIN, 'PRoPE', 'PoseALiBi, factored'), True, repeats)]


def _measure(names: tuple[str, ...], training: bool, repeats: int) -> list[Row]:
    cases = {name: Case(name, training) for name in names}
    seconds = interleave({name: build(case) for name, case in cases.items()}, repeats)
    given = sum(part.nbytes for part in inputs_of(cases[_PLAIN]))
    peaks = {name: given + peak_bytes(partial(build, replace(case, queries=9, size=(2, 4))), partial(build, case))
             for name, case in cases.items()}
    note = 'forward and backward' if training else 'forward'
    return [Row(row.name, row.seconds, row.low, row.high, _PLAIN, row.ratio,
                f'{note}; {peaks[row.name] / 1e6:.1f} MB with inputs ({peaks[row.name] / peaks[_PLAIN]:.2f}x)')
            for row in rows_of(seconds, _PLAIN)]
