"""Fusion, BEV queries. In: BEV features of the LiDAR (V, C, H, W), or none. Out: one query for each cell of a grid over it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from projects.encodings.sine import sine_points
from projects.geometry import cell_positions, pool_adaptive

from .fusion_state import normalised

INITS = ('lidar', 'learned')


def check_query_init(query_init: str) -> None:
    """ValueError unless queries come from the LiDAR's BEV or are learned."""
    if query_init not in INITS:
        raise ValueError(f'fusion_layer.query_init must be one of {", ".join(INITS)}, got {query_init!r}')


def check_bev_shape(bev_lidar: Tensor | None, bev_shape: tuple[int, int]) -> None:
    """ValueError unless the LiDAR's BEV, where there is one, has the cells of the grid."""
    if bev_lidar is not None and tuple(bev_lidar.shape[-2:]) != bev_shape:
        raise ValueError(f'bev_lidar has {tuple(bev_lidar.shape[-2:])} cells, but fusion_layer.bev_shape, which model.grid '
                         f'fills in, is {bev_shape}')


class BEVQueries(nn.Module):
    """Content and position of the cells of a grid over the BEV, row-major, x along the columns.

    Args:
        bev_channels: C.
        dim: D.
        grid: rows and columns; the BEV's own shape is a query for each cell of it, a coarser one takes means.
        point_cloud_range: of the BEV, metres.
        query_init: 'lidar', content from the LiDAR's BEV; 'learned', a vector for each query, for cameras alone.
    """

    def __init__(self, bev_channels: int, dim: int, grid: Sequence[int], point_cloud_range: Sequence[float],
                 query_init: str) -> None:
        super().__init__()
        check_query_init(query_init)
        rows, columns = grid
        self.grid, self.dim, self.point_cloud_range = (rows, columns), dim, tuple(point_cloud_range)
        self.content: nn.Module = nn.Linear(bev_channels, dim) if query_init == 'lidar' else nn.Embedding(rows * columns, dim)
        if dim % 4:
            raise ValueError(f'fusion_layer.layers.dim={dim} must divide by 4: sine and cosine of x and y')
        self.position = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, bev_lidar: Tensor | None, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """content (V, Q, D), position (1, Q, D), cells_m (V, Q, 2) centres in metres."""
        if bev_lidar is None:
            learned = self.content.get_parameter('weight')
            content = learned.expand(frames, -1, -1)
        else:
            pooled = bev_lidar if tuple(bev_lidar.shape[-2:]) == self.grid else pool_adaptive(bev_lidar, self.grid)
            content = self.content(pooled.flatten(2).transpose(1, 2))
        device = content.device
        cells_m = cell_positions(self.grid, self.point_cloud_range, device).flatten(0, 1).float()
        parts = (normalised(cells_m, self.point_cloud_range) + 1) / 2
        sine = sine_points(parts, self.dim // 2, (1, 0))
        return content, self.position(sine)[None], cells_m.expand(frames, -1, -1)
