"""Forecasting: agents' features from a detector's propagated queries. In: its inputs and Agents. Out: (B, A, H, F), flags.

Detector and memory come through the registry. Clips lie in their last frame's coordinates (align='loader'), as agents do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.geometry.rigid import transform_points
from projects.memfusion.structures import Agents


@MODELS.register_module()
class QueryAgentFeatures(BaseModule):
    """What a query detector hands on about agents: in every frame the embedding of the query kept nearest to the agent.

    Queries are those that the detector's QueryMemory keeps of that frame, which had seen the frames before through it.

    Args:
        detector: config of a TemporalFusionDetector whose memory is a QueryMemory, with align='loader';
            init_cfg=dict(type='Pretrained', checkpoint=FILE) makes it a trained one.
        match_m: metres on the ground; an agent without a query so near was not seen: zeros, flag 0.

    Raises:
        ValueError: for a detector of another memory, or whose clips are not aligned by the loader.
    """

    def __init__(self, detector: dict, match_m: float = 2.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.detector: Any = MODELS.build(detector)
        memory = self.detector.temporal
        if getattr(memory, 'hands_on', None) != 'queries':
            raise ValueError(f'QueryAgentFeatures: detector.temporal must hand on queries (QueryMemory), got {memory!r}')
        if memory.alignment != 'loader':
            raise ValueError("QueryAgentFeatures: set detector.temporal.align='loader', as the clips of agents are aligned, "
                             f'got {memory.alignment!r}')
        self.dim = memory.embed_dims
        self.pooling = NearestQuery(match_m)

    def forward(self, inputs: Mapping[str, Any], agents: Agents) -> tuple[Tensor, Tensor]:
        """Features (B, A, H, F) of each agent in each frame, oldest first, and (B, A, H) 1 where a query was near.

        Args:
            inputs: of B clips, as the detector takes them, with `data_samples`, their B x T frames.
        """
        clip, samples = self.detector.encode(inputs), inputs['data_samples']
        state, kept = self.detector.temporal.init_state(clip.at(0)), self.detector.temporal.num_kept
        embeddings, places = [], []
        for t, frames in enumerate(self.detector.steps_of(clip, samples)):
            state = self.detector.step(clip.at(t), state, frames).state
            embeddings.append(state.embeddings[:, :kept])
            places.append(transform_points(frames.bev_from_global, state.references[:, :kept]))
        there = agents.history_valid & agents.valid[..., None]
        return self.pooling(torch.stack(embeddings, dim=1), torch.stack(places, dim=1), agents.boxes[..., :2], there)


class NearestQuery(nn.Module):
    """Gives each agent the query nearest to it on the ground.

    Args:
        match_m: metres within which a query is an agent's.
    """

    def __init__(self, match_m: float) -> None:
        super().__init__()
        if not match_m > 0:
            raise ValueError(f'match_m must be above 0, got {match_m}')
        self.match_m = match_m

    def forward(self, embeddings: Tensor, places: Tensor, centers: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, A, T, E), zeros where no query is near, and flags (B, A, T).

        Args:
            embeddings: (B, T, M, E).
            places: (B, T, M, 3) metres, BEV frame.
            centers: (B, A, T, 2) metres, BEV frame.
            there: (B, A, T) bool, whether the agent was in the frame.
        """
        distance = torch.cdist(centers.transpose(1, 2).double(), places[..., :2].double())  # (B, T, A, M)
        nearest_m, index = distance.min(dim=-1)
        near = (nearest_m <= self.match_m) & there.transpose(1, 2)
        own = embeddings.gather(2, index[..., None].expand(*index.shape, embeddings.shape[-1])) * near[..., None]
        return own.transpose(1, 2), near.transpose(1, 2).to(embeddings.dtype)
