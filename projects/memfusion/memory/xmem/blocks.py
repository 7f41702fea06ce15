"""Blocks of the XMem network. In: a frame's features and those of each object. Out: features of each object.

Objects are a dimension of their own, (B, K, C, h, w): the frame is shared by them. Parameter names are those of the
published checkpoint (Cheng and Schwing, ECCV 2022, section 3 and appendix).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bev_network import SensoryUpdate, join_agents


class ResidualBlock(nn.Module):
    """Two activated 3x3 convolutions and a shortcut: (N, Cin, h, w) -> (N, Cout, h, w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        same = in_channels == out_channels
        self.downsample = None if same else nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(F.relu(x))))
        return out + (x if self.downsample is None else self.downsample(x))


class ChannelGate(nn.Module):
    """Scales channels by what their mean and their maximum say: (N, C, h, w) -> (N, C, h, w)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, channels // reduction), nn.ReLU(), nn.Linear(channels // reduction, channels))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        return x * logits.sigmoid()[:, :, None, None]


class SpatialGate(nn.Module):
    """Scales cells by what the maximum and the mean of their channels say: (N, C, h, w) -> (N, C, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential()
        self.spatial.add_module('conv', nn.Conv2d(2, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(summary).sigmoid()


class CBAM(nn.Sequential):
    """Channel gate, then spatial gate (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_module('ChannelGate', ChannelGate(channels))
        self.add_module('SpatialGate', SpatialGate())


class FeatureFusion(nn.Module):
    """Fuses the frame with each object: (B, Cx, h, w) and (B, K, Cg, h, w) -> (B, K, Cout, h, w)."""

    def __init__(self, frame_channels: int, object_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(frame_channels + object_channels, out_channels)
        self.attention = CBAM(out_channels)
        self.block2 = ResidualBlock(out_channels, out_channels)

    def forward(self, frame: Tensor, objects: Tensor) -> Tensor:
        fused = self.block1(join_agents(frame, objects))
        fused = self.block2(fused + self.attention(fused))
        return fused.unflatten(0, objects.shape[:2])


class Upsample(nn.Module):
    """Doubles the resolution of object features and adds the frame's: (B, Cs, 2h, 2w), (B, K, C, h, w) -> (.., 2h, 2w)."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = ResidualBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, objects: Tensor) -> Tensor:
        finer = F.interpolate(objects.flatten(0, 1), scale_factor=2, mode='bilinear', align_corners=False)
        finer = finer.unflatten(0, objects.shape[:2]) + self.skip_conv(skip)[:, None]
        return self.out_conv(finer.flatten(0, 1)).unflatten(0, objects.shape[:2])


class DecoderSensoryUpdate(SensoryUpdate):
    """The sensory update of every frame: sees the decoder at strides 16, 8 and 4, and the logits at stride 4."""

    def __init__(self, channels: tuple[int, int, int], mid_channels: int, hidden_dim: int) -> None:
        super().__init__(mid_channels, hidden_dim)
        self.g16_conv = nn.Conv2d(channels[0], mid_channels, 1)
        self.g8_conv = nn.Conv2d(channels[1], mid_channels, 1)
        self.g4_conv = nn.Conv2d(channels[2], mid_channels, 1)
        self.add_module('transform', self._modules.pop('transform'))  # parameters in the order of the published checkpoint

    def update(self, g16: Tensor, g8: Tensor, g4: Tensor, sensory: Tensor) -> Tensor:
        """(B, K, C, h, w), (B, K, C, 2h, 2w), (B, K, C, 4h, 4w) and (B, K, Ch, h, w) -> (B, K, Ch, h, w)."""
        g16, g8, g4 = g16.flatten(0, 1), g8.flatten(0, 1), g4.flatten(0, 1)
        seen = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2)) + self.g4_conv(F.avg_pool2d(g4, 4))
        return self(seen, sensory.flatten(0, 1)).view_as(sensory)
