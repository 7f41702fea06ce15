"""PETRv2Fusion. In: BEV or none, image features and the rig. Out: BEV that coarse queries brought the images into, LiDAR frame.

    tokens     every feature cell of every camera, with an embedding of the points on its ray
    queries    one for each cell of a coarse grid, from the LiDAR BEV or learned
    layers     each query attends to all queries and to all tokens, nothing is sampled
    mix        brought to the BEV's cells, beside the LiDAR BEV through two layers; added to the LiDAR BEV, or the BEV itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.common.settings import build_part
from projects.encodings import Views
from projects.encodings.multihead import MultiheadAttention, encoding_of
from projects.memfusion.structures import Calibration

from .bev_queries import BEVQueries, check_bev_shape
from .frustum_tokens import FrustumTokens, ImageTokens
from .fusion_layer import FusionLayer, FusionOutput
from .token_poses import cell_views


class GlobalLayer(nn.Module):
    """Attention among the queries, attention to all tokens, feed-forward; each added to the queries and normalised after it.

    Args:
        dim: D.
        num_heads: heads of both attentions.
        ffn_channels: hidden channels of the feed-forward part.
        encoding: of `encoding_of`, where the cells lie in the attention among queries; None is none.
    """

    def __init__(self, dim: int, num_heads: int, ffn_channels: int, encoding: Any = None) -> None:
        super().__init__()
        self.encoding, self.shape = encoding, (num_heads, dim // num_heads)
        self.self_attention, self.cross_attention = MultiheadAttention(dim, num_heads), MultiheadAttention(dim, num_heads)
        self.feed_forward = nn.Sequential(nn.Linear(dim, ffn_channels), nn.ReLU(), nn.Linear(ffn_channels, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, query: Tensor, position: Tensor, tokens: ImageTokens, cells: Views | None = None) -> Tensor:
        """query (V, Q, D), position (1, Q, D) -> (V, Q, D); the cells' views are needed for an encoding."""
        asks = query + position
        bound = None if self.encoding is None else self.encoding.bind(cells, cells, *self.shape)
        query = self.norms[0](query + self.self_attention(asks, asks, query, encoding=bound))
        read = self.cross_attention(query + position, tokens.keys, tokens.values, keep=tokens.keep)
        query = self.norms[1](query + read)
        return self.norms[2](query + self.feed_forward(query))


def layer_settings(num_layers: int = 3, dim: int = 256, num_heads: int = 8, ffn_channels: int = 1024,
                   query_grid: Sequence[int] = (32, 32)) -> tuple[int, int, int, int, tuple[int, int]]:
    """The settings `layers`; ValueError where they do not fit."""
    if num_layers < 1 or len(query_grid) != 2 or min(query_grid) < 1:
        raise ValueError(f'fusion_layer.layers: num_layers={num_layers} must be at least 1, and query_grid={list(query_grid)} '
                         'rows and columns, at least 1 each')
    return num_layers, dim, num_heads, ffn_channels, (query_grid[0], query_grid[1])


def self_attention_settings(encoding: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
    """The settings `self_attention`."""
    return encoding


@MODELS.register_module()
class PETRv2Fusion(FusionLayer):
    """Coarse BEV queries that attend to all image tokens at once (PETRv2, Liu et al., ICCV 2023). With a LiDAR BEV it starts as
    the identity, and is the identity for a frame without any camera.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer; one level.
        bev_shape: (H, W) of the BEV; the detector fills it in.
        query_init: 'lidar', queries are means of the LiDAR's BEV; 'learned', a vector for each, for cameras alone.
        layers: dict(num_layers=3, dim=256, num_heads=8, ffn_channels=1024, query_grid=(32, 32)).
        self_attention: dict(encoding=None), settings of build_encoding: where the coarse cells lie in the attention among
            them, e.g. dict(type='HW+P').
        embedding: dict(depths=64, depth_kind='lid' | 'linear', start_m=1.0, position_range=None, gate=True), see FrustumTokens.

    Raises:
        ValueError: naming the key, where a setting does not fit.
    """

    grid_keys = dict(point_cloud_range='point_cloud_range', bev_shape='bev_shape')
    typed_parts = dict(layers=layer_settings, self_attention=self_attention_settings, embedding=FrustumTokens)
    """What is built of the settings that are parts of the config without a type."""

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        bev_shape: Sequence[int],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        query_init: str = 'lidar',
        layers: Mapping[str, Any] | None = None,
        self_attention: Mapping[str, Any] | None = None,
        embedding: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        if len(self.strides) != 1:
            raise ValueError(f'PETRv2Fusion attends to one image level, got strides {self.strides}')
        num_layers, dim, heads, hidden, grid = build_part(layer_settings, layers, 'model.fusion_layer.layers')
        rows, columns = bev_shape
        self.bev_shape, self.makes_bev = (rows, columns), query_init == 'learned'
        self.queries = BEVQueries(bev_channels, dim, grid, self.point_cloud_range, query_init)
        self.tokens = build_part(FrustumTokens, embedding, 'model.fusion_layer.embedding', img_channels, dim, self.strides[0],
                                 self.point_cloud_range)
        encoding = build_part(self_attention_settings, self_attention, 'model.fusion_layer.self_attention')
        self.layers = nn.ModuleList(
            GlobalLayer(dim, heads, hidden, encoding_of(encoding, dim, heads, layer)) for layer in range(num_layers))
        self.knows_cells = encoding is not None
        self.mix = nn.Sequential(nn.Conv2d(dim if self.makes_bev else dim + bev_channels, dim, 1), nn.ReLU())
        self.output = nn.Conv2d(dim, bev_channels, 1)
        if not self.makes_bev:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.get_parameter('bias'))

    def fuse_levels(self, bev_lidar: Tensor | None, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels."""
        check_bev_shape(bev_lidar, self.bev_shape)
        there = calibration.cam_valid
        query, position, cells_m = self.queries(bev_lidar, len(there))
        tokens = self.tokens(maps[0], calibration)
        cells = cell_views(cells_m[:1], self.point_cloud_range, self.queries.grid) if self.knows_cells else None
        for layer in self.layers:
            query = layer(query, position, tokens, cells)
        coarse = query.transpose(1, 2).unflatten(2, self.queries.grid)
        spread = F.interpolate(coarse, self.bev_shape, mode='bilinear', align_corners=False)
        if bev_lidar is None:
            return FusionOutput(self.output(self.mix(spread)), {})
        update = self.output(self.mix(torch.cat([spread, bev_lidar.to(spread.dtype)], dim=1)))
        return FusionOutput(bev_lidar + (update * there.any(1)[:, None, None, None]).to(bev_lidar.dtype), {})
