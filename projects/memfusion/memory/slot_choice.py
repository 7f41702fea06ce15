"""Slots of working memory. In: a state, the frame that is written, a rule. Out: which stored frames stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from projects.geometry.frame_sampling import FrameKeeper, KeptFrames
from projects.memfusion.structures import FrameBatch


def slots_that_stay(policy: FrameKeeper | None, memory: Any, stored_cells: Tensor, frames: FrameBatch, cells: Tensor,
                    map_range: Sequence[float]) -> Any:
    """Index into stored tensors (B, F, ...) of the F - 1 slots that stay, oldest first, when a frame is written behind them.

    Args:
        policy: which frame goes; None is the oldest.
        memory: a state with slot_valid, slot_time_s and slot_global_from_bev.
        stored_cells: (B, F, Hm, Wm) bool, cells of the slots that may answer.
        cells: (B, Hm, Wm) bool, cells of the new frame that may answer.
        map_range: range of the stored maps, metres.
    """
    if policy is None:
        return slice(None), slice(1, None)

    def joined(stored: Tensor, new: Tensor) -> Tensor:
        return torch.cat([stored, new[:, None]], dim=1)

    places = policy.keep(KeptFrames(
        joined(memory.slot_valid, torch.ones_like(frames.valid)), joined(memory.slot_time_s, frames.time_s),
        joined(memory.slot_global_from_bev, frames.global_from_bev), joined(stored_cells, cells), map_range))
    slots = places[:, :-1]  # the last place is the new frame's
    return torch.arange(len(slots), device=slots.device)[:, None], slots
