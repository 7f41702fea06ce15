"""FuTr++, stage sample: the frame around a reader. In: active cells. Out: BEV, those cells updated by what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from projects.geometry import cell_positions

from .cell_attention import CellFiLM, CellSelfAttention
from .film import modulate
from .fusion_state import ActiveCells, FusionState, normalised


class CellUpdate(nn.Module):
    """gather -> (attend to each other) -> read -> feed-forward -> scatter back -> (tell all cells).

    It starts as the identity; unseen cells are changed by the last part alone. After the gather nothing depends on the cells
    that are not active, except for the copy of the BEV at the end.

    Args:
        bev_channels: C.
        dim: D of the queries.
        point_cloud_range: of the BEV, metres.
        reader: `reader(query (V, K, D), cells_m (V, K, 2), state) -> Reading`.
        self_attn: among the active cells; None is none.
        film_back: from the active cells to all; None is none.
    """

    def __init__(self, bev_channels: int, dim: int, point_cloud_range: Sequence[float], reader: nn.Module,
                 self_attn: CellSelfAttention | None = None, film_back: CellFiLM | None = None) -> None:
        super().__init__()
        self.point_cloud_range = tuple(point_cloud_range)
        self.content = nn.Linear(bev_channels, dim)
        self.position = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.self_attn, self.reader, self.film_back = self_attn, reader, film_back
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
        query = query if self.self_attn is None else self.self_attn(query, cells_m, state.bev.shape[-2:])
        reading = self.reader(query, cells_m, state)
        hidden = self.norm(query + reading.features.to(query.dtype))
        hidden = hidden + self.feed_forward(hidden)
        weight = reading.trust if cells.score is None else reading.trust * cells.score[..., None]
        update = (self.output(hidden) * weight).to(flat.dtype).transpose(1, 2)
        flat = flat + update if index is None else flat.scatter_add(2, index, update)
        bev = flat.unflatten(2, state.bev.shape[-2:])
        if self.film_back is not None:
            bev = modulate(bev, self.film_back(hidden, weight), bev.new_ones(1, 1, 1).expand(len(bev), 1, flat.shape[2]))
        return replace(state, bev=bev)

    def _positions(self, bev: Tensor, cells: ActiveCells) -> Tensor:
        """(V, K, 2) centres of the cells, metres."""
        centers = cell_positions(bev.shape[-2:], self.point_cloud_range, bev.device).flatten(0, 1).float()
        return centers.expand(len(bev), -1, -1) if cells.index is None else centers[cells.index]
