"""FuTr. In: BEV, image features. Out: BEV (1 + scale) + shift, where all cameras together say one scale and shift per channel.

No geometry: which camera looks where makes no difference, so a calibration error makes none either.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.multihead import CrossAttention
from projects.geometry import pool_adaptive
from projects.memfusion.structures import Calibration

from .fusion_layer import FusionLayer, FusionOutput
from .token_grid import TokenGrid


@MODELS.register_module()
class FuTr(FusionLayer):
    """A transformer block whose camera tokens attend to the BEV, and whose mean modulates it. It starts as the identity.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer; one level.
        dim: D of the tokens.
        grid: rows and columns of tokens per camera; 1 is one token.
        bev_grid: rows and columns of tokens that the BEV is pooled to.
        num_heads: of the attention.
    """

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        dim: int = 128,
        grid: int | Sequence[int] = 1,
        bev_grid: Sequence[int] = (16, 16),
        num_heads: int = 8,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        if len(self.levels) != 1:
            raise ValueError(f'FuTr reads one image level, got fusion_layer.levels {self.levels}')
        rows, columns = bev_grid
        self.bev_grid = (rows, columns)
        self.camera_tokens = TokenGrid(img_channels, dim, self.strides[0], grid)
        self.bev_tokens = nn.Linear(bev_channels, dim)
        self.attention = CrossAttention(dim, num_heads)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.output = nn.Linear(dim, 2 * bev_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def fuse_levels(self, bev_lidar: Tensor, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels; of the calibration, only which cameras and pixels are there."""
        tokens = self.camera_tokens(maps[0], calibration)
        camera, valid = tokens.features.flatten(1, 2), tokens.valid.flatten(1, 2)[..., None]  # (V, N * T, D)
        bev = self.bev_tokens(pool_adaptive(bev_lidar, self.bev_grid).flatten(2).transpose(1, 2))
        camera = self.norm_attention(camera + self.attention(camera, bev))
        camera = self.norm_feed_forward(camera + self.feed_forward(camera))
        mean = camera.masked_fill(~valid, 0).sum(1) / valid.sum(1).clamp(min=1)
        modulation = self.output(mean) * valid.any(1)
        scale, shift = modulation[..., None, None].to(bev_lidar.dtype).chunk(2, dim=1)
        return FusionOutput(bev_lidar * (1 + scale) + shift, {})
