"""Benchmark, CMT. In: how often. Out: seconds and peak bytes of its embeddings and of the whole head, as published and as here.

R50 at 256 x 704, stride 16, 64 depths, 900 queries, six layers; BEV 128 x 128 where there is LiDAR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from projects.geometry.rigid import compose
from projects.memfusion.queries.cmt_head import CMTHead
from projects.memfusion.structures import Readout, SceneFeatures

from .cmt_plain import PlainCMT, PlainSizes
from .fusion import car_ring
from .models import Row
from .peak_memory import measure_cases

_SETTING = '900 queries, 6 layers'
_EMBEDDINGS, _HEAD = 'CMT embeddings, published order', 'CMT head, published order'


@dataclass(frozen=True)
class Case:
    """What is computed.

    Attributes:
        kind: 'plain', 'first' (a rig not seen before) or 'again' (the rig of the call before).
        embeddings: those alone, of image cells, BEV cells and queries; else the whole head.
        bev_size: BEV cells a side; 0 for cameras only.
        cameras, size: cameras, and the cells of their feature maps.
        training: with backward.
        quirks: those of the published code, which the plain form has.
        sizes: of the head; without bev_channels it has cameras only.
    """

    kind: str
    embeddings: bool = False
    bev_size: int = 128
    cameras: int = 6
    training: bool = False
    quirks: bool = True
    size: tuple[int, int] = (16, 44)
    sizes: PlainSizes = PlainSizes(bev_channels=384)

    def small(self) -> Case:
        """One that warms up."""
        return replace(self, bev_size=min(self.bev_size, 8), cameras=1, size=(4, 11))


def build(case: Case) -> Callable[[], Any]:
    """A call of the case, on the GPU where there is one; it gives embeddings, or logits and codes."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    sizes = case.sizes if case.bev_size else replace(case.sizes, bev_channels=None)
    plain = PlainCMT(sizes).to(device).eval()
    rig = car_ring(case.cameras).to(device)
    level = torch.randn(1, case.cameras, sizes.dim, *case.size, device=device, requires_grad=case.training)
    bev = None if not case.bev_size else torch.randn(1, sizes.bev_channels or 1, case.bev_size, case.bev_size, device=device)
    if case.kind == 'plain':
        views = rig.views()
        matrices = compose(views.img_from_cam, views.cam_from_bev)
        step = partial(_plain_step, plain, level, matrices, views.padded_hw, bev, case)
    else:
        head = CMTHead(
            sizes.num_classes, sizes.pc_range,
            dict(img_channels=sizes.dim, bev_channels=sizes.bev_channels, ladder='linear', num_depths=sizes.num_depths),
            dict(dim=sizes.dim, num_queries=sizes.num_queries, num_layers=sizes.num_layers, num_heads=sizes.num_heads,
                 ffn_dim=sizes.ffn_dim, branch_dim=sizes.branch_dim), published_quirks=case.quirks).to(device)
        head.load_state_dict(plain.state_dict())
        step = partial(_our_step, head.eval(), SceneFeatures(bev, (level,), rig), case)

    def call() -> list[Tensor]:
        with torch.set_grad_enabled(case.training):
            found = step()
            if case.training:
                torch.autograd.backward(found, [torch.ones_like(one) for one in found])
        return found

    return call


def _plain_step(plain: PlainCMT, level: Tensor, matrices: Tensor, padded_hw: tuple[int, int], bev: Tensor | None,
                case: Case) -> list[Tensor]:
    if case.embeddings:
        found = plain.embed(level.shape[-2:], matrices, padded_hw)
        parts = [found['img_pe'].flatten(0, 2)[None], found['query_embed']]
        return parts if bev is None else [*parts, plain.bev_embedding(plain.bev_cells(bev.shape[2:], bev.device)[1])]
    found = plain(level, matrices, padded_hw, bev)
    codes = torch.cat([found[f'head_{name}'] for name in ('center', 'height', 'dim', 'rot', 'vel')], dim=-1)
    return [found['head_cls_logits'], codes] if case.training else [found['head_cls_logits'][-1], codes[-1]]


def _our_step(head: CMTHead, features: SceneFeatures, case: Case) -> list[Tensor]:
    if case.kind == 'first':
        head.forget_rig()
    if case.embeddings:
        rig: Any = head.pixel_rig(features)
        parts = [head.cell_positions(rig, case.size), head.query_positions(head.reference_points(1), rig)]
        return parts if features.bev is None else [*parts, head.bev_embedding.of_cells((case.bev_size, case.bev_size))]
    found = head.decode_queries(features, Readout(), None)
    return [found.logits, found.codes] if case.training else [found.logits[-1], found.codes[-1]]


def measure_cmt(repeats: int) -> list[Row]:
    """Time and peak memory of the embeddings and of the head, forward and with backward; then over cameras.

    Raises:
        ValueError: where ours, with the published quirks, does not compute what the published order does.
    """
    apart = max(float((one - other).abs().max()) for one, other in zip(build(Case('plain'))(), build(Case('first'))()))
    if apart > 5e-3:
        raise ValueError(f'the plain form and ours differ by {apart}: they do not compute the same')
    embeddings = {_EMBEDDINGS: Case('plain', True), 'embeddings, rig seen first': Case('first', True),
                  'embeddings, rig unchanged': Case('again', True),
                  'embeddings without the quirks, rig seen first': Case('first', True, quirks=False)}
    rows = _measure(embeddings, _EMBEDDINGS, 'forward', repeats)
    rows += _measure({name: replace(case, training=True) for name, case in embeddings.items() if case.kind != 'again'},
                     _EMBEDDINGS, 'forward and backward', repeats)
    head = {_HEAD: Case('plain'), 'CMT head, rig seen first': Case('first'), 'CMT head, rig unchanged': Case('again'),
            'CMT head without the quirks, rig unchanged': Case('again', quirks=False)}
    rows += _measure(head, _HEAD, f'forward; {_SETTING}; largest difference {apart:.1g}', repeats)
    cameras = {name: replace(case, bev_size=0) for name, case in head.items()}
    rows += _measure(cameras, _HEAD, f'forward, cameras only; {_SETTING}', repeats)
    few = {f'CMT head, {count} cameras': Case('again', bev_size=0, cameras=count) for count in (6, 3, 12)}
    return rows + _measure(few, next(iter(few)), f'forward, cameras only; {_SETTING}', repeats)


def _measure(cases: Mapping[str, Case], baseline: str, note: str, repeats: int) -> list[Row]:
    return measure_cases(cases, build, Case.small, baseline, note, repeats)
