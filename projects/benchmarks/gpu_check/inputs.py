"""Benchmark. In: a device. Out: numbers drawn alike for every device, a rig of cameras, the time steps of a scene."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from projects.benchmarks.ring import ring
from projects.memfusion.structures import Calibration, FrameBatch, FrameMeta

RANGE = (-16.0, -16.0, -3.0, 16.0, 16.0, 3.0)
BEV_CELLS = 32
IMAGE = (64, 96)
STRIDE = 8


class Draw:
    """Draws tensors on the CPU, the same for every device, and keeps them for their gradients."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.drawn: list[Tensor] = []

    def __call__(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(len(self.drawn))
        self.drawn.append(torch.randn(*shape, generator=generator).to(self.device).requires_grad_())
        return self.drawn[-1]

    def weights(self, module: nn.Module) -> nn.Module:
        """The module on the device, none of whose weights is zero; its parameters are kept too."""
        generator = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        module = module.to(self.device)
        self.drawn += module.parameters()
        return module


def rig(cameras: int, frames: int, device: str) -> Calibration:
    """`cameras` level cameras around the LiDAR, the same in all frames."""
    height, width = IMAGE
    one = ring(cameras, IMAGE, 48.0, (width / 2 - 0.5, height / 2 - 0.5), turned_rad=0.1)
    return Calibration.cat([one] * frames).to(device)


def time_step(index: int, scenes: int, device: str) -> FrameBatch:
    """Frame `index` of scenes in which the ego drives and turns."""
    yaw, pose = 0.05 * index, np.eye(4)
    pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    pose[:2, 3] = [300 + 1.6 * index, 0.3 * index]
    metas = [FrameMeta(
        sample_token=f'{scene}-{index}', scene_token=str(scene), frame_index=index, is_scene_start=index == 0,
        is_scene_end=False, timestamp_s=1.5e9 + 0.5 * index, global_from_lidar=pose, bev_aug=np.eye(4), frame_valid=True,
        is_keyframe=True) for scene in range(scenes)]
    return FrameBatch.from_metas(metas, torch.device(device))
