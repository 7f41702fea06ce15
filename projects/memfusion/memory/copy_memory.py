"""Slot `temporal`: a memory of BEV cells that is copied back. In: features of one frame, CopyState. Out: BEV that remembers.

The ego-moved cell of every stored frame answers, softmax over the frames and a null element; where nothing is observed now,
the answer stands in for the features: `bev + g (remembered - s bev) + mix`, s the attention that is not given to null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, constant_init
from torch import Tensor, nn

from projects.geometry import full_precision, warp_bev
from projects.memfusion.structures import (
    FrameBatch,
    HeadOutputs,
    Readout,
    SceneFeatures,
    SceneTruth,
    TemporalState,
    empty_clock,
)

from .baselines import zero_conv
from .cell_values import CopyGate, build_value, copy_into
from .channel_norm import LOCAL_NORM
from .slot import TemporalSlot, clock

_BLIND = 'temporal=CopyMemory needs to know which cells hold points: the model has no LiDAR'
_EXTRA = 2
"""Stored beside value and key: what a cell is worth, and that it lies on the map."""


class CellCues(nn.Conv2d):
    """What single cells of a frame say, a 3x3 convolution over [bev, observed]: logits (B, 2, H, W) of the null element now,
    and of what the cell is worth when it is remembered.

    At the start what was seen is worth e times what was not, and null has a weight of 0.14 against 1 of a cell.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels + 1, 2, 3, padding=1)
        constant_init(self, 0.0)
        self.weight.data[1, -1, 1, 1] = 1.0
        nn.init.constant_(self.bias.data[:1], -2.0)  # type: ignore[union-attr]


class CellKeys(BaseModule):
    """XMem's key vocabulary for single cells: key and selection, anisotropic L2 (Cheng and Schwing, ECCV 2022, eq. 5); what it
    calls shrinkage is the cell's worth here.

    Args:
        in_channels, dim: C and CK.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.key, self.selection = nn.Conv2d(in_channels, dim, 1), nn.Conv2d(in_channels, dim, 1)

    def similarity(self, bev: Tensor, stored: Tensor) -> Tensor:
        """bev (B, C, H, W) asks keys (B, F, CK, H, W) of its own cells -> (B, F, H, W), at most 0."""
        query, selection = self.key(bev)[:, None], self.selection(bev).sigmoid()[:, None]
        return -(selection * (stored - query).square()).sum(dim=2) / stored.shape[2] ** 0.5


@dataclass(frozen=True)
class CopyState(TemporalState):
    """maps: (B, F, V + CK + 2, H, W), oldest first, each in its own grid: value, key, worth, and 1 everywhere on the map;
    with slot_valid (B, F), slot_time_s and slot_global_from_bev."""

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'slot_global_from_bev')

    maps: Tensor
    slot_valid: Tensor
    slot_time_s: Tensor
    slot_global_from_bev: Tensor


@MODELS.register_module()
class CopyMemory(TemporalSlot):
    """Copies remembered features to where nothing is observed now. Untrained it already does: no weight is between the features
    as they were and the head, which can read them.

    Without history the output is bev, bit for bit; with an untrained mix it is `bev + alpha g (remembered - s bev)`.

    Args:
        in_channels: C.
        num_slots: F, frames that are remembered; the oldest leaves first.
        mem_every: every how many frames a frame is written.
        value: what is stored of a cell, one of VALUES; `copy=True` needs 'bev' or 'projection'.
        value_dim: V; 'bev' has C.
        key_dim: CK of keys; None is none: cells then answer by age and worth alone.
        mix_dim: channels of the convolution over what is there and what was; it starts at zero. None is none.
        copy: whether what is remembered stands in for what is not observed.
        half: store maps in half precision.
        point_cloud_range, alpha, align: as in TemporalSlot.
    """

    def __init__(
        self,
        in_channels: int,
        point_cloud_range: Sequence[float],
        num_slots: int = 3,
        mem_every: int = 1,
        value: str = 'projection',
        value_dim: int = 32,
        key_dim: int | None = None,
        mix_dim: int | None = 32,
        copy: bool = True,
        half: bool = False,
        alpha: float = 1.0,
        align: str = 'network',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        if num_slots < 1 or mem_every < 1:
            raise ValueError(f'temporal.num_slots and mem_every must be at least 1, got {num_slots} and {mem_every}')
        self.num_slots, self.mem_every, self.half = num_slots, mem_every, half
        self.value = build_value(value, in_channels, value_dim)
        if copy and not self.value.copies:
            raise ValueError(f"temporal.copy=True needs temporal.value 'bev' or 'projection', got {value!r}")
        if not copy and mix_dim is None:
            raise ValueError('temporal.copy=False with temporal.mix_dim=None remembers nothing: set one of them')
        self.cues = CellCues(in_channels)
        self.gate = CopyGate(in_channels) if copy else None
        self.log_decay = nn.Parameter(torch.zeros(()))
        self.keys = CellKeys(in_channels, key_dim) if key_dim else None
        self.stored_dim = self.value.dim + (key_dim or 0) + _EXTRA
        self.mix: nn.Module | None = None
        if mix_dim is not None:
            self.narrow = nn.Conv2d(self.value.dim, mix_dim, 1) if self.value.dim > mix_dim else nn.Identity()
            width = 2 * min(self.value.dim, mix_dim) + 2
            self.mix = ConvModule(width, mix_dim, 3, padding=1, norm_cfg=LOCAL_NORM)
            self.proj = zero_conv(mix_dim, in_channels)

    def fit_values(self, features: Tensor) -> None:
        """Fits what is stored to BEV features (N, C) of single cells."""
        self.value.fit(features)

    def init_state(self, features: SceneFeatures) -> CopyState:
        """An empty state for features like these."""
        bev, slots = features.needed_bev, self.num_slots
        batch, device = bev.shape[0], bev.device
        return CopyState(
            **empty_clock(batch, bev),
            maps=torch.zeros(batch, slots, self.stored_dim, *bev.shape[-2:], device=device,
                             dtype=torch.float16 if self.half else torch.float32),
            slot_valid=torch.zeros(batch, slots, dtype=torch.bool, device=device),
            slot_time_s=torch.zeros(batch, slots, dtype=torch.float64, device=device),
            slot_global_from_bev=torch.eye(4, dtype=torch.float64, device=device).repeat(batch, slots, 1, 1))

    def align(self, state: CopyState, frames: FrameBatch) -> CopyState:
        """Resets scenes that begin; the maps are moved when they are read."""
        return state.reset(frames.starts)

    def read(self, state: CopyState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """bev (B, C, H, W) -> bev with what was seen where nothing is seen now.

        Raises:
            ValueError: where nobody knows which cells hold points.
        """
        bev = features.needed_bev
        if features.observed is None:
            raise ValueError(_BLIND)
        observed = features.observed.to(bev.dtype)
        seen, value = torch.cat([bev, observed], dim=1), self.value(bev)
        null, worth = self.cues(seen).split(1, dim=1)
        entry, filled = self._entry(bev, value, worth), self._filled(state)
        if not filled:
            return Readout(bev, carried=entry)
        weights, moved = self._attend(state, bev, null, frames, filled)
        remembered = (weights[:, :-1, None] * moved[:, :, :self.value.dim]).sum(dim=1).to(bev.dtype)
        share = weights[:, :-1].sum(dim=1, keepdim=True).to(bev.dtype)
        added = torch.zeros_like(bev)
        if self.gate is not None:
            added = copy_into(bev, self.value.decode(remembered, share), share, self.gate(seen))
        if self.mix is not None:
            mixed = self.mix(torch.cat([self.narrow(value), self.narrow(remembered), share, observed], dim=1))
            has_history = state.slot_valid.any(dim=1).view(-1, 1, 1, 1)
            added = added + self.proj(mixed) * has_history
        return Readout(bev + self.alpha * added, carried=entry)

    def record(self, features: SceneFeatures) -> Readout:
        """As `read`, without what the past adds."""
        bev = features.needed_bev
        if features.observed is None:
            raise ValueError(_BLIND)
        worth = self.cues(torch.cat([bev, features.observed.to(bev.dtype)], dim=1))[:, 1:]
        return Readout(bev, carried=self._entry(bev, self.value(bev), worth))

    def _entry(self, bev: Tensor, value: Tensor, worth: Tensor) -> Tensor:
        """(B, V + CK + 2, H, W), what is stored of a frame."""
        key = () if self.keys is None else (self.keys.key(bev),)
        return torch.cat([value, *key, worth, torch.ones_like(worth)], dim=1)

    def _filled(self, state: CopyState) -> int:
        """Slots that any of the scenes has filled, as the host knows from how many frames were seen."""
        return min(self.num_slots, max(-(-age // self.mem_every) for age in state.ages))

    def _attend(self, state: CopyState, bev: Tensor, null: Tensor, frames: FrameBatch,
                filled: int) -> tuple[Tensor, Tensor]:
        """Weights (B, filled + 1, H, W) of the newest slots' cells, null last, and their maps in the current frame."""
        maps, valid = state.maps[:, -filled:], state.slot_valid[:, -filled:]
        moved = maps.float()
        if self.alignment == 'network':
            cur_from_slot = self.cur_from(state.slot_global_from_bev[:, -filled:], frames)
            moved = warp_bev(moved.flatten(0, 1), cur_from_slot.flatten(0, 1), self.point_cloud_range).view_as(moved)
        age_s = (frames.time_s[:, None] - state.slot_time_s[:, -filled:]).float()
        return self._weigh(moved, bev, null, age_s, valid), moved

    @full_precision
    def _weigh(self, moved: Tensor, bev: Tensor, null: Tensor, age_s: Tensor, valid: Tensor) -> Tensor:
        """(B, F + 1, H, W) attention of every cell to its own place in F frames and to null; 0 where a slot has nothing."""
        inside = moved[:, :, -1].detach()
        logits = moved[:, :, -_EXTRA] - self.log_decay.exp() * age_s[..., None, None] + inside.clamp(min=1e-9).log()
        if self.keys is not None:
            logits = logits + self.keys.similarity(bev.float(), moved[:, :, self.value.dim:-_EXTRA])
        logits = logits.masked_fill((inside <= 0) | ~valid[..., None, None], -torch.inf)
        return torch.cat([logits, null.float()], dim=1).softmax(dim=1)

    @torch.no_grad()
    def attention(self, features: SceneFeatures, state: CopyState, frames: FrameBatch) -> Tensor:
        """Which frames every cell reads: (B, F + 1, H, W), null last; they sum to 1. `state` is aligned to `frames`."""
        bev, filled = features.needed_bev, self._filled(state)
        answer = bev.new_zeros(bev.shape[0], self.num_slots + 1, *bev.shape[-2:])
        answer[:, -1] = 1.0
        if filled:
            assert features.observed is not None
            null = self.cues(torch.cat([bev, features.observed.to(bev.dtype)], dim=1))[:, :1]
            answer[:, -filled - 1:] = self._attend(state, bev, null, frames, filled)[0]
        return answer

    def write(self, state: CopyState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> CopyState:
        """The state after this frame."""
        del outputs, truth
        writes = state.num_frames % self.mem_every == 0

        def push(stored: Tensor, new: Tensor) -> Tensor:
            moved = torch.cat([stored[:, 1:], new[:, None].to(stored.dtype)], dim=1)
            return moved if self.mem_every == 1 else torch.where(writes.view(-1, *[1] * (stored.dim() - 1)), moved, stored)

        return CopyState(
            **clock(frames, state), maps=push(state.maps, readout.carried),
            slot_valid=push(state.slot_valid, torch.ones_like(frames.valid)),
            slot_time_s=push(state.slot_time_s, frames.time_s),
            slot_global_from_bev=push(state.slot_global_from_bev, frames.global_from_bev))

    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """What the kind of values learns by itself."""
        del readout, truth
        return self.value.loss(features.needed_bev)
