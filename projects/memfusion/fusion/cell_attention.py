"""FuTr++, stage sample, among the active cells. In: (V, K, D). Out: cells that know each other; FiLM of the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from projects.encodings.multihead import CrossAttention, encoding_of

from .token_poses import cell_views


class CellSelfAttention(nn.Module):
    """Active cells attend to each other before they read the images, as queries do in SparseBEV (Liu et al., ICCV 2023).

    Cost grows with the square of the active cells, and not with the map.

    Args:
        dim: D.
        num_heads: heads; must divide D.
        point_cloud_range: of the BEV, metres; needed for an encoding.
        encoding: settings of build_encoding, where the cells lie in the attention; None is none.
    """

    def __init__(self, dim: int, num_heads: int = 8, point_cloud_range: Sequence[float] = (),
                 encoding: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.encoding, self.point_cloud_range = encoding_of(encoding, dim, num_heads), tuple(point_cloud_range)

    def forward(self, query: Tensor, cells_m: Tensor, bev_shape: Sequence[int]) -> Tensor:
        """query (V, K, D) of the cells at cells_m (V, K, 2) of a BEV of bev_shape (H, W) -> (V, K, D)."""
        bound = None
        if self.encoding is not None:
            views = cell_views(cells_m, self.point_cloud_range, bev_shape)
            bound = self.encoding.bind(views, views, *self.attention.shape)
        return self.norm(query + self.attention(query, query, encoding=bound))


class CellFiLM(nn.Module):
    """What the active cells found, told to all cells: one scale and one shift per channel, from their weighted mean.

    It starts as the identity, and is the identity where no active cell read anything.

    Args:
        bev_channels: C.
        dim: D of the cells.
    """

    def __init__(self, bev_channels: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU())
        self.output = nn.Linear(dim, 2 * bev_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, cells: Tensor, weight: Tensor) -> Tensor:
        """cells (V, K, D), weight (V, K, 1) in 0..1 -> (V, 1, 2 C), scales and then shifts."""
        mean = (cells * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1e-6)
        return self.output(self.hidden(mean)) * weight.mean(1, keepdim=True)
