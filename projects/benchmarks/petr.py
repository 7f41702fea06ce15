"""Benchmark, PETRv2. In: how often. Out: seconds and peak bytes of its embeddings, as published and as here.

Two frames of six cameras, R50 at 256 x 704, stride 16, 64 depths: from projected features to keys for the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from projects.geometry.rigid import compose
from projects.memfusion.queries.petrv2_embedding import EmbeddingSettings, ImageEmbedding
from projects.memfusion.structures import Calibration

from .fusion import car_ring
from .models import Row
from .peak_memory import measure_cases
from .petr_plain import PlainEmbedding

_DIM, _FRAMES = 256, 2
_PLAIN = 'embeddings, published order'
_QUIRKS = frozenset(['corner_cells', 'matrix_pixels', 'counted_views'])


@dataclass(frozen=True)
class Case:
    """How the keys are made: `kind` is plain, first (a rig not seen before) or again (the rig of the call before)."""

    kind: str
    cameras: int = 6
    training: bool = False
    quirks: frozenset[str] = _QUIRKS
    size: tuple[int, int] = (16, 44)


def build(case: Case) -> Callable[[], Any]:
    """A call that makes the keys once (with backward in training), on the GPU where there is one."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    rig = car_ring(case.cameras).to(device)
    features = torch.randn(1, _FRAMES * case.cameras, _DIM, *case.size, device=device, requires_grad=case.training)
    make = _plain(rig, device, case) if case.kind == 'plain' else _ours(rig, device, case)

    def call() -> Tensor:
        with torch.set_grad_enabled(case.training):
            keys = make(features)
            if case.training:
                keys.backward(torch.ones_like(keys))
        return keys

    return call


def _plain(rig: Calibration, device: str, case: Case) -> Callable[[Tensor], Tensor]:
    plain = PlainEmbedding(_DIM).to(device).train(case.training)

    def keys(features: Tensor) -> Tensor:
        views = replace(rig).views()
        matrices = compose(views.img_from_cam, views.cam_from_bev).repeat(1, _FRAMES, 1, 1)
        masks = torch.zeros(*features.shape[:2], *case.size, dtype=torch.bool, device=features.device)
        together = features + plain(features, matrices, masks, views.padded_hw).pos_embed
        return together.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()

    return keys


def _ours(rig: Calibration, device: str, case: Case) -> Callable[[Tensor], Tensor]:
    embedding = ImageEmbedding(_DIM, EmbeddingSettings(), case.quirks).to(device).train(case.training)

    def keys(features: Tensor) -> Tensor:
        if case.kind == 'first':
            embedding.forget()
        rigs = [replace(rig)] * _FRAMES
        cells = features.flatten(3).transpose(2, 3).split(case.cameras, dim=1)
        positions, _ = embedding(cells, rigs, case.size)
        return torch.cat([cell + position for cell, position in zip(cells, positions)], dim=1).flatten(1, 2)

    return keys


def measure_petr(repeats: int) -> list[Row]:
    """Time and peak memory of the embeddings, forward and with backward; then over cameras."""
    ours = frozenset[str]()
    rows = _measure({
        _PLAIN: Case('plain'), 'embeddings, rig seen first': Case('first'), 'embeddings, rig unchanged': Case('again'),
        'embeddings without the quirks, rig seen first': Case('first', quirks=ours)}, _PLAIN, 'forward', repeats)
    rows += _measure({
        _PLAIN: Case('plain', training=True), 'embeddings': Case('first', training=True),
        'embeddings without the quirks': Case('first', training=True, quirks=ours)}, _PLAIN, 'forward and backward', repeats)
    few = {f'embeddings, {count} cameras': Case('first', count) for count in (6, 3, 12)}
    return rows + _measure(few, 'embeddings, 6 cameras', 'forward', repeats)


def _measure(cases: Mapping[str, Case], baseline: str, note: str, repeats: int) -> list[Row]:
    return measure_cases(cases, build, lambda case: replace(case, cameras=1, size=(4, 11)), baseline, note, repeats)
