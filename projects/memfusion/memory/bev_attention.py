"""Slot `temporal`, BEVFormer's. In: BEV features (B, C, H, W). Out: BEV that attended to the one before; recurrent.

What is added to the features starts at zero, so that training starts from the plain detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.temporal_attention import TemporalSelfAttention
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

from .baselines import zero_conv
from .slot import TemporalSlot, clock


@dataclass(frozen=True)
class BEVState(TemporalState):
    """bev: (B, D, H, W) of the last frame, and known: (B, 1, H, W), 1 where it says something; in the last frame's grid."""

    bev: Tensor
    known: Tensor


class TemporalLayer(nn.Module):
    """Temporal self-attention and feed-forward, each added to the queries and normalised after it.

    Args:
        dim: D.
        attention: TemporalSelfAttention of two entries.
        ffn_channels: hidden channels of the feed-forward part.
    """

    def __init__(self, dim: int, attention: TemporalSelfAttention, ffn_channels: int) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = nn.Sequential(nn.Linear(dim, ffn_channels), nn.ReLU(), nn.Linear(ffn_channels, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, query: Tensor, position: Tensor, bev_shape: Sequence[int], past: Tensor) -> Tensor:
        """query, past (B, Q, D), position (1, Q, D) -> (B, Q, D)."""
        query = self.norms[0](query + self.attention(query, position, bev_shape, past))
        return self.norms[1](query + self.feed_forward(query))


@MODELS.register_module()
class BEVFormerTemporal(TemporalSlot):
    """Temporal self-attention over BEV features, of the LiDAR, fused, or of cameras alone (BEVFormer, Li et al., ECCV 2022).

    What the last frame made is moved into the current one and read together with the current BEV. Where it knows nothing (no
    frame before, or beyond its border) the current BEV stands in for it, as published for the first frame.

    Args:
        in_channels: C.
        point_cloud_range, alpha, align: as in TemporalSlot.
        hidden_dim: D.
        num_layers, num_heads, num_points: of the attention.
        ffn_channels: hidden channels of the feed-forward parts.
        published_quirks: True, False or names. 'mixed_batch': offsets and weights of a batch's samples come from each other's
            BEV, see TemporalSelfAttention.
    """

    hands_on = 'bev'

    def __init__(self, in_channels: int, point_cloud_range: Sequence[float], hidden_dim: int = 128, num_layers: int = 1,
                 num_heads: int = 8, num_points: int = 4, ffn_channels: int = 256, alpha: float = 1.0, align: str = 'network',
                 published_quirks: bool | Sequence[str] = False, init_cfg: dict | None = None) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        if num_layers < 1:
            raise ValueError(f'temporal.num_layers must be at least 1, got {num_layers}')
        self.hidden_dim = hidden_dim
        self.reduce = nn.Conv2d(in_channels, hidden_dim, 1)
        self.position = nn.Sequential(nn.Linear(2, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim))
        attentions = (TemporalSelfAttention(hidden_dim, num_heads, num_points, 2, published_quirks) for _ in range(num_layers))
        self.layers = nn.ModuleList(TemporalLayer(hidden_dim, attention, ffn_channels) for attention in attentions)
        self.proj = zero_conv(hidden_dim, in_channels)

    def init_state(self, features: SceneFeatures) -> BEVState:
        """An empty state for features like these."""
        bev = features.needed_bev
        empty = torch.zeros(bev.shape[0], self.hidden_dim + 1, *bev.shape[-2:], device=bev.device)
        return BEVState(**empty_clock(bev.shape[0], bev), bev=empty[:, :-1], known=empty[:, -1:])

    def align(self, state: BEVState, frames: FrameBatch) -> BEVState:
        """Resets scenes that begin; warps the BEV of before."""
        state = state.reset(frames.starts)
        if self.alignment != 'network':
            return state
        cur_from_prev = self.cur_from(state.global_from_bev, frames)
        moved = warp_bev(torch.cat([state.bev, state.known], dim=1), cur_from_prev, self.point_cloud_range)
        return replace(state, bev=moved[:, :-1], known=moved[:, -1:])

    def read(self, state: BEVState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """bev (B, C, H, W) -> bev + alpha * proj(queries that attended)."""
        del frames
        bev = features.needed_bev
        shape, current = bev.shape[-2:], self.reduce(bev)
        past = (state.bev + (1 - state.known) * current).flatten(2).transpose(1, 2)
        query = current.flatten(2).transpose(1, 2)
        centres = TemporalSelfAttention.centres(shape, bev.device)
        position = self.position(2 * centres - 1)[None]
        for layer in self.layers:
            query = layer(query, position, shape, past.to(query.dtype))
        attended = query.transpose(1, 2).unflatten(2, shape)
        return Readout(bev + self.alpha * self.proj(attended), carried=attended)

    def write(self, state: BEVState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> BEVState:
        """The state after this frame."""
        del outputs, truth
        bev = readout.carried.to(state.bev.dtype)
        return BEVState(**clock(frames, state), bev=bev, known=torch.ones_like(bev[:, :1]))
