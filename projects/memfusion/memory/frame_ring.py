"""Slot `temporal` without weights. In: image features of each frame. Out: those of the last frames, their rigs seen from now.

Heads that look at earlier images themselves read it as `Readout.past` (PETRv2, Liu et al., ICCV 2023; SparseBEV, Liu et al.,
ICCV 2023). Nothing is warped: what an earlier camera saw stays as it was, and its rig knows where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.memfusion.structures import (
    Calibration,
    FrameBatch,
    FrameImages,
    HeadOutputs,
    History,
    PastFrame,
    Readout,
    SceneFeatures,
    SceneTruth,
    TemporalState,
    empty_clock,
)

from .slot import TemporalSlot, clock


@dataclass(frozen=True)
class RingState(TemporalState):
    """The last k frames of B scenes, newest first. Slot i holds a frame where a scene's age is above i; what else lies there
    means nothing and is never shown.

    Attributes:
        slots: k remembered frames.
        slot_time_s: (B, k) float64.
        slot_global_from_bev: (B, k, 4, 4) float64.
    """

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'slot_global_from_bev')

    slots: tuple[FrameImages, ...]
    slot_time_s: Tensor
    slot_global_from_bev: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """What lies on the device, without the slots."""
        return {name: tensor for name, tensor in super().tensors().items() if name != 'slots'}

    @property
    def num_bytes(self) -> int:
        """Bytes held by all tensors, those of the rigs aside."""
        return super().num_bytes + sum(level.nbytes for slot in self.slots for level in slot.levels)

    def detach(self) -> RingState:
        """The same content outside the autograd graph."""
        return self._with_slots(super().detach(), lambda slot: replace(slot, levels=tuple(map(Tensor.detach, slot.levels))))

    def select(self, rows: Sequence[int]) -> RingState:
        """The samples at `rows`, B' positions, copied."""
        return self._with_slots(super().select(rows), lambda slot: slot.take(rows))

    def put(self, rows: Sequence[int], other: Any) -> RingState:
        """This state with the samples at `rows` replaced by those of `other`."""
        come_from = dict(enumerate(range(self.batch_size))) | {row: self.batch_size + i for i, row in enumerate(rows)}
        return self._mix(super().put(rows, other), other, list(come_from.values()))

    def where(self, which: Sequence[bool], other: Any) -> RingState:
        """This state where `which`, B bools on the host, is True, `other` elsewhere."""
        mixed: Any = super().where(which, other)
        if mixed is self or mixed is other:
            return mixed
        return self._mix(mixed, other, [row if mine else self.batch_size + row for row, mine in enumerate(which)])

    @staticmethod
    def cat(states: Sequence[Any]) -> Any:
        """Joins states along the batch; one alone stays as it is."""
        if len(states) == 1:
            return states[0]
        same = zip(*(state.slots for state in states))
        return replace(TemporalState.cat(states), slots=tuple(map(FrameImages.join, same)))

    def _with_slots(self, other: Any, change: Callable[[FrameImages], FrameImages]) -> RingState:
        return replace(other, slots=tuple(change(slot) for slot in self.slots))

    def _mix(self, mixed: Any, other: Any, come_from: Sequence[int]) -> RingState:
        """`mixed` with the slots' rows taken from this state and then `other`."""
        if self.slots is other.slots:  # one was reset: its age alone says that it is empty
            return replace(mixed, slots=self.slots)
        pairs = zip(self.slots, other.slots)
        return replace(mixed, slots=tuple(FrameImages.join([mine, theirs]).take(come_from) for mine, theirs in pairs))


@MODELS.register_module()
class FrameRing(TemporalSlot):
    """Keeps the image features and rigs of the last frames, and hands them on as `Readout.past`; no parameters.

    Args:
        point_cloud_range, align: as in TemporalSlot; with 'none' the rigs stay where they were.
        num_frames: frames that a head sees, the current one included; at least 2.
        levels: positions of the image levels that are kept, those that the head reads; None is all. Others come back empty, of
            0 by 0 cells.
    """

    needs_levels, reads_bev, hands_on = True, False, 'past'

    def __init__(self, point_cloud_range: Sequence[float], num_frames: int = 2, align: str = 'network',
                 levels: Sequence[int] | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(point_cloud_range, align=align, init_cfg=init_cfg)
        if num_frames < 2:
            raise ValueError(f'temporal.num_frames must be at least 2 (1 is no memory: temporal=None), got {num_frames}')
        self.num_slots, self.read_levels = num_frames - 1, levels

    def init_state(self, features: SceneFeatures) -> RingState:
        """An empty ring for frames like these."""
        slot = self._slot(features.blank())
        batch, like = features.batch_size, features.any_tensor
        return RingState(
            **empty_clock(batch, like), slots=(slot,) * self.num_slots,
            slot_time_s=torch.zeros(batch, self.num_slots, dtype=torch.float64, device=like.device),
            slot_global_from_bev=torch.eye(4, dtype=torch.float64, device=like.device).repeat(batch, self.num_slots, 1, 1))

    def align(self, state: RingState, frames: FrameBatch) -> RingState:
        """Scenes that begin forget; rigs are moved when they are read."""
        return state.reset(frames.starts)

    def read(self, state: RingState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """The earlier frames, newest first."""
        cur_from_slot = self.cur_from(state.slot_global_from_bev, frames)
        past, now = [], self._slot(features)
        for i, slot in enumerate(state.slots):
            there = tuple(age > i for age in state.ages)
            slot = slot.like(now, there)
            rig = slot.rig if self.alignment == 'none' else slot.rig.moved(cur_from_slot[:, i])
            past.append(_shown(slot.levels, rig, frames.time_s - state.slot_time_s[:, i], there))
        return Readout(past=History.of_step(past), carried=now)

    def write(self, state: RingState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> RingState:
        """The ring with this frame in front; the oldest falls out."""
        del outputs, truth

        def push(stored: Tensor, new: Tensor) -> Tensor:
            return torch.cat([new[:, None], stored[:, :-1]], dim=1)

        return RingState(
            **clock(frames, state), slots=(readout.carried, *state.slots[:-1]),
            slot_time_s=push(state.slot_time_s, frames.time_s),
            slot_global_from_bev=push(state.slot_global_from_bev, frames.global_from_bev))

    def _slot(self, features: SceneFeatures) -> FrameImages:
        if features.levels is None or features.calibration is None:
            raise ValueError('temporal=FrameRing keeps image features, but the frames have none: set model.img_backbone')
        count = len(features.levels)
        asked = range(count) if self.read_levels is None else self.read_levels
        if missing := [level for level in asked if not -count <= level < count]:
            raise ValueError(f'temporal.levels={list(asked)} has {missing}, but img_neck gives {count} levels: 0 is the first, '
                             '-1 the last')
        kept = [level % count for level in asked]
        levels = (level if i in kept else level[..., :0, :0] for i, level in enumerate(features.levels))
        return FrameImages(tuple(levels), features.calibration)


def _shown(levels: tuple[Tensor, ...], rig: Calibration, age_s: Tensor, there: tuple[bool, ...]) -> PastFrame:
    """A past frame whose scenes without it show nothing."""
    if all(there):
        return PastFrame(levels, rig, age_s, there)
    here = torch.tensor(there).to(age_s.device, non_blocking=True)
    rows = [row for row, ok in enumerate(there) if ok]
    absent = [row for row, ok in enumerate(there) if not ok]
    parts = ([rig.select(rows)] if rows else []) + [rig.select(absent).without_cameras()]
    order = [(rows + absent).index(row) for row in range(len(there))]
    return PastFrame(tuple(torch.where(here.view(-1, 1, 1, 1, 1), level, torch.zeros_like(level)) for level in levels),
                     Calibration.cat(parts).select(order), torch.where(here, age_s, 0.0), there)
