"""Memory network `bev`. In: a frame's BEV, masks and sensory state. Out: keys, values, occupancy at memory stride.

Keys, shrinkage, selection and values are projected straight from BEV features. The projections, the sensory update and
the deep update are XMem's (Cheng and Schwing, ECCV 2022, section 3); the encoder replaces its image backbones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.geometry import full_precision

from .channel_norm import LOCAL_NORM


@dataclass(frozen=True)
class MemoryQuery:
    """What a frame asks memory with.

    Attributes:
        feature: (B, D, Hm, Wm).
        key, selection: (B, CK, Hm, Wm).
        shrinkage: (B, 1, Hm, Wm).
        carried: what the network itself needs to decode and to encode values.
    """

    feature: Tensor
    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    carried: Any = field(default=None)


class SensoryUpdate(BaseModule):
    """XMem's gated recurrent update: (N, Cin, H, W), (N, Ch, H, W) -> (N, Ch, H, W)."""

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(in_channels + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, feature: Tensor, sensory: Tensor) -> Tensor:
        forget, update, new = self.transform(torch.cat([feature, sensory], dim=1)).chunk(3, dim=1)
        forget, update = forget.sigmoid(), update.sigmoid()
        return forget * sensory * (1 - update) + update * new.tanh()


class ResidualBlock(BaseModule):
    """(N, Cin, H, W) -> (N, Cout, H, W): a 1x1 shortcut plus two 3x3 convolutions.

    What a frame saw reaches the head through four of these and a read; without the shortcuts memory hardly learns within a
    few hundred steps.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.branch = nn.Sequential(
            ConvModule(in_channels, out_channels, 3, padding=1, norm_cfg=LOCAL_NORM, act_cfg=dict(type='ReLU')),
            nn.Conv2d(out_channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def join_agents(shared: Tensor, *own: Tensor) -> Tensor:
    """shared (B, D, h, w) beside own (B, K, C, h, w) tensors -> (B K, D + sum of C, h, w)."""
    agents = own[0].shape[1]
    parts = [shared[:, None].expand(-1, agents, -1, -1, -1), *own]
    return torch.cat(parts, dim=2).flatten(0, 1)


def union_logits(logits: Tensor) -> Tensor:
    """(B, K, h, w) logits of independent agents -> (B, 1, h, w) logits that any of them is there."""
    if logits.shape[1] == 1:
        return logits
    nobody = nn.functional.softplus(logits).sum(dim=1, keepdim=True)  # -log of the product of (1 - p)
    # Where all are surely absent it underflows to 0, whose logarithm has no gradient.
    return nobody + torch.log(-torch.expm1(-nobody.clamp(min=1e-20)))


def others_of(masks: Tensor) -> Tensor:
    """(B, K, h, w) -> for each agent the sum of all other agents' masks."""
    return masks.sum(dim=1, keepdim=True) - masks


@MODELS.register_module()
class BEVMemoryNetwork(BaseModule):
    """The light default memory network.

    Args:
        in_channels: channels C of the BEV features (ego channels not counted).
        key_dim: CK.
        value_dim: CV.
        hidden_dim: channels Ch of the sensory state.
        feature_dim: channels D of the frame feature, and of the query's (query_dim).
        memory_stride: BEV cells per memory cell along each axis.
        extra_channels: channels that are appended to the BEV features (ego motion); TemporalMemory fills it in.
    """

    def __init__(
        self,
        in_channels: int,
        key_dim: int = 64,
        value_dim: int = 128,
        hidden_dim: int = 64,
        feature_dim: int = 128,
        memory_stride: int = 4,
        extra_channels: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if memory_stride < 1:
            raise ValueError(f'memory_stride must be at least 1, got {memory_stride}')
        self.in_channels, self.key_dim, self.value_dim, self.hidden_dim = in_channels, key_dim, value_dim, hidden_dim
        self.feature_dim, self.memory_stride, self.decoded_stride = feature_dim, memory_stride, memory_stride
        self.query_dim = feature_dim
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels + extra_channels, feature_dim, memory_stride, stride=memory_stride),
            ResidualBlock(feature_dim, feature_dim))
        self.key_proj = nn.Conv2d(feature_dim, key_dim, 3, padding=1)
        self.shrinkage_proj = nn.Conv2d(feature_dim, 1, 3, padding=1)
        self.selection_proj = nn.Conv2d(feature_dim, key_dim, 3, padding=1)
        self.value_encoder = ResidualBlock(feature_dim + 2 + hidden_dim, value_dim)
        self.decoder = ResidualBlock(feature_dim + value_dim + hidden_dim, feature_dim)
        self.occupancy = nn.Conv2d(feature_dim, 1, 3, padding=1)
        self.sensory_update = SensoryUpdate(feature_dim, hidden_dim)
        self.sensory_deep_update = SensoryUpdate(value_dim, hidden_dim)

    def map_shape(self, bev_shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) -> (Hm, Wm); raises ValueError where the stride does not divide them."""
        height, width = bev_shape
        if height % self.memory_stride or width % self.memory_stride:
            raise ValueError(f'BEV of {height}x{width} cells does not divide by memory_stride {self.memory_stride}')
        return height // self.memory_stride, width // self.memory_stride

    def mask_shape(self, bev_shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) -> size of the masks that `encode_value` takes: that of the memory grid."""
        return self.map_shape(bev_shape)

    def map_range(self, point_cloud_range: Sequence[float]) -> tuple[float, ...]:
        """The range in metres that the memory grid covers: that of the BEV."""
        return tuple(point_cloud_range)

    def pad(self, maps: Tensor) -> Tensor:
        """BEV maps as the memory grid covers them: unchanged."""
        return maps

    def crop(self, maps: Tensor) -> Tensor:
        """Maps of the memory grid as the BEV covers them: unchanged."""
        return maps

    def encode_query(self, bev: Tensor) -> MemoryQuery:
        """(B, C + extra, H, W) -> the frame's query, which is also its key when it is written."""
        feature = self.encoder(bev)
        key, shrinkage, selection = self._project_keys(feature)
        return MemoryQuery(feature, key, shrinkage, selection)

    @full_precision  # rounded keys would spoil the similarities
    def _project_keys(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, Hm, Wm) -> key (B, CK, Hm, Wm), shrinkage (B, 1, Hm, Wm), selection (B, CK, Hm, Wm), float32."""
        precise = feature.float()
        return self.key_proj(precise), self.shrinkage_proj(precise).square() + 1, self.selection_proj(precise).sigmoid()

    def decode(self, query: MemoryQuery, remembered: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """remembered (B, K, CV, Hm, Wm), sensory (B, K, Ch, Hm, Wm) -> what memory makes of the frame.

        Returns:
            decoded (B, D, Hm, Wm), the strongest of the agents; agent logits (B, K, Hm, Wm); the new sensory state.
        """
        batch, agents = sensory.shape[:2]
        decoded = self.decoder(join_agents(query.feature, remembered, sensory))
        logits = self.occupancy(decoded)
        new_sensory = self.sensory_update(decoded, sensory.flatten(0, 1)).view_as(sensory)
        decoded = decoded.view(batch, agents, *decoded.shape[1:])
        return (decoded.amax(dim=1) if agents > 1 else decoded[:, 0]), logits.view(batch, agents, *logits.shape[-2:]), \
            new_sensory

    def encode_value(self, query: MemoryQuery, mask: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor]:
        """mask (B, K, Hm, Wm) in 0..1 -> value (B, K, CV, Hm, Wm) and the deeply updated sensory state."""
        masks = torch.stack([mask, others_of(mask)], dim=2)
        value = self.value_encoder(join_agents(query.feature, masks, sensory))
        deep = self.sensory_deep_update(value, sensory.flatten(0, 1)).view_as(sensory)
        return value.view(*sensory.shape[:2], *value.shape[1:]), deep
