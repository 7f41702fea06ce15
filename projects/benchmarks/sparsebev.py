"""Benchmark, SparseBEV. In: repeats. Out: seconds and peak bytes of its sampling and mixing, ours and the plain form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.memfusion.queries.sampled_frames import PastFrame
from projects.memfusion.queries.sparsebev_head import QUIRKS, start_boxes
from projects.memfusion.queries.sparsebev_layer import LayerSettings, SparseBEVLayer

from .fusion import car_ring
from .models import Row
from .peak_memory import measure_cases
from .sparsebev_plain import plain_mixing, plain_sampling, regrouped

PLAIN = 'SparseBEV sampling and mixing, published order'
_RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
_STRIDES, _IMAGE_HW = (4, 8, 16, 32), (256, 704)


@dataclass(frozen=True)
class Case:
    """What is computed: `layers` times sampling and mixing, at the published R50 setting but for what is said here."""

    kind: str
    frames: int = 8
    cameras: int = 6
    side: int = 30
    layers: int = 6

    def small(self) -> Case:
        """One that warms up."""
        return Case(self.kind, 2, self.cameras, 4, 1)


@torch.no_grad()
def build(case: Case) -> Callable[[], Tensor]:
    """A call of the case, without gradient, on the GPU where there is one.

    Args:
        case: kind 'plain' is the published order, 'published' ours with all of the published quirks, 'ours' without.
    """
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    settings = LayerSettings()
    layer = SparseBEVLayer(settings, 10, case.frames, False, _RANGE, () if case.kind == 'ours' else QUIRKS).to(device).eval()
    torch.nn.init.normal_(layer.mixing.parameter_generator.weight, std=0.02)
    rig = car_ring(case.cameras).to(device)
    shape = (1, case.frames, case.cameras, settings.dim)
    levels = [torch.randn(*shape, *(size // stride for size in _IMAGE_HW), device=device) for stride in _STRIDES]
    gaps_s = 0.5 * torch.arange(case.frames, device=device)[None]
    boxes = start_boxes(case.side).to(device)[None]
    query = torch.randn(1, case.side ** 2, settings.dim, device=device)
    frames = [PastFrame(tuple(level[:, t] for level in levels), rig, gaps_s[:, t].double(), (True,))
              for t in range(case.frames)]
    matrices = rig.img_from_lidar[:, None].expand(-1, case.frames, -1, -1, -1)

    @torch.no_grad()
    def plain() -> Tensor:
        regroup = regrouped(levels, settings.num_groups)
        answer = query
        for _ in range(case.layers):
            answer = plain_mixing(
                layer.mixing, plain_sampling(layer.sampling, boxes, query, regroup, matrices, _IMAGE_HW, gaps_s), query)
        return answer

    @torch.no_grad()
    def ours() -> Tensor:
        answer = query
        for _ in range(case.layers):
            answer = layer.mixing(layer.sampling(boxes, query, frames, gaps_s, None), query)
        return answer

    return plain if case.kind == 'plain' else ours


def measure_sparsebev(repeats: int) -> list[Row]:
    """Time and peak memory of sampling and mixing in six layers, 900 queries, 8 frames of 6 cameras; then over cameras.

    Raises:
        ValueError: where ours, with the published quirks, does not compute what the published order does.
    """
    apart = (build(Case('plain', layers=1))() - build(Case('published', layers=1))()).abs().max().item()
    if apart > 1e-3:
        raise ValueError(f'the plain form and ours differ by {apart}: they do not compute the same')
    cases = {PLAIN: Case('plain'), 'the same arithmetic, ours': Case('published'),
             'ours without the published quirks': Case('ours')}
    rows = _measure(cases, PLAIN, f'6 layers, 900 queries, 8 frames; largest difference {apart:.1g}', repeats)
    few = {f'SparseBEV sampling and mixing, {cameras} cameras': Case('ours', cameras=cameras, layers=2)
           for cameras in (6, 3, 12)}
    return rows + _measure(few, next(iter(few)), '2 layers, 900 queries, 8 frames', repeats)


def _measure(cases: Mapping[str, Case], baseline: str, note: str, repeats: int) -> list[Row]:
    return measure_cases(cases, build, Case.small, baseline, note, repeats)
