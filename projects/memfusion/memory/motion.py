"""Ego-motion cues. In: poses, stamps, features of this frame and the last. Out: channels and a discount for memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, constant_init
from torch import Tensor, nn

from projects.geometry import ego_motion
from projects.memfusion.structures import FrameBatch, TemporalState

NUM_EGO_CHANNELS = 4
_SCALES = (10.0, 10.0, 0.5, 0.5)  # m/s, m/s, rad/s, s: brings the channels to order 1
CUES = ('difference', 'speed')


def ego_values(memory: TemporalState, frames: FrameBatch) -> Tensor:
    """(B, 4) ego velocity (vx, vy in the current BEV frame, m/s), yaw rate (rad/s) and time gap (s); 0 without history."""
    gap = torch.where(memory.num_frames > 0, frames.time_s - memory.time_s, torch.ones_like(frames.time_s))
    # Padding repeats a stamp: its gap is not used, but must not be 0.
    gap = torch.where(gap > 0, gap, torch.ones_like(gap))
    bev_from_lidar = frames.bev_from_global @ frames.global_from_lidar
    motion = ego_motion(memory.global_from_lidar, frames.global_from_lidar, bev_from_lidar, gap)
    values = torch.cat([motion, gap[:, None]], dim=1)
    return torch.where((memory.num_frames > 0)[:, None], values, torch.zeros_like(values)).float()


def append_ego_channels(bev: Tensor, values: Tensor) -> Tensor:
    """bev (B, C, H, W), values (B, 4) -> (B, C + 4, H, W), the values scaled to order 1 and spread over all cells."""
    scaled = torch.stack([value / scale for value, scale in zip(values.unbind(1), _SCALES)], dim=1)
    return torch.cat([bev, scaled[..., None, None].expand(-1, -1, *bev.shape[-2:]).to(bev.dtype)], dim=1)


class MotionGate(BaseModule):
    """Discounts what memory says where the world moved.

    Args:
        cues: any of 'difference' (how much the frame's feature differs from the last frame's, moved by the ego motion) and
            'speed' (of the ego).
        hidden: channels of the small network.
    """

    def __init__(self, cues: Sequence[str] = CUES, hidden: int = 16) -> None:
        super().__init__()
        unknown = [cue for cue in cues if cue not in CUES]
        if unknown or not cues:
            raise ValueError(f'temporal.motion_gate.cues must be one or more of {CUES}, got {tuple(cues)}')
        self.cues = tuple(cues)
        first, last = nn.Conv2d(len(self.cues), hidden, 3, padding=1), nn.Conv2d(hidden, 1, 3, padding=1)
        self.net = nn.Sequential(first, nn.ReLU(inplace=True), last)
        constant_init(last, 0.0, bias=3.0)  # starts almost open: memory counts 0.95

    def forward(self, feature: Tensor, last_feature: Tensor, ego: Tensor, has_history: Tensor) -> Tensor:
        """feature, last_feature (B, D, h, w), ego (B, 4), has_history (B,) bool -> factor (B, 1, h, w) in 0..1."""
        maps = []
        if 'difference' in self.cues:
            difference = (feature - last_feature).abs().mean(dim=1, keepdim=True)
            maps.append(difference * has_history[:, None, None, None])
        if 'speed' in self.cues:
            speed = ego[:, :2].norm(dim=1) / _SCALES[0]
            maps.append(speed[:, None, None, None].expand(-1, 1, *feature.shape[-2:]).to(feature.dtype))
        return self.net(torch.cat(maps, dim=1)).sigmoid()
