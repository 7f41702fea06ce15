"""Baselines in the slot `temporal`. In: BEV features (B, C, H, W). Out: BEV that remembers; same events as TemporalMemory.

Both add to the current features a projection that starts at zero, so that training starts from the plain detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import constant_init
from torch import Tensor, nn

from projects.geometry import warp_bev
from projects.memfusion.structures import (
    FrameBatch,
    HeadOutputs,
    Readout,
    SceneFeatures,
    SceneTruth,
    TemporalState,
    empty_clock,
)

from .cell_cues import CopyGate, copy_into
from .cell_values import build_value
from .channel_norm import LOCAL_NORM
from .slot import TemporalSlot, clock


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that starts at zero."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    constant_init(conv, 0.0)
    return conv


@dataclass(frozen=True)
class RecurrentState(TemporalState):
    """hidden: (B, Ch, H, W) in the last frame's grid."""

    hidden: Tensor


@MODELS.register_module()
class ConvGRUFusion(TemporalSlot):
    """A convolutional GRU over BEV features (Ballas et al., ICLR 2016); the hidden state is warped once a step.

    Args:
        in_channels: C.
        hidden_dim: Ch.
        point_cloud_range, alpha, align: as in TemporalSlot.
    """

    hands_on = 'bev'

    def __init__(self, in_channels: int, point_cloud_range: Sequence[float], hidden_dim: int = 64, alpha: float = 1.0,
                 align: str = 'network', init_cfg: dict | None = None) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        self.hidden_dim = self.state_dim = hidden_dim
        self.reduce = nn.Conv2d(in_channels, hidden_dim, 1)
        self.gates = nn.Conv2d(2 * hidden_dim, 2 * hidden_dim, 3, padding=1)
        self.candidate = nn.Conv2d(2 * hidden_dim, hidden_dim, 3, padding=1)
        self.proj = zero_conv(hidden_dim, in_channels)

    def init_state(self, features: SceneFeatures) -> RecurrentState:
        """An empty state for features like these."""
        bev = features.needed_bev
        hidden = torch.zeros(bev.shape[0], self.state_dim, *bev.shape[-2:], device=bev.device)
        return RecurrentState(**empty_clock(bev.shape[0], bev), hidden=hidden)

    def align(self, state: RecurrentState, frames: FrameBatch) -> RecurrentState:
        """Resets scenes that begin; warps the hidden state."""
        state = state.reset(frames.starts)
        if self.alignment != 'network':
            return state
        cur_from_prev = self.cur_from(state.global_from_bev, frames)
        return replace(state, hidden=warp_bev(state.hidden, cur_from_prev, self.point_cloud_range))

    def read(self, state: RecurrentState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """bev (B, C, H, W) -> bev + alpha * proj(next hidden state)."""
        del frames
        bev = features.needed_bev
        current, hidden = self.reduce(bev), state.hidden
        reset, update = self.gates(torch.cat([current, hidden], dim=1)).sigmoid().chunk(2, dim=1)
        candidate = self.candidate(torch.cat([current, reset * hidden], dim=1)).tanh()
        hidden = (1 - update) * hidden + update * candidate
        return Readout(torch.add(bev, self.proj(hidden), alpha=self.alpha), carried=hidden)

    def write(self, state: RecurrentState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> RecurrentState:
        """The state after this frame."""
        del outputs, truth
        hidden = readout.carried.to(state.hidden.dtype)
        return RecurrentState(**clock(frames, state), hidden=hidden)


@dataclass(frozen=True)
class StackState(TemporalState):
    """maps: (B, k - 1, Ch, H, W), oldest first, each in its own grid, with map_valid and map_global_from_bev."""

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'map_global_from_bev')

    maps: Tensor
    map_valid: Tensor
    map_global_from_bev: Tensor


@MODELS.register_module()
class StackFusion(TemporalSlot):
    """Multi-frame fusion: the last k ego-aligned BEV maps, concatenated (as BEVDet4D, Huang and Huang, 2022).

    Each stored map keeps its own pose and is warped once, from there to the current frame; missing history is 0.

    Args:
        in_channels: C.
        num_frames: k, the current frame included; at least 2.
        hidden_dim: channels to which each map is reduced before it is stored.
        observed: also store, move and mix which cells hold points.
        copy: start as CopyMemory does, all else being the stack's: maps are its 'projection', and where nothing is observed now
            their mean stands in for the features. Needs `observed`.
        point_cloud_range, alpha, align: as in TemporalSlot.
    """

    hands_on = 'bev'

    def __init__(self, in_channels: int, point_cloud_range: Sequence[float], num_frames: int = 4, hidden_dim: int = 64,
                 observed: bool = False, copy: bool = False, alpha: float = 1.0, align: str = 'network',
                 init_cfg: dict | None = None) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        if num_frames < 2:
            raise ValueError(f'temporal.num_frames must be at least 2 (1 is the plain detector), got {num_frames}')
        if copy and not observed:
            raise ValueError('temporal.copy=True copies where nothing is observed: set temporal.observed=True as well')
        self.num_maps, self.hidden_dim, self.observed = num_frames - 1, hidden_dim, observed
        reduce: Any = build_value('projection', in_channels, hidden_dim) if copy else nn.Conv2d(in_channels, hidden_dim, 1)
        self.reduce = reduce
        self.mix = ConvModule(num_frames * (hidden_dim + observed), hidden_dim, 3, padding=1, norm_cfg=LOCAL_NORM)
        self.proj = zero_conv(hidden_dim, in_channels)
        self.gate = CopyGate(in_channels) if copy else None

    def fit_values(self, features: Tensor) -> None:
        """Fits the projection of `copy` to BEV features (N, C) of single cells."""
        if self.gate is not None:
            self.reduce.fit(features)

    def init_state(self, features: SceneFeatures) -> StackState:
        """An empty state for features like these."""
        bev = features.needed_bev
        batch, shape = bev.shape[0], bev.shape[-2:]
        eye = torch.eye(4, dtype=torch.float64, device=bev.device)
        return StackState(
            **empty_clock(batch, bev),
            maps=torch.zeros(batch, self.num_maps, self.hidden_dim + self.observed, *shape, device=bev.device),
            map_valid=torch.zeros(batch, self.num_maps, dtype=torch.bool, device=bev.device),
            map_global_from_bev=eye.expand(batch, self.num_maps, 4, 4).clone())

    def align(self, state: StackState, frames: FrameBatch) -> StackState:
        """Resets scenes that begin; the maps are moved when they are read."""
        return state.reset(frames.starts)

    def read(self, state: StackState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """bev (B, C, H, W) -> bev + alpha * proj(convolution over k maps)."""
        bev = features.needed_bev
        current, maps = self._entry(bev, features.observed), state.maps
        if self.alignment == 'network':
            cur_from_map = self.cur_from(state.map_global_from_bev, frames)
            maps = warp_bev(maps.flatten(0, 1), cur_from_map.flatten(0, 1), self.point_cloud_range).view_as(maps)
        maps = maps * state.map_valid[..., None, None, None]
        added, out = self.proj(self.mix(torch.cat([current, maps.flatten(1, 2)], dim=1))), bev
        if self.gate is not None:
            count = state.map_valid.sum(dim=1).clamp(min=1).view(-1, 1, 1, 1)
            mean = (maps[:, :, :self.hidden_dim].sum(dim=1) / count).to(bev.dtype)
            share = state.map_valid.any(dim=1).view(-1, 1, 1, 1).to(bev.dtype).expand_as(bev[:, :1])
            gate = self.alpha * self.gate(torch.cat([bev, current[:, self.hidden_dim:]], dim=1))
            out = copy_into(bev, self.reduce, mean, share, gate)
        return Readout(torch.add(out, added, alpha=self.alpha), carried=current)

    def record(self, features: SceneFeatures) -> Readout:
        """As `read`, without what the past adds."""
        return Readout(features.needed_bev, carried=self._entry(features.needed_bev, features.observed))

    def _entry(self, bev: Tensor, observed: Tensor | None) -> Tensor:
        """What is stored of a frame: (B, Ch, H, W), with `observed` (B, Ch + 1, H, W)."""
        if not self.observed:
            return self.reduce(bev)
        if observed is None:
            raise ValueError('temporal.observed=True needs to know which cells hold points: the model has no LiDAR')
        return torch.cat([self.reduce(bev), observed.to(bev.dtype)], dim=1)

    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """What the projection of `copy` learns by itself."""
        del readout, truth
        return {} if self.gate is None else self.reduce.loss(features.needed_bev)

    def write(self, state: StackState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> StackState:
        """The state after this frame."""
        del outputs, truth

        def push(stored: Tensor, new: Tensor) -> Tensor:
            return torch.cat([stored[:, 1:], new[:, None].to(stored.dtype)], dim=1)

        return StackState(
            **clock(frames, state), maps=push(state.maps, readout.carried),
            map_valid=push(state.map_valid, torch.ones_like(frames.valid)),
            map_global_from_bev=push(state.map_global_from_bev, frames.global_from_bev))
