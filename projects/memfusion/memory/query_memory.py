"""Slot `temporal` without weights. In: what a query head finds. Out: the last frames' best queries, seen from now.

Queries are kept as they were; the head, where all weights live, encodes how long ago that was and how the ego moved since
(StreamPETR, Wang et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.geometry.rigid import transform_points
from projects.memfusion.structures import (
    FrameBatch,
    HeadOutputs,
    QueryProposals,
    QueryState,
    Readout,
    SceneFeatures,
    SceneTruth,
    empty_clock,
)

from .slot import TemporalSlot, clock


@MODELS.register_module()
class QueryMemory(TemporalSlot):
    """Keeps the best queries of every frame, and hands them on as `Readout.queries`; no parameters.

    `Readout.queries`, newest first, all of M slots, in the augmented LiDAR frame of now: embeddings (B, M, E), references_m
    (B, M, 3) where they were found, moved with the ego alone, velocity (B, M, 3) m/s, age_s (B, M), motion (B, M, 4, 4) from
    the frame of then to that of now, there (B, M) bool, and run (B,) int64 on the CPU: how many slots in a row come from one
    frame where all slots are there, which the host knows; else 0. Slots that are not there stand where the scene began.

    Args:
        point_cloud_range, align: as in TemporalSlot; with 'none' queries stay where they were in their own frames.
        embed_dims: E.
        num_slots: M.
        num_kept: queries that a frame leaves, those with the best scores.
    """

    needs_outputs, hands_on = True, 'queries'

    def __init__(self, point_cloud_range: Sequence[float], embed_dims: int = 256, num_slots: int = 1024, num_kept: int = 256,
                 align: str = 'network', init_cfg: dict | None = None) -> None:
        super().__init__(point_cloud_range, align=align, init_cfg=init_cfg)
        if not 1 <= num_kept <= num_slots:
            raise ValueError(f'temporal.num_kept must lie in 1..num_slots={num_slots}, got {num_kept}')
        self.embed_dims, self.num_slots, self.num_kept = embed_dims, num_slots, num_kept

    def init_state(self, features: SceneFeatures) -> QueryState:
        """An empty memory for frames like these."""
        batch, like = features.batch_size, features.any_tensor
        slots = (batch, self.num_slots)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*slots, *shape, dtype=dtype, device=like.device)

        return QueryState(
            **empty_clock(batch, like), embeddings=zeros(self.embed_dims), references=zeros(3, dtype=torch.float64),
            velocity=zeros(3), slot_time_s=zeros(dtype=torch.float64),
            slot_global_from_bev=torch.eye(4, dtype=torch.float64, device=like.device).repeat(*slots, 1, 1),
            there=zeros(dtype=torch.bool))

    def align(self, state: QueryState, frames: FrameBatch) -> QueryState:
        """Scenes that begin forget; their empty slots stand where they begin."""
        state = state.reset(frames.starts)
        new = [age == 0 for age in state.ages]
        if not any(new):
            return state
        origin = frames.global_from_bev[:, None, :3, 3].expand_as(state.references)
        begun = replace(state, references=origin, slot_time_s=frames.time_s[:, None].expand_as(state.slot_time_s),
                        slot_global_from_bev=frames.global_from_bev[:, None].expand_as(state.slot_global_from_bev))
        return begun.where(new, state)

    def read(self, state: QueryState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """The remembered queries, not encoded."""
        del features
        motion = self.cur_from(state.slot_global_from_bev, frames)
        if self.alignment == 'none':
            motion = torch.eye(4, dtype=torch.float64, device=motion.device).expand_as(motion)
            bev_from_global = torch.linalg.inv(state.slot_global_from_bev)
        else:
            bev_from_global = frames.bev_from_global[:, None].expand_as(motion)
        return Readout(queries=dict(
            embeddings=state.embeddings, references_m=_moved(state.references, bev_from_global).float(),
            velocity=_turned(state.velocity, bev_from_global),
            age_s=(frames.time_s[:, None] - state.slot_time_s).float(), motion=motion.float(), there=state.there,
            run=torch.tensor([self.num_kept if age * self.num_kept >= self.num_slots else 0 for age in state.ages])))

    def write(self, state: QueryState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> QueryState:
        """The memory with this frame's best queries in front; the oldest fall out.

        Raises:
            TypeError: where the head offers no queries.
            ValueError: where it offers too few, or of another width.
        """
        del readout, truth
        offered = self._offered(outputs)
        pose = frames.global_from_bev[:, None]
        if offered.start_m is not None:
            state = self._begin(state, offered.start_m, frames)
        best = offered.scores.topk(self.num_kept, dim=1).indices

        def push(stored: Tensor, new: Tensor) -> Tensor:
            return torch.cat([new.to(stored.dtype), stored[:, :-self.num_kept]], dim=1)

        def taken(tensor: Tensor) -> Tensor:
            return tensor.detach().gather(1, best[..., None].expand(-1, -1, tensor.shape[-1]))

        kept = best.shape
        velocity = torch.nn.functional.pad(taken(offered.velocity), (0, 1))
        return QueryState(
            **clock(frames, state), embeddings=push(state.embeddings, taken(offered.embeddings)),
            references=push(state.references, _moved(taken(offered.references_m).double(), pose)),
            velocity=push(state.velocity, _turned(velocity, pose)),
            slot_time_s=push(state.slot_time_s, frames.time_s[:, None].expand(kept)),
            slot_global_from_bev=push(state.slot_global_from_bev, pose.expand(*kept, 4, 4)),
            there=push(state.there, torch.ones_like(best)))

    def _begin(self, state: QueryState, start_m: Tensor, frames: FrameBatch) -> QueryState:
        """The state with points to begin with in the first slots of scenes that have seen nothing."""
        new = [age == 0 for age in state.ages]
        if not any(new):
            return state
        references, there = state.references.clone(), state.there.clone()
        references[:, :len(start_m)] = _moved(start_m.double()[None], frames.global_from_bev[:, None])
        there[:, :len(start_m)] = True
        return replace(state, references=references, there=there).where(new, state)

    def _offered(self, outputs: HeadOutputs | None) -> QueryProposals:
        offered = None if outputs is None else getattr(outputs.raw, 'carried', None)
        if not isinstance(offered, QueryProposals):
            raise TypeError("temporal=QueryMemory keeps a head's queries, but model.pts_bbox_head offers none: use a head that "
                            "does, e.g. type='StreamPETR'")
        width = offered.embeddings.shape[-1]
        if offered.num_there < self.num_kept or width != self.embed_dims:
            raise ValueError(f'temporal=QueryMemory keeps {self.num_kept} queries of width {self.embed_dims} a frame, but '
                             f'model.pts_bbox_head offers {offered.num_there} of width {width} when a scene begins: set '
                             'temporal.num_kept to as many at most, and temporal.embed_dims alike')
        return offered


def _moved(points: Tensor, dst_from_src: Tensor) -> Tensor:
    """(B, M, 3) points, each by its own (B, M or 1, 4, 4), float64."""
    return transform_points(dst_from_src, points[:, :, None])[:, :, 0]


def _turned(vectors: Tensor, dst_from_src: Tensor) -> Tensor:
    """(B, M, 3) vectors, likewise; float32."""
    return (dst_from_src[..., :3, :3] @ vectors.double()[..., None])[..., 0].float()
