"""Memory network `image`: the published XMem, fed by BEV features through a 1x1 adapter to three channels, or by images.

The adapted map is padded to a multiple of 16 as XMem pads its frames, so the memory grid may reach beyond the BEV:
`map_range` says how far. In: a frame's BEV, masks and sensory state. Out: keys, values, occupancy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .bev_network import MemoryQuery
from .xmem import XMem, load_checkpoint
from .xmem.network import STRIDE


@dataclass(frozen=True)
class ImageFeatures:
    """What XMem needs again to decode and to encode values: the padded frame (B, 3, H', W') and f16, f8, f4."""

    frame: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


@MODELS.register_module()
class ImageMemoryNetwork(BaseModule):
    """XMem (Cheng and Schwing, ECCV 2022) over BEV features. The same interface as BEVMemoryNetwork.

    Its BatchNorms stay in eval mode, as the published network is trained.

    Args:
        in_channels: channels C of the BEV features (ego channels not counted).
        bev_shape: (H, W) of the BEV features; the detector fills it in from model.grid.
        key_dim, value_dim, hidden_dim: of XMem.
        checkpoint: path of the official XMem.pth, loaded strictly; None starts from random weights.
        extra_channels: channels that are appended to the BEV features (ego motion); TemporalMemory fills it in.
        adapter: False feeds three channels to XMem as they are.

    Raises:
        ValueError: for other than three channels without an adapter.
    """

    grid_keys = dict(bev_shape='bev_shape')
    feature_dim = 256
    """D of the decoded features: the decoder's at stride 4, resized."""
    query_dim = 1024
    """Channels of a query's feature: XMem's at stride 16."""
    decoded_stride = 1
    """BEV cells per cell of the decoded features."""

    def __init__(
        self,
        in_channels: int,
        bev_shape: Sequence[int],
        key_dim: int = 64,
        value_dim: int = 512,
        hidden_dim: int = 64,
        checkpoint: str | None = None,
        extra_channels: int = 0,
        adapter: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels, self.key_dim, self.value_dim, self.hidden_dim = in_channels, key_dim, value_dim, hidden_dim
        height, width = bev_shape
        self.bev_shape = (height, width)
        bottom, right = -height % STRIDE, -width % STRIDE
        self.padding = (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)  # as XMem: the smaller half first
        if not adapter and in_channels + extra_channels != 3:
            raise ValueError(f'ImageMemoryNetwork: adapter=False takes 3 channels, got {in_channels + extra_channels}')
        self.adapter = nn.Conv2d(in_channels + extra_channels, 3, 1) if adapter else nn.Identity()
        self.xmem = XMem(key_dim, value_dim, hidden_dim)
        if checkpoint is not None:
            load_checkpoint(self.xmem, checkpoint)

    def train(self, mode: bool = True) -> ImageMemoryNetwork:
        """As usual, except that XMem's BatchNorms stay in eval mode."""
        super().train(mode)
        for module in self.xmem.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def map_shape(self, bev_shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) -> (Hm, Wm); raises ValueError for another BEV than the one it was built for."""
        if tuple(bev_shape) != self.bev_shape:
            raise ValueError(f'ImageMemoryNetwork was built for a BEV of {self.bev_shape} cells, got {tuple(bev_shape)}')
        height, width = self.mask_shape(bev_shape)
        return height // STRIDE, width // STRIDE

    def mask_shape(self, bev_shape: tuple[int, int]) -> tuple[int, int]:
        """(H, W) -> (H', W') of the masks that `encode_value` takes: the padded BEV."""
        left, right, top, bottom = self.padding
        return bev_shape[0] + top + bottom, bev_shape[1] + left + right

    def map_range(self, point_cloud_range: Sequence[float]) -> tuple[float, ...]:
        """The range in metres that the padded grid covers."""
        x_min, y_min, z_min, x_max, y_max, z_max = point_cloud_range
        left, right, top, bottom = self.padding
        cell_x, cell_y = (x_max - x_min) / self.bev_shape[1], (y_max - y_min) / self.bev_shape[0]
        return (x_min - left * cell_x, y_min - top * cell_y, z_min, x_max + right * cell_x, y_max + bottom * cell_y, z_max)

    def encode_query(self, bev: Tensor) -> MemoryQuery:
        """(B, C + extra, H, W) -> the frame's query, which is also its key when it is written."""
        frame = self.pad(self.adapter(bev))
        key, shrinkage, selection, f16, f8, f4 = self.xmem.encode_key(frame)
        return MemoryQuery(f16, key, shrinkage, selection, ImageFeatures(frame, f16, f8, f4))

    def decode(self, query: MemoryQuery, remembered: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """remembered (B, K, CV, Hm, Wm), sensory (B, K, Ch, Hm, Wm) -> what memory makes of the frame.

        Returns:
            decoded (B, D, H, W), the strongest of the agents; agent logits (B, K, H', W'); the new sensory state.
        """
        kept: ImageFeatures = query.carried
        sensory, logits, decoded = self.xmem.decoder(
            kept.f16, kept.f8, kept.f4, remembered, sensory, update_sensory=True)
        decoded = F.interpolate(decoded.amax(dim=1), size=logits.shape[-2:], mode='bilinear', align_corners=False)
        return self.crop(decoded), logits, sensory

    def encode_value(self, query: MemoryQuery, mask: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor]:
        """mask (B, K, H', W') in 0..1 -> value (B, K, CV, Hm, Wm) and the deeply updated sensory state."""
        kept: ImageFeatures = query.carried
        return self.xmem.encode_value(kept.frame, kept.f16, sensory, mask, deep_update=True)

    def pad(self, maps: Tensor) -> Tensor:
        """(..., H, W) -> (..., H', W')."""
        return F.pad(maps, self.padding)

    def crop(self, padded: Tensor) -> Tensor:
        """(..., H', W') -> (..., H, W): takes the padding off."""
        left, _, top, _ = self.padding
        height, width = self.bev_shape
        return padded[..., top:top + height, left:left + width]
