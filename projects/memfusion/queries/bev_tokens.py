"""Queries. In: LiDAR's BEV features (B, C, H, W). Out: tokens that know where their cells lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.frustum import normalised
from projects.encodings.sine import sine_points
from projects.geometry import cell_positions
from projects.memfusion.structures import TokenPlaces

from .decoder import Tokens


@dataclass(frozen=True)
class BEVTokenSettings:
    """How wide the BEV is, and how many of its cells along either side are averaged into one token."""

    in_channels: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f'stride must be at least 1, got {self.stride}')


class BEVTokens(nn.Module):
    """Cells of the BEV as context of queries, as in CMT (Yan et al., ICCV 2023).

    Args:
        settings: as there.
        dim: E.
        point_cloud_range: what the BEV covers, metres.
    """

    def __init__(self, settings: BEVTokenSettings, dim: int, point_cloud_range: Sequence[float]) -> None:
        super().__init__()
        self.point_cloud_range, self.stride, self.dim = tuple(point_cloud_range), settings.stride, dim
        self.project = nn.Linear(settings.in_channels, dim)
        self.norm = nn.LayerNorm(dim)
        self.position = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, bev: Tensor, says: Tensor | None = None) -> Tokens:
        """(B, C, H, W) -> Tokens, rows first; ValueError where the stride does not divide H and W.

        Args:
            bev: as above.
            says: (B,) bool, frames whose BEV says anything: the tokens of others count for nothing. None is all.
        """
        if bev.shape[2] % self.stride or bev.shape[3] % self.stride:
            raise ValueError(f'bev_tokens.stride={self.stride} does not divide the BEV of {tuple(bev.shape[2:])} cells')
        pooled = F.avg_pool2d(bev, self.stride) if self.stride > 1 else bev
        features = self.norm(self.project(pooled.flatten(2).transpose(1, 2)))
        centres = cell_positions(pooled.shape[2:], self.point_cloud_range, bev.device).flatten(0, 1)
        cells = normalised(F.pad(centres, (0, 1)), self.point_cloud_range).float()
        sines = sine_points(cells, self.dim, order=(1, 0))
        places = TokenPlaces((pooled.shape[2], pooled.shape[3]))
        keep = None if says is None else says[:, None].expand(features.shape[:2])
        return Tokens(features + self.position(sines), features, keep, (places,))

