"""Memory that follows agents through clips. In: frames (B, T, C, H, W), a mask of each agent. Out: their memory at each.

The order of events is XMem's (Cheng and Schwing, ECCV 2022): read, decode, update the sensory state, encode the value, write.
No step is a video's last one: the published loop leaves the sensory state as it was at its end, here every frame updates it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.common.build import build_from
from projects.geometry import pool_adaptive

from .bev_network import MemoryQuery
from .similarity import read_memory


@dataclass(frozen=True)
class AgentMemory:
    """What memory holds of A agents at every frame of B clips.

    Attributes:
        sensory: (B, T, A, Ch, h, w), after the frame; zeros before the agent's first one.
        readout: (B, T, A, CV, h, w), what was read at the frame; zeros where nothing of the agent was stored yet.
        logits: (B, T, A, H', W'), where the agent is by memory alone, before the frame's own mask is told.
        remembered: (B, T, A) bool, whether an earlier frame of the agent was stored.
    """

    sensory: Tensor
    readout: Tensor
    logits: Tensor
    remembered: Tensor


@MODELS.register_module()
class AgentStream(BaseModule):
    """Streams a memory network over clips with one mask per agent.

    A mask is written where the agent was seen; where it was not, after its first frame, memory goes on by what it reads. Stored
    frames answer for the agents that were in them alone, so an agent that appears later has no past before.

    Args:
        network: a memory network, e.g. dict(type='ImageMemoryNetwork', in_channels=3, bev_shape=(H, W)).
        top_k: elements that may answer a query; None is all.
    """

    def __init__(self, network: dict, top_k: int | None = 30, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if top_k is not None and top_k < 1:
            raise ValueError(f'AgentStream.top_k must be at least 1 or None, got {top_k}')
        self.network, self.top_k = build_from(MODELS, network), top_k
        self.hidden_dim, self.value_dim = self.network.hidden_dim, self.network.value_dim

    def cover(self, masks: Tensor) -> Tensor:
        """Masks (..., H, W) at the frame's resolution -> (..., h, w), the share of each memory cell that they cover."""
        padded = self.network.pad(masks)
        shape = self.network.map_shape((masks.shape[-2], masks.shape[-1]))
        return pool_adaptive(padded.flatten(0, -3)[:, None], shape)[:, 0].unflatten(0, masks.shape[:-2])

    def place(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Pixels (..., 2) x, y of frames of `shape` (H, W), cell corners whole numbers -> -1..1 over the memory grid."""
        left, top, _, right, bottom, _ = self.network.map_range((0.0, 0.0, 0.0, shape[1], shape[0], 1.0))
        low, size = pixels.new_tensor([left, top]), pixels.new_tensor([right - left, bottom - top])
        return (pixels - low) / size * 2 - 1

    def forward(self, frames: Tensor, masks: Tensor, there: Tensor) -> AgentMemory:
        """Remembers clips from their first frame on.

        Args:
            frames: (B, T, C, H, W), oldest first.
            masks: (B, T, A, H, W) in 0..1.
            there: (B, T, A) bool, whether the agent was seen in the frame; elsewhere its mask is not looked at.

        Raises:
            ValueError: naming what does not belong together.
        """
        batch, length, agents, height, width = masks.shape
        if frames.shape[:2] != (batch, length) or frames.shape[-2:] != (height, width) or there.shape != masks.shape[:3]:
            raise ValueError(f'masks are {tuple(masks.shape)} and there {tuple(there.shape)}, but the frames are '
                             f'{tuple(frames.shape)}: one mask of the frame size for each frame and agent')
        net = self.network
        map_shape, mask_shape = net.map_shape((height, width)), net.mask_shape((height, width))
        sensory = frames.new_zeros(batch, agents, net.hidden_dim, *map_shape)
        if not agents:
            return AgentMemory(
                sensory[:, None].expand(-1, length, -1, -1, -1, -1),
                frames.new_zeros(batch, length, 0, net.value_dim, *map_shape),
                frames.new_zeros(batch, length, 0, *mask_shape), there)
        masks = torch.where(there[..., None, None], masks, 0)
        padded = net.pad(masks)
        written = pool_adaptive(padded.flatten(0, 1), mask_shape).unflatten(0, (batch, length))
        queries: list[MemoryQuery] = []
        values: list[Tensor] = []
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(length):
            query = net.encode_query(frames[:, t])
            seen = there[:, :t].any(dim=1)  # (B, A)
            readout = self._read(query, queries, values, there[:, :t])
            _, logit, updated = net.decode(query, readout, sensory)
            sensory = torch.where(seen[..., None, None, None], updated, sensory)
            value, deep = net.encode_value(query, written[:, t], sensory)
            sensory = torch.where(there[:, t, :, None, None, None], deep, sensory)
            queries.append(query)
            values.append(value)
            steps.append((sensory, readout, logit))
        remembered = torch.stack([there[:, :t].any(dim=1) for t in range(length)], dim=1)
        states, readouts, logits = (torch.stack(parts, dim=1) for parts in zip(*steps))
        return AgentMemory(states, readouts, logits, remembered)

    def _read(self, query: MemoryQuery, stored: list[MemoryQuery], values: list[Tensor], there: Tensor) -> Tensor:
        """(B, A, CV, h, w) of t stored frames; there (B, t, A), which of them hold the agent."""
        batch, _, agents = there.shape
        height, width = query.key.shape[-2:]
        if not stored:
            return query.key.new_zeros(batch, agents, self.value_dim, height, width)

        def elements(parts: list[Tensor]) -> Tensor:  # t x (B, C, h, w) -> (B A, C, t h w)
            joined = torch.stack(parts, dim=2).flatten(2)
            return joined[:, None].expand(-1, agents, -1, -1).flatten(0, 1)

        value = torch.stack(values, dim=3).flatten(3).flatten(0, 1)  # (B A, CV, t h w)
        valid = there.transpose(1, 2)[..., None].expand(-1, -1, -1, height * width).flatten(2).flatten(0, 1)
        read = read_memory(
            elements([query.key]), elements([query.selection]), elements([one.key for one in stored]),
            elements([one.shrinkage for one in stored]), value, top_k=self.top_k, memory_valid=valid)
        assert isinstance(read, Tensor)
        return read.view(batch, agents, -1, height, width)
