"""Forecasting: agents' features from a trained detector. In: its inputs and Agents. Out: (B, A, H, F), flags (B, A, H).

Detector and memory come through the registry. Clips lie in their last frame's coordinates (align='loader'), as agents do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.geometry import Surroundings, pool_adaptive
from projects.memfusion.structures import Agents
from projects.memfusion.structures.detected_agents import match_detections

from .agent_masks import bev_masks
from .pooling import AgentPooling

AGENTS_FROM = ('truth', 'detections')


@MODELS.register_module()
class DetectorAgentFeatures(BaseModule):
    """What a detector remembers of agents: its own memory's sensory state, or a memory of theirs that streams over its BEV.

    Where the detector's memory follows agents by masks of their own (`temporal.masks.num_agents` above 1), each agent is looked
    up in the map whose mask covers most of it.

    Args:
        detector: config of a TemporalFusionDetector; init_cfg=dict(type='Pretrained', checkpoint=FILE) makes it a trained one.
            A checkpoint of another memory is an error (TemporalSlot). Without `stream` its memory is a TemporalMemory.
        stream: e.g. dict(type='AgentStream', network=dict(type='BEVMemoryNetwork', in_channels=C)); None is the detector's own.
        pooling: one of POOLINGS.
        around: settings of Surroundings, for pooling='around': which points around each agent are looked at.
        agents_from: 'truth': masks are drawn from true boxes; 'detections': from those that the detector finds in each frame
            within `match_m` of the agent's true place; where it finds none, the agent was not seen.
        match_m: metres.

    Raises:
        ValueError: for a detector whose clips are not aligned by the loader, or that has no memory to look at.
    """

    def __init__(
        self,
        detector: dict,
        stream: dict | None = None,
        pooling: str = 'masked',
        agents_from: str = 'truth',
        match_m: float = 2.0,
        around: Mapping[str, Sequence[float]] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if agents_from not in AGENTS_FROM:
            raise ValueError(f'DetectorAgentFeatures: agents_from must be one of {AGENTS_FROM}, got {agents_from!r}')
        self.detector: Any = MODELS.build(detector)
        self.stream: Any = None if stream is None else MODELS.build(stream)
        memory = self.detector.temporal
        if memory is not None and memory.alignment != 'loader':
            raise ValueError("DetectorAgentFeatures: set detector.temporal.align='loader', as the clips of agents are aligned, "
                             f'got {memory.alignment!r}')
        if stream is None and not hasattr(memory, 'network'):
            raise ValueError('DetectorAgentFeatures: the detector has no TemporalMemory to look at: give stream=dict(...)')
        self.agents_from, self.match_m = agents_from, match_m
        channels = (memory.network if self.stream is None else self.stream).hidden_dim
        self.pooling = AgentPooling(pooling, channels, Surroundings.of(pooling, around))
        self.dim = self.pooling.dim

    def forward(self, inputs: Mapping[str, Any], agents: Agents) -> tuple[Tensor, Tensor]:
        """Features of each agent in each frame, and 1 where its mask was not empty.

        Args:
            inputs: of B clips, as the detector takes them, with `data_samples`, their B x T frames.
        """
        clip, samples = self.detector.encode(inputs), inputs['data_samples']
        shown, sensory, masks = agents, [], []
        if self.stream is None or self.agents_from == 'detections':
            state = None if self.detector.temporal is None else self.detector.temporal.init_state(clip.at(0))
            for t, frames in enumerate(self.detector.steps_of(clip, samples)):
                out = self.detector.step(clip.at(t), state, frames)
                state = out.state
                sensory.append(state.sensory)
                masks.append(state.mask)
                if self.agents_from == 'detections':
                    found = self.detector.head(clip.at(t).float(), out.readout.float(), None).found
                    shown = as_found(shown, t, found, self.match_m)
        shape = clip.bev.shape[-2], clip.bev.shape[-1]
        where = bev_masks(shown, self.detector.grid.point_cloud_range, shape, self.pooling.around)
        if self.stream is not None:
            memory = self.stream(clip.bev, where.masks, where.there)
            centers = self.stream.place(where.centers_px, shape)
            around = None if where.around_px is None else self.stream.place(where.around_px, shape)
            return self.pooling(memory.sensory, self.stream.cover(where.masks), centers, where.there, around)
        maps, padded = torch.stack(sensory, dim=1), self.detector.temporal.network.pad(where.masks)
        shares = pool_adaptive(padded.flatten(0, 1), maps.shape[-2:]).unflatten(0, padded.shape[:2])
        maps = maps_of_agents(maps, torch.stack(masks, dim=1), shares)
        around = None if where.around_px is None else self._place(where.around_px, shape)
        return self.pooling(maps, shares, self._place(where.centers_px, shape), where.there, around)

    def _place(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Cells (..., 2) x, y of a BEV of `shape` (H, W) -> -1..1 over the detector's own memory."""
        left, top, _, right, bottom, _ = self.detector.temporal.map_range
        x_min, y_min, _, x_max, y_max, _ = self.detector.grid.point_cloud_range
        places = pixels / pixels.new_tensor([shape[1], shape[0]])
        metres = places * places.new_tensor([x_max - x_min, y_max - y_min]) + places.new_tensor([x_min, y_min])
        return (metres - metres.new_tensor([left, top])) / metres.new_tensor([right - left, bottom - top]) * 2 - 1


def maps_of_agents(maps: Tensor, masks: Tensor, shares: Tensor) -> Tensor:
    """Gives each agent the map of its own.

    Args:
        maps: (B, T, K, C, h, w), what memory holds of its K masks.
        masks: (B, T, K, Hk, Wk) in 0..1.
        shares: (B, T, A, h, w).

    Returns:
        (B, T, A, C, h, w): of the mask that covers most of the agent; of the last, which holds all others, where none does.
    """
    if maps.shape[2] == 1:
        return maps.expand(-1, -1, shares.shape[2], -1, -1, -1)
    small = pool_adaptive(masks.flatten(0, 1), shares.shape[-2:]).unflatten(0, masks.shape[:2])
    overlap = torch.einsum('btahw,btkhw->btak', shares, small).flip(-1)  # the last one wins where all are 0
    own = maps.shape[2] - 1 - overlap.argmax(dim=-1)
    return maps.gather(2, own[..., None, None, None].expand(*own.shape, *maps.shape[3:]))


def as_found(agents: Agents, t: int, found: Sequence[Any], within_m: float) -> Agents:
    """The agents with the boxes that were found in frame t instead of their own; where none was, they were not there.

    Args:
        found: B InstanceData with bboxes_3d and scores_3d.
    """
    boxes, there = agents.boxes.clone(), agents.history_valid.clone()
    for row, one in enumerate(found):
        wanted = (agents.history_valid[row, :, t] & agents.valid[row]).cpu().nonzero()[:, 0]
        centers = agents.boxes[row, wanted.to(boxes.device), t, :2]
        seen, rows = match_detections(centers, one.bboxes_3d.tensor, one.scores_3d, within_m)
        there[row, :, t] = False
        there[row, wanted[seen].to(boxes.device), t] = True
        boxes[row, wanted[seen].to(boxes.device), t] = one.bboxes_3d.tensor[rows.to(boxes.device), :7].to(boxes)
    return replace(agents, boxes=boxes, history_valid=there)
