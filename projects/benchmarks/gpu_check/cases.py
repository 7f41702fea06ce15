"""Benchmark. In: a device. Out: what geometry, encodings, fusion and memory make there of the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

import projects.memfusion.fusion
import projects.memfusion.losses.occupancy_loss
import projects.memfusion.memory  # noqa: F401 - these three register what is built
from projects.common.build import build_from
from projects.encodings import Views, attention, build_encoding
from projects.encodings.multihead import CrossAttention
from projects.encodings.view_sources import camera_views, query_views
from projects.geometry import invert_rigid, transform_points, warp_bev
from projects.memfusion.memory.similarity import read_memory
from projects.memfusion.structures import SceneFeatures

from .inputs import BEV_CELLS, IMAGE, RANGE, STRIDE, Draw, rig, time_step

FRAMES = 3
BEV_CHANNELS, IMG_CHANNELS = 12, 8
FUSIONS: dict[str, dict[str, Any]] = {
    'futr': dict(type='FuTr', dim=16, num_heads=4, bev_grid=(4, 4)),
    'futr++': dict(type='FuTrPlusPlus', tokens=dict(grid=2, dim=16), sample=dict(num_heads=4, num_points=2),
                   select=dict(kind='all'),  # rounding would select other cells
                   calib_refine=dict(kind='pose', grid=(2, 4), hidden_channels=8, depths_m=(4.0, 8.0))),
}
POSES: dict[str, dict[str, Any]] = {
    'PRoPE': dict(type='PRoPE'), 'PoseALiBi': dict(type='PoseALiBi', form='factored')}
NETWORK = dict(type='BEVMemoryNetwork', in_channels=BEV_CHANNELS, key_dim=16, value_dim=16, hidden_dim=16, feature_dim=16,
               memory_stride=2)
XMEM = dict(type='TemporalMemory', network=NETWORK, loss_occ=dict(type='OccupancyLoss'))
MEMORIES: dict[str, dict[str, Any]] = {
    'gate': dict(XMEM, readout=dict(type='GateReadout')),
    'residual, top-k': dict(XMEM, readout=dict(type='ResidualReadout'), top_k=20),
    'conv-gru': dict(type='ConvGRUFusion', in_channels=BEV_CHANNELS, hidden_dim=16),
    'stack': dict(type='StackFusion', in_channels=BEV_CHANNELS, hidden_dim=16),
    'copy': dict(type='CopyMemory', in_channels=BEV_CHANNELS, value_dim=8, num_slots=1, long_term=True),
}


@dataclass(frozen=True)
class Case:
    """make(draw) -> a call that gives tensors.

    Attributes:
        make: builds what is needed; the call can be repeated.
        exact: whether no precision that the user allows elsewhere may change a bit of it.
        waits: how often a GPU may wait in one call; None is not limited.
    """

    make: Callable[[Draw], Callable[[], Tensor]]
    exact: bool = False
    waits: int | None = None

    def value(self, device: str) -> Tensor:
        """What the call gives, without gradients."""
        with torch.no_grad():
            return self.make(Draw(device))()

    def results(self, device: str) -> list[Tensor]:
        """What the call gives, and the gradients of everything that was drawn for it; on the CPU."""
        draw = Draw(device)
        out = self.make(draw)()
        out.square().mean().backward()
        return [result.detach().cpu() for result in (out, *(drawn.grad for drawn in draw.drawn)) if result is not None]


def _read(draw: Draw, top_k: int | None = None) -> Callable[[], Tensor]:
    query, memory = [draw(2, 32, 512) for _ in range(2)], [draw(2, 32, 1024), draw(2, 1, 1024), draw(2, 32, 1024)]

    def run() -> Tensor:
        readout = read_memory(query[0], query[1].sigmoid(), memory[0], memory[1].square() + 1, memory[2], top_k=top_k)
        assert isinstance(readout, Tensor)  # no usage was asked for
        return readout

    return run


def _warp(draw: Draw) -> Callable[[], Tensor]:
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    bev, pose = draw(2, 16, BEV_CELLS, BEV_CELLS), pose.to(draw.device)
    return lambda: warp_bev(bev, pose, RANGE)


def _rigid(draw: Draw) -> Callable[[], Tensor]:
    pose, points = draw(4, 4), draw(1000, 3)
    return lambda: transform_points(invert_rigid(pose), 50 * points)


def _project(draw: Draw) -> Callable[[], Tensor]:
    calibration, points = rig(2, 1, draw.device), draw(1, 2000, 3)
    return lambda: calibration.project(30 * points)[0].clamp(-1e4, 1e4)


def _unproject(draw: Draw) -> Callable[[], Tensor]:
    calibration, pixels = rig(2, 1, draw.device), draw(1, 2, 500, 2)
    return lambda: calibration.unproject(40 * pixels, torch.full((1, 2, 500), 20.0, device=draw.device))




def _attention(draw: Draw) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    layer, query, context = draw.weights(CrossAttention(32, 4)), draw(2, 100, 32), draw(2, 50, 32)
    valid = (torch.arange(50) < 40).expand(2, -1).to(draw.device)
    return lambda: layer(query, context, valid)


def _pose_transforms(draw: Draw) -> Callable[[], Tensor]:
    """Queries with poses of their own, keys and values of cameras, what is read; lengths by a number that learns."""
    queries, keys, views_q, views_k = _posed_heads(draw)
    encoding: Any = draw.weights(build_encoding(dict(type='PRoPE', trans_norm='learned')))

    def run() -> Tensor:
        bound = encoding.bind(views_q, views_k, *queries.shape[1::2])
        return torch.cat([bound.queries(queries), bound.keys(keys), bound.values(keys), bound.outputs(queries)], dim=2)

    return run


def _pose_attention(draw: Draw, settings: dict[str, Any]) -> Callable[[], Tensor]:
    queries, keys, views_q, views_k = _posed_heads(draw)
    encoding: Any = build_encoding(settings).to(draw.device)
    return lambda: attention(queries, keys, keys, encoding, views_q, views_k)


def _posed_heads(draw: Draw) -> tuple[Tensor, Tensor, Views, Views]:
    queries, keys = draw(2, 4, 20, 32), draw(2, 4, 12, 32)
    places = 10 * torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(2)).to(draw.device)
    views_q = replace(query_views(places, places[..., 0]), grid=torch.zeros(1, 20, 2, device=draw.device))
    return queries, keys, views_q, camera_views(rig(2, 2, draw.device).views(), (2, 3))


def _fuse(draw: Draw, settings: dict[str, Any], cameras: int) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    layer = draw.weights(build_from(MODELS, dict(
        settings, bev_channels=BEV_CHANNELS, img_channels=IMG_CHANNELS, point_cloud_range=RANGE, strides=(STRIDE,))).eval())
    bev = draw(2, BEV_CHANNELS, BEV_CELLS, BEV_CELLS)
    level = draw(2, cameras, IMG_CHANNELS, *(side // STRIDE for side in IMAGE))
    calibration = rig(cameras, 2, draw.device)
    return lambda: layer(bev, [level], calibration)


def _remember(draw: Draw, settings: dict[str, Any]) -> Callable[[], Tensor]:
    """All frames of two scenes, one step each."""
    torch.manual_seed(0)
    module: Any = draw.weights(build_from(MODELS, dict(settings, point_cloud_range=RANGE)).eval())
    bevs = [draw(2, BEV_CHANNELS, BEV_CELLS, BEV_CELLS) for _ in range(FRAMES)]
    seen = [bev.detach()[:, :1] > 0 for bev in bevs]
    steps = [time_step(index, 2, draw.device) for index in range(FRAMES)]

    def run() -> Tensor:
        state, outputs = module.init_state(SceneFeatures(bevs[0])), []
        for bev, observed, frames in zip(bevs, seen, steps):
            aligned = module.align(state, frames)
            readout = module.read(aligned, SceneFeatures(bev, observed=observed), frames)
            state = module.write(aligned, readout, None, frames)
            outputs.append(readout.bev)
        return torch.stack(outputs)

    return run


CASES: dict[str, Case] = {
    'geometry: warp': Case(_warp, exact=True),
    'geometry: rigid': Case(_rigid, exact=True),
    'geometry: project': Case(_project, exact=True),
    'geometry: unproject': Case(_unproject, exact=True),
    'encodings: attention': Case(_attention),
    'encodings: transforms by pose': Case(_pose_transforms, exact=True, waits=0),
    **{f'encodings: {name}': Case(partial(_pose_attention, settings=settings), waits=0) for name, settings in POSES.items()},
    **{f'fusion: {name}, {cameras} cameras': Case(partial(_fuse, settings=settings, cameras=cameras), waits=4)
       for name, settings in FUSIONS.items() for cameras in (2, 6)},
    'memory: read': Case(_read, exact=True),
    'memory: read, top-k': Case(partial(_read, top_k=16), exact=True),
    **{f'memory: {name}': Case(partial(_remember, settings=settings), waits=12 * FRAMES)
       for name, settings in MEMORIES.items()},
}
