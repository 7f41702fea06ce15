"""Forecasting: agents' features from memory. In: frames of clips and Agents. Out: (B, A, H, F), flags (B, A, H).

Memory networks come through the registry (`AgentStream`), so that their stage is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.geometry import Surroundings
from projects.memfusion.structures import Agents

from .agent_masks import AgentMasks, bev_masks, image_masks
from .pooling import AgentPooling

SOURCES = ('rasters', 'camera')
STATES = ('sensory', 'readout')


@MODELS.register_module()
class MemoryAgentFeatures(BaseModule):
    """XMem streams over BEV rasters or one camera's images with one mask per agent; what it holds of each agent is pooled.

    Args:
        stream: the memory, e.g. dict(type='AgentStream', network=dict(type='ImageMemoryNetwork', in_channels=3, adapter=False,
            bev_shape=(H, W))).
        source: 'rasters' (`inputs['rasters']`) or 'camera' (`inputs['imgs']` with `inputs['calibration']`).
        point_cloud_range: of the rasters, metres; not used with a camera.
        camera: position of the camera among those of the rig.
        pooling: one of POOLINGS.
        around: settings of Surroundings, for pooling='around': which points around each agent are looked at.
        states: any of 'sensory' and 'readout': what is pooled, side by side.
    """

    def __init__(
        self,
        stream: dict,
        source: str = 'rasters',
        point_cloud_range: Sequence[float] | None = None,
        camera: int = 0,
        pooling: str = 'masked',
        states: Sequence[str] = ('sensory',),
        around: Mapping[str, Sequence[float]] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if source not in SOURCES or not states or not set(states) <= set(STATES):
            raise ValueError(f'MemoryAgentFeatures: source must be one of {SOURCES} and states some of {STATES}, got '
                             f'{source!r} and {tuple(states)}')
        if source == 'rasters' and point_cloud_range is None:
            raise ValueError("MemoryAgentFeatures: source='rasters' needs their point_cloud_range")
        if source == 'camera' and pooling == 'around':
            raise ValueError("MemoryAgentFeatures: pooling='around' looks at places on the ground, which source='camera' does "
                             "not show from above: take pooling='masked', or source='rasters'")
        self.stream: Any = MODELS.build(stream)
        self.source, self.camera, self.states = source, camera, tuple(states)
        self.point_cloud_range = point_cloud_range
        widths = dict(sensory=self.stream.hidden_dim, readout=self.stream.value_dim)
        self.pooling = AgentPooling(pooling, sum(widths[name] for name in self.states), Surroundings.of(pooling, around))
        self.dim = self.pooling.dim

    def forward(self, inputs: Mapping[str, Any], agents: Agents) -> tuple[Tensor, Tensor]:
        """Features of each agent in each frame, oldest first, and 1 where its mask was not empty.

        Args:
            inputs: of B clips of T = H frames: `clip_shape`, `rasters` (B, T, 3, h, w); or `imgs` and `calibration` of the V
                valid frames, `frame_valid`.

        Raises:
            ValueError: naming the input that is missing, or histories of another length than the clips.
        """
        maps, places = self.remember(inputs, agents)
        return self.pooling(maps, *places)

    def remember(self, inputs: Mapping[str, Any],
                 agents: Agents) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Maps (B, T, A, C, h, w) of each agent's memory, and where to pool them: what AgentPooling takes after them."""
        length = inputs['clip_shape'][1]
        if agents.num_frames != length:
            raise ValueError(f'the clips hold {length} frames, but the agents have histories of {agents.num_frames}')
        frames, where = self._frames(inputs, agents)
        memory = self.stream(frames, where.masks, where.there)
        maps = torch.cat([getattr(memory, name) for name in self.states], dim=3)
        shape = frames.shape[-2], frames.shape[-1]
        centers = self.stream.place(where.centers_px, shape)
        around = None if where.around_px is None else self.stream.place(where.around_px, shape)
        return maps, (self.stream.cover(where.masks), centers, where.there, around)

    def _frames(self, inputs: Mapping[str, Any], agents: Agents) -> tuple[Tensor, AgentMasks]:
        """(B, T, 3, H, W) and where the agents are in them."""
        if self.source == 'rasters':
            rasters = _needed(inputs, 'rasters', 'put RasterizePoints into the pipeline of the data set')
            assert self.point_cloud_range is not None
            shape = rasters.shape[-2], rasters.shape[-1]
            return rasters, bev_masks(agents, self.point_cloud_range, shape, self.pooling.around)
        images = _needed(inputs, 'imgs', 'load the cameras in the pipeline of the data set')
        batch, length = inputs['clip_shape']
        rows = [row for row, valid in enumerate(inputs['frame_valid']) if valid]
        place = {row: at for at, row in enumerate(rows)}
        picked = [place.get(row, 0) for row in range(batch * length)]  # padding shows any frame: no agent is in it
        frames = images[:, self.camera].index_select(0, torch.tensor(picked).to(images.device, non_blocking=True))
        rig = inputs['calibration'].select(picked)
        shape = (frames.shape[-2], frames.shape[-1])
        return frames.unflatten(0, (batch, length)), image_masks(agents, rig, self.camera, shape)


def _needed(inputs: Mapping[str, Any], name: str, remedy: str) -> Tensor:
    if name not in inputs:
        raise ValueError(f'MemoryAgentFeatures needs {name}, which the batch does not have: {remedy}')
    return inputs[name]
