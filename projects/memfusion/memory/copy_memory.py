"""Slot `temporal`: a memory of BEV cells that is copied back. In: features of one frame, CopyState. Out: BEV that remembers.

The ego-moved cell of every stored frame answers, softmax over the frames and a null element; where nothing is observed now,
the answer stands in for the features: `bev + g (remembered - s bev) + mix`, s the attention that is not given to null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.geometry import BEVGrid, full_precision, warp_bev
from projects.geometry.frame_sampling import build_keeper
from projects.geometry.rigid import invert_affine
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
from .cell_cues import CellCues, CellKeys, CopyGate, convolve_once, copy_into
from .cell_values import build_value
from .channel_norm import LOCAL_NORM
from .slot import TemporalSlot, clock
from .slot_choice import slots_that_stay
from .world_map import check_world_range, moved_on, newest_seen, world_pose

_BLIND = 'temporal=CopyMemory needs to know which cells hold points: the model has no LiDAR'
_EXTRA = 3
"""Stored beside value and key: what a cell is worth, whether it held a point, and that it lies on the map."""


@dataclass(frozen=True)
class CopyState(TemporalState):
    """F frames and, with long-term memory, what came before them.

    Attributes:
        maps: (B, F, V + CK + 3, H, W), oldest first, each in its own grid: value, key, worth, observed, and 1 everywhere.
        slot_valid, slot_time_s, slot_global_from_bev: (B, F), (B, F) and (B, F, 4, 4).
        world: (B, V + CK + 4, H, W) the same of a map that lies still in the world, and its cells' age in seconds at
            world_time_s (B,); 0 where nothing lies. Without long-term memory (B, 0, H, W).
        global_from_world: (B, 4, 4).
    """

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'slot_global_from_bev', 'global_from_world')

    maps: Tensor
    slot_valid: Tensor
    slot_time_s: Tensor
    slot_global_from_bev: Tensor
    world: Tensor
    world_time_s: Tensor
    global_from_world: Tensor


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
        long_term: keep what leaves the slots in a map that lies still in the world (world_map.py), read as one slot more. Its
            bytes are those of one slot, its horizon is the scene.
        mem_policy: which frame leaves full slots: a FrameKeeper, e.g. dict(type='sa'); the newest stays. None is the oldest.
        point_cloud_range, alpha, align: as in TemporalSlot.
    """

    hands_on = 'bev'

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
        long_term: bool = False,
        mem_policy: Mapping[str, Any] | None = None,
        alpha: float = 1.0,
        align: str = 'network',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        if num_slots < 1 or mem_every < 1:
            raise ValueError(f'temporal.num_slots and mem_every must be at least 1, got {num_slots} and {mem_every}')
        if long_term:
            check_world_range(point_cloud_range, align)
        if mem_policy is not None and (long_term or align != 'network'):
            raise ValueError('temporal.mem_policy chooses which frames stay, by their poses: it needs align=\'network\', and '
                             'long_term has a rule of its own: leave one of them out')
        self.num_slots, self.mem_every, self.half, self.long_term = num_slots, mem_every, half, long_term
        self.mem_policy = None if mem_policy is None else build_keeper(mem_policy)
        self.value = build_value(value, in_channels, value_dim)
        if copy and not self.value.copies:
            raise ValueError(f"temporal.copy=True needs temporal.value 'bev' or 'projection', got {value!r}")
        if not copy and mix_dim is None:
            raise ValueError('temporal.copy=False with temporal.mix_dim=None remembers nothing: set one of them')
        self.cues = CellCues(in_channels)
        self.gate = CopyGate(in_channels) if copy else None
        self.log_decay = nn.Parameter(torch.zeros(()))
        self.log_world_decay = nn.Parameter(torch.tensor(-1.5)) if long_term else None
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
        kind: dict[str, Any] = dict(device=device, dtype=torch.float16 if self.half else torch.float32)
        eye = torch.eye(4, dtype=torch.float64, device=device)
        return CopyState(
            **empty_clock(batch, bev), maps=torch.zeros(batch, slots, self.stored_dim, *bev.shape[-2:], **kind),
            world=torch.zeros(batch, (self.stored_dim + 1) * self.long_term, *bev.shape[-2:], **kind),
            world_time_s=torch.zeros(batch, dtype=torch.float64, device=device), global_from_world=eye.repeat(batch, 1, 1),
            slot_valid=torch.zeros(batch, slots, dtype=torch.bool, device=device),
            slot_time_s=torch.zeros(batch, slots, dtype=torch.float64, device=device),
            slot_global_from_bev=eye.repeat(batch, slots, 1, 1))

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
        layers = (self.cues,) if self.gate is None else (self.cues, self.gate)
        cues, *opened = convolve_once(seen, *layers)
        null, worth = cues.split(1, dim=1)
        entry, filled = self._entry(bev, value, worth, observed), self._filled(state)
        if not filled:
            return Readout(bev, carried=entry)
        weights, moved = self._attend(state, bev, null, frames, filled)
        remembered = (weights[:, :-1, None] * moved[:, :, :self.value.dim]).sum(dim=1).to(bev.dtype)
        share = weights[:, :-1].sum(dim=1, keepdim=True).to(bev.dtype)
        out = copy_into(bev, self.value, remembered, share, self.alpha * opened[0].sigmoid()) if opened else bev
        if self.mix is not None:
            mixed = self.mix(torch.cat([self.narrow(value), self.narrow(remembered), share, observed], dim=1))
            has_history = state.slot_valid.any(dim=1).view(-1, 1, 1, 1).to(bev.dtype)
            out = out + self.proj(mixed) * (self.alpha * has_history)
        return Readout(out, carried=entry)

    def record(self, features: SceneFeatures) -> Readout:
        """As `read`, without what the past adds."""
        bev = features.needed_bev
        if features.observed is None:
            raise ValueError(_BLIND)
        observed = features.observed.to(bev.dtype)
        worth = self.cues(torch.cat([bev, observed], dim=1))[:, 1:]
        return Readout(bev, carried=self._entry(bev, self.value(bev), worth, observed))

    def _entry(self, bev: Tensor, value: Tensor, worth: Tensor, observed: Tensor) -> Tensor:
        """(B, V + CK + 3, H, W), what is stored of a frame."""
        key = () if self.keys is None else (self.keys.key(bev),)
        return torch.cat([value, *key, worth, observed, torch.ones_like(worth)], dim=1)

    def _filled(self, state: CopyState) -> int:
        """Slots that any of the scenes has filled, as the host knows from how many frames were seen."""
        return min(self.num_slots, self._written(state))

    def _written(self, state: CopyState) -> int:
        """Frames that the oldest of the scenes has written."""
        return max(-(-age // self.mem_every) for age in state.ages)

    def _attend(self, state: CopyState, bev: Tensor, null: Tensor, frames: FrameBatch,
                filled: int) -> tuple[Tensor, Tensor]:
        """Weights (B, N + 1, H, W) and maps (B, N, V + CK + 3, H, W) in the current frame, of the newest slots, in front of
        these of the world's map where anything can lie in it; null last."""
        maps, valid = state.maps[:, -filled:], state.slot_valid[:, -filled:]
        moved = maps.float()
        if self.alignment == 'network':
            cur_from_slot = self.cur_from(state.slot_global_from_bev[:, -filled:], frames)
            moved = warp_bev(moved.flatten(0, 1), cur_from_slot.flatten(0, 1), self.point_cloud_range).view_as(moved)
        faded = self.log_decay.exp() * (frames.time_s[:, None] - state.slot_time_s[:, -filled:]).float()[..., None, None]
        if self.log_world_decay is not None and self._written(state) > self.num_slots:
            world = warp_bev(state.world.float(), self.cur_from(state.global_from_world, frames), self.point_cloud_range)
            there = world[:, -2:-1]  # shares of cells beside which nothing lies
            world = torch.cat([world[:, :-2] / there.clamp(min=1e-3), there, world[:, -1:] / there.clamp(min=1e-3)], dim=1)
            age_s = world[:, -1:] + (frames.time_s - state.world_time_s).float().view(-1, 1, 1, 1)
            moved, valid = torch.cat([world[:, None, :-1], moved], dim=1), F.pad(valid, (1, 0), value=True)
            faded = torch.cat([self.log_world_decay.exp() * age_s, faded.expand(-1, -1, *age_s.shape[-2:])], dim=1)
        return self._weigh(moved, bev, null, faded, valid), moved

    @full_precision
    def _weigh(self, moved: Tensor, bev: Tensor, null: Tensor, faded: Tensor, valid: Tensor) -> Tensor:
        """(B, N + 1, H, W) attention of every cell to its own place in N maps and to null; 0 where a map has nothing."""
        inside = moved[:, :, -1].detach()
        logits = moved[:, :, -_EXTRA] - faded + inside.clamp(min=1e-9).log()
        if self.keys is not None:
            logits = logits + self.keys.similarity(bev.float(), moved[:, :, self.value.dim:-_EXTRA])
        logits = logits.masked_fill((inside <= 0) | ~valid[..., None, None], -torch.inf)
        return torch.cat([logits, null.float()], dim=1).softmax(dim=1)

    @torch.no_grad()
    def attention(self, features: SceneFeatures, state: CopyState, frames: FrameBatch) -> Tensor:
        """Which frames every cell reads: (B, F + 1, H, W), null last, with long-term memory (B, F + 2, H, W), that first; they
        sum to 1. `state` is aligned to `frames`."""
        bev, filled = features.needed_bev, self._filled(state)
        answer = bev.new_zeros(bev.shape[0], self.num_slots + 1 + self.long_term, *bev.shape[-2:])
        answer[:, -1] = 1.0
        if filled:
            assert features.observed is not None
            null = self.cues(torch.cat([bev, features.observed.to(bev.dtype)], dim=1))[:, :1]
            weights = self._attend(state, bev, null, frames, filled)[0]
            answer[:, -weights.shape[1]:] = weights
        return answer

    @torch.no_grad()
    def copied(self, features: SceneFeatures, state: CopyState, frames: FrameBatch) -> Tensor:
        """(B, 1, H, W) in 0..1, how much of every cell is what was remembered instead of what is there: alpha, times gate
        where there is one, times the share that null does not get. `state` is aligned to `frames`."""
        share = 1 - self.attention(features, state, frames)[:, -1:]
        if self.gate is None:
            return self.alpha * share
        assert features.observed is not None
        bev = features.needed_bev
        return self.alpha * share * self.gate(torch.cat([bev, features.observed.to(bev.dtype)], dim=1)).to(share.dtype)

    def write(self, state: CopyState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> CopyState:
        """The state after this frame."""
        del outputs, truth
        writes = state.num_frames % self.mem_every == 0
        stays = slots_that_stay(self.mem_policy, state, state.maps[:, :, -2] > 0.5, frames, readout.carried[:, -2] > 0.5,
                                self.point_cloud_range)
        if self.long_term and self._written(state) >= self.num_slots:
            state = self._settle(state, frames, writes)

        def push(stored: Tensor, new: Tensor) -> Tensor:
            with torch.autocast(stored.device.type, enabled=False):  # it refuses float16 where it computes in bfloat16
                moved = torch.cat([stored[stays], new[:, None].to(stored.dtype)], dim=1)
            return moved if self.mem_every == 1 else torch.where(writes.view(-1, *[1] * (stored.dim() - 1)), moved, stored)

        return replace(
            state, **clock(frames, state), maps=push(state.maps, readout.carried),
            slot_valid=push(state.slot_valid, torch.ones_like(frames.valid)),
            slot_time_s=push(state.slot_time_s, frames.time_s),
            slot_global_from_bev=push(state.slot_global_from_bev, frames.global_from_bev))

    def _settle(self, state: CopyState, frames: FrameBatch, writes: Tensor) -> CopyState:
        """What the oldest slot holds goes into the world's map, of the scenes that write and whose slots are full."""
        leaves = (writes & state.slot_valid[:, 0]).view(-1, 1, 1, 1)
        height, width = state.world.shape[-2:]
        cell_m = BEVGrid.of_shape(self.point_cloud_range, (height, width)).cell_m
        pose = world_pose(frames.global_from_bev, cell_m)
        stored = moved_on(state.world.float(), state.global_from_world, pose, self.point_cloud_range)
        gap_s = (frames.time_s - state.world_time_s).float().view(-1, 1, 1, 1)
        stored = torch.cat([stored[:, :-1], stored[:, -1:] + gap_s * (stored[:, -2:-1] > 0.5)], dim=1)
        world_from_slot = invert_affine(pose) @ state.slot_global_from_bev[:, 0]
        new = warp_bev(state.maps[:, 0].float(), world_from_slot, self.point_cloud_range)
        age_s = (frames.time_s - state.slot_time_s[:, 0]).float().view(-1, 1, 1, 1).expand_as(new[:, :1])
        taken = newest_seen(stored[:, -2:-1], new[:, -1:], new[:, -2:-1]) & leaves
        whole = torch.cat([new[:, :-1] / new[:, -1:].clamp(min=1e-3), torch.ones_like(age_s), age_s], dim=1)
        world = torch.where(taken, whole, stored).to(state.world.dtype)

        def chosen(mine: Tensor, old: Tensor) -> Tensor:
            return torch.where(leaves.view(-1, *[1] * (mine.dim() - 1)), mine, old)

        return replace(state, world=chosen(world, state.world), world_time_s=chosen(frames.time_s, state.world_time_s),
                       global_from_world=chosen(pose, state.global_from_world))

    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """What the kind of values learns by itself."""
        del readout, truth
        return self.value.loss(features.needed_bev)
