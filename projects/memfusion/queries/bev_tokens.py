"""Queries. In: LiDAR's BEV features (B, C, H, W). Out: tokens that know where their cells lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.frustum import normalised
from projects.encodings.sine import sine_points
from projects.geometry import cell_positions
from projects.memfusion.structures import TokenPlaces

from .decoder import Tokens


class BEVTokens(nn.Module):
    """Cells of the BEV as context of queries, as in CMT (Yan et al., ICCV 2023).

    Args:
        in_channels: C.
        dim: E.
        point_cloud_range: what the BEV covers, metres.
        stride: cells along either side that are averaged into one token.
    """

    def __init__(self, in_channels: int, dim: int, point_cloud_range: Sequence[float], stride: int = 1) -> None:
        super().__init__()
        if stride < 1:
            raise ValueError(f'bev_tokens.stride must be at least 1, got {stride}')
        self.point_cloud_range, self.stride, self.dim = tuple(point_cloud_range), stride, dim
        self.project = nn.Linear(in_channels, dim)
        self.norm = nn.LayerNorm(dim)
        self.position = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, bev: Tensor, observed: Tensor | None = None) -> Tokens:
        """(B, C, H, W) -> Tokens, rows first; ValueError where the stride does not divide H and W.

        Args:
            bev: as above.
            observed: (B, 1, H, W) bool, cells that hold a point: tokens of frames without a single one count for nothing. None
                is not known.
        """
        if bev.shape[2] % self.stride or bev.shape[3] % self.stride:
            raise ValueError(f'bev_tokens.stride={self.stride} does not divide the BEV of {tuple(bev.shape[2:])} cells')
        pooled = F.avg_pool2d(bev, self.stride) if self.stride > 1 else bev
        features = self.norm(self.project(pooled.flatten(2).transpose(1, 2)))
        centres = cell_positions(pooled.shape[2:], self.point_cloud_range, bev.device).flatten(0, 1)
        cells = normalised(F.pad(centres, (0, 1)), self.point_cloud_range).float()
        sines = sine_points(cells, self.dim, order=(1, 0))
        places = TokenPlaces((pooled.shape[2], pooled.shape[3]))
        keep = None if observed is None else observed.flatten(1).any(1)[:, None].expand(features.shape[:2])
        return Tokens(features + self.position(sines), features, keep, (places,))

