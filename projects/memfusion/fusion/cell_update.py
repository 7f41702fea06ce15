"""FuTr++, stage sample: the frame around a reader. In: active cells. Out: BEV, those cells updated by what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from projects.geometry import cell_positions

from .fusion_state import ActiveCells, FusionState, normalised


class CellUpdate(nn.Module):
    """gather -> read -> feed-forward -> scatter back. It starts as the identity; unseen cells are never changed.

    After the gather nothing depends on the cells that are not active, except for the copy of the BEV at the end.

    Args:
        bev_channels: C.
        dim: D of the queries.
        point_cloud_range: of the BEV, metres.
        reader: `reader(query (V, K, D), cells_m (V, K, 2), state) -> Reading`.
    """

    def __init__(self, bev_channels: int, dim: int, point_cloud_range: Sequence[float], reader: nn.Module) -> None:
        super().__init__()
        self.point_cloud_range = tuple(point_cloud_range)
        self.content = nn.Linear(bev_channels, dim)
        self.position = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.reader = reader
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.output = nn.Linear(dim, bev_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, state: FusionState, cells: ActiveCells) -> FusionState:
        """The state with an updated bev."""
        index = None if cells.index is None else cells.index[:, None].expand(-1, state.bev.shape[1], -1)
        flat = state.bev.flatten(2)  # (V, C, H * W)
        features = flat if index is None else flat.gather(2, index)
        cells_m = self._positions(state.bev, cells)
        query = self.content(features.transpose(1, 2)) + self.position(normalised(cells_m, self.point_cloud_range))
        reading = self.reader(query, cells_m, state)
        hidden = self.norm(query + reading.features.to(query.dtype))
        update = self.output(hidden + self.feed_forward(hidden)) * reading.trust
        if cells.score is not None:
            update = update * cells.score[..., None]
        update = update.to(flat.dtype).transpose(1, 2)
        flat = flat + update if index is None else flat.scatter_add(2, index, update)
        return replace(state, bev=flat.unflatten(2, state.bev.shape[-2:]))

    def _positions(self, bev: Tensor, cells: ActiveCells) -> Tensor:
        """(V, K, 2) centres of the cells, metres."""
        centers = cell_positions(bev.shape[-2:], self.point_cloud_range, bev.device).flatten(0, 1).float()
        return centers.expand(len(bev), -1, -1) if cells.index is None else centers[cells.index]
