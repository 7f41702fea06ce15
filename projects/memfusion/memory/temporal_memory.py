"""Slot `temporal`. In: BEV features of one frame, MemoryState. Out: BEV features that remember, the next MemoryState.

The events of a step are three calls, in this order: `align`, `read`, `write`; the same in training and testing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.memfusion.structures import FrameBatch, MemoryState

from .bev_network import MemoryQuery
from .similarity import read_memory

MASK_SOURCES = ('occupancy', 'none')


@dataclass(frozen=True)
class MemoryReadout:
    """What a frame got from memory: bev (B, C, H, W), occ_logits (B, 1, Hm, Wm), and what `write` needs later."""

    bev: Tensor
    occ_logits: Tensor
    query: MemoryQuery
    sensory: Tensor


@MODELS.register_module()
class TemporalMemory(BaseModule):
    """XMem-style memory over BEV features: sensory state and working memory.

    Args:
        network: the memory network, e.g. dict(type='BEVMemoryNetwork', in_channels=...).
        readout: how memory changes the features, e.g. dict(type='GateReadout').
        loss_occ: auxiliary occupancy loss.
        alpha: how much of the readout is used, 0 (plain detector) to 1; may be changed after construction.
        max_mem_frames: slots of working memory; the oldest frame leaves first.
        mem_every: every how many frames a frame is written.
        top_k: elements that may answer a query; None is all.
        mask_source: what mask is written with a frame: 'occupancy' (what memory itself predicts) or 'none' (zeros).
    """

    def __init__(
        self,
        network: dict,
        readout: dict,
        loss_occ: dict,
        alpha: float = 1.0,
        max_mem_frames: int = 5,
        mem_every: int = 1,
        top_k: int | None = None,
        mask_source: str = 'occupancy',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if max_mem_frames < 1 or mem_every < 1:
            raise ValueError('temporal.max_mem_frames and temporal.mem_every must be at least 1, got '
                             f'{max_mem_frames} and {mem_every}')
        if mask_source not in MASK_SOURCES:
            raise ValueError(f'temporal.mask_source must be one of {MASK_SOURCES}, got {mask_source!r}')
        self.network = MODELS.build(network)
        self.readout = MODELS.build(readout)
        self.loss_occ = MODELS.build(loss_occ)
        self.alpha = alpha
        self.max_mem_frames, self.mem_every, self.top_k = max_mem_frames, mem_every, top_k
        self.mask_source = mask_source

    @property
    def alpha(self) -> float:
        """How much of the readout is used, 0..1."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f'temporal.alpha must lie in 0..1, got {value}')
        self._alpha = float(value)

    def init_state(self, bev: Tensor) -> MemoryState:
        """An empty state for a batch of BEV features (B, C, H, W)."""
        net = self.network
        height, width = bev.shape[-2:]
        return MemoryState.empty(
            bev.shape[0], net.map_shape((height, width)), net.key_dim, net.value_dim, net.hidden_dim,
            self.max_mem_frames, like=bev)

    def align(self, memory: MemoryState, frames: FrameBatch) -> MemoryState:
        """Makes memory ready for this frame: scenes that begin here forget what came before."""
        return memory.reset(frames.is_scene_start)

    def read(self, bev: Tensor, memory: MemoryState) -> MemoryReadout:
        """bev (B, C, H, W) -> what memory makes of it."""
        query = self.network.encode_query(bev)
        batch, _, _, height, width = memory.key.shape
        # New frames enter at the end: empty slots in front, common in clips and early in a scene, need not be read.
        filled = max(1, int(memory.slot_valid.any(dim=0).sum()))

        def flat(tensor: Tensor) -> Tensor:  # (B, F, C, Hm, Wm) -> (B, C, filled Hm Wm)
            return tensor[:, -filled:].transpose(1, 2).flatten(2)

        remembered = read_memory(
            query.key.flatten(2), query.selection.flatten(2), flat(memory.key), flat(memory.shrinkage),
            flat(memory.value), top_k=self.top_k,
            memory_valid=memory.slot_valid[:, -filled:].repeat_interleave(height * width, dim=1))
        assert isinstance(remembered, Tensor)  # no usage was asked for
        remembered = remembered.view(batch, -1, height, width)
        decoded, occ_logits, sensory = self.network.decode(query, remembered, memory.sensory)
        return MemoryReadout(self.readout(bev, decoded, occ_logits, self.alpha), occ_logits, query, sensory)

    def choose_mask(self, readout: MemoryReadout) -> Tensor:
        """(B, 1, Hm, Wm) the mask that is written with this frame."""
        if self.mask_source == 'none':
            return torch.zeros_like(readout.occ_logits)
        return readout.occ_logits.sigmoid()

    def write(self, memory: MemoryState, readout: MemoryReadout, mask: Tensor, frames: FrameBatch) -> MemoryState:
        """The state after this frame; samples whose frame is padding keep the state they had."""
        value, deep_sensory = self.network.encode_value(readout.query, mask, readout.sensory)
        writes = memory.num_frames % self.mem_every == 0

        def push(stored: Tensor, new: Tensor) -> Tensor:
            moved = torch.cat([stored[:, 1:], new[:, None].to(stored.dtype)], dim=1)
            return torch.where(writes.view(-1, *[1] * (stored.dim() - 1)), moved, stored)

        after = replace(
            memory,
            sensory=torch.where(writes[:, None, None, None], deep_sensory, readout.sensory).to(memory.sensory.dtype),
            key=push(memory.key, readout.query.key),
            shrinkage=push(memory.shrinkage, readout.query.shrinkage),
            value=push(memory.value, value),
            slot_valid=push(memory.slot_valid, torch.ones_like(writes)),
            slot_time_s=push(memory.slot_time_s, frames.time_s),
            slot_global_from_bev=push(memory.slot_global_from_bev, frames.global_from_bev),
            mask=mask.to(memory.mask.dtype),
            num_frames=memory.num_frames + 1,
            time_s=frames.time_s,
            global_from_bev=frames.global_from_bev,
        )
        return after.where(frames.valid, memory)

    def loss(self, occ_logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Occupancy loss. occ_logits (N, 1, Hm, Wm) of valid frames; target (N, 1, H, W) bool at BEV resolution."""
        pooled = F.adaptive_max_pool2d(target.to(occ_logits.dtype), occ_logits.shape[-2:])
        return self.loss_occ(occ_logits, pooled)
