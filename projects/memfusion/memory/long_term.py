"""Long-term memory. In: a MemoryState whose working memory is full. Out: the state with its oldest frames made prototypes.

The policy is XMem's (Cheng and Schwing, ECCV 2022, section 3.3): the most used elements become prototypes, each takes the
values of what resembles it, and the least used prototypes make room. It differs where driving does: no first frame is
kept for ever, since no mask was given with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from projects.memfusion.structures import MemoryState, take_rows

from .consolidation import consolidate


@dataclass(frozen=True)
class LongTermPolicy:
    """When and how much is consolidated.

    Attributes:
        max_mem_frames: slots of working memory; when the last one fills, consolidation happens.
        min_mem_frames: newest slots that then stay.
        num_prototypes: elements that the other slots become.
        max_elements: cap of long-term memory.
    """

    max_mem_frames: int
    min_mem_frames: int = 2
    num_prototypes: int = 128
    max_elements: int = 1024

    def __post_init__(self) -> None:
        if not 1 <= self.min_mem_frames < self.max_mem_frames:
            raise ValueError('temporal.long_term.min_mem_frames must be at least 1 and less than max_mem_frames='
                             f'{self.max_mem_frames}, got {self.min_mem_frames}')
        if not 1 <= self.num_prototypes <= self.max_elements:
            raise ValueError('temporal.long_term.num_prototypes must be at least 1 and at most max_elements='
                             f'{self.max_elements}, got {self.num_prototypes}')

    def filled_slots(self, written: int) -> int:
        """Slots of working memory that hold a frame after `written` writes and what consolidation took away."""
        if written < self.max_mem_frames:
            return written
        return self.min_mem_frames + (written - self.max_mem_frames) % (self.max_mem_frames - self.min_mem_frames)

    def fills(self, written: int) -> bool:
        """Whether this write, counted from 1, fills the last slot."""
        return written >= self.max_mem_frames and self.filled_slots(written) == self.min_mem_frames

    def check(self, map_shape: tuple[int, int]) -> None:
        """Raises ValueError where the slots to consolidate hold fewer cells than prototypes are wanted."""
        cells = (self.max_mem_frames - self.min_mem_frames) * map_shape[0] * map_shape[1]
        if cells < self.num_prototypes:
            raise ValueError(f'temporal.long_term.num_prototypes={self.num_prototypes}, but only {cells} cells are '
                             'consolidated at a time: lower it, or raise max_mem_frames')


def consolidate_oldest(
    memory: MemoryState, policy: LongTermPolicy, full: Sequence[int], keys: Tensor, positions_m: Tensor, cells: Tensor,
    locality: Tensor | None
) -> MemoryState:
    """Consolidates the samples whose working memory is full; the others stay as they are.

    Args:
        full: positions of those samples in the batch.
        keys: (B, F, CK, Hm, Wm), those of memory as the current frame sees them.
        positions_m: (B, F, Hm, Wm, 3) float64, global position of every stored cell.
        cells: (B, 2, F Hm Wm) float32, the same in the current frame, in memory cells along its axes.
        locality: weight of the distance between cells, in cells, in the similarity; None is none.
    """
    if not full:
        return memory
    part, positions = memory.select(full), take_rows(positions_m, full)
    oldest = policy.max_mem_frames - policy.min_mem_frames

    def flat(tensor: Tensor) -> Tensor:  # (B', F, C, Hm, Wm) -> (B', C, oldest Hm Wm)
        return tensor[:, :oldest].transpose(1, 2).flatten(2)

    key, selection = flat(take_rows(keys, full)), flat(part.selection)
    position = positions[:, :oldest].flatten(1, 3).transpose(1, 2)
    if locality is not None:
        key = torch.cat([key, take_rows(cells, full)[..., :key.shape[2]]], dim=1)  # the oldest slots come first
        selection = torch.cat([selection, locality.expand(len(full), 2, key.shape[2])], dim=1)
    usage = (part.usage / part.life.clamp(min=1e-7)[..., None, None])[:, :oldest].flatten(1)
    valid = (part.cell_valid & part.slot_valid[..., None, None])[:, :oldest].flatten(1)
    made = consolidate(key, flat(part.shrinkage), selection, flat(part.value.flatten(2, 3)).unflatten(
        1, part.value.shape[2:4]), usage, policy.num_prototypes, valid)
    order = _most_used(part, policy.max_elements - policy.num_prototypes)

    def append(stored: Tensor, new: Tensor) -> Tensor:  # (B', ..., L) and (B', ..., P) -> (B', ..., L)
        index = order.view(len(full), *[1] * (stored.dim() - 2), -1).expand(*stored.shape[:-1], -1)
        return torch.cat([stored.gather(-1, index), new.to(stored.dtype)], dim=-1)

    nothing = made.valid.float().zero_()
    at = made.indices[:, None].expand(-1, 3, -1)
    forgotten = torch.arange(policy.max_mem_frames, device=key.device) < oldest
    emptied: dict[str, Any] = {name: _clear(getattr(part, name), forgotten) for name in (
        'key', 'shrinkage', 'selection', 'value', 'slot_valid', 'cell_valid', 'usage', 'life', 'slot_time_s')}
    after = replace(
        part,
        long_key=append(part.long_key, made.key[:, :part.long_key.shape[1]] * made.valid[:, None]),
        long_shrinkage=append(part.long_shrinkage, made.shrinkage * made.valid[:, None]),
        long_value=append(part.long_value, made.value * made.valid[:, None, None]),
        long_position=append(part.long_position, position.gather(2, at) * made.valid[:, None]),
        long_valid=append(part.long_valid, made.valid),
        long_usage=append(part.long_usage, nothing), long_life=append(part.long_life, nothing), **emptied)
    return memory.put(full, after)


def _most_used(part: MemoryState, count: int) -> Tensor:
    """(B', count) indices of the long-term elements that stay, the most used; empty ones go first. In storage order."""
    score = part.long_usage / part.long_life.clamp(min=1e-7)
    score = torch.where(part.long_valid, score, torch.full_like(score, -1.0))
    return score.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def _clear(tensor: Tensor, which: Tensor) -> Tensor:
    """Zeros in the slots (dim 1) where `which` (F,) is True."""
    return tensor.masked_fill(which.view(1, -1, *[1] * (tensor.dim() - 2)), 0)
