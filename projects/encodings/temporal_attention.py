"""Encodings. In: BEV queries, the BEV before them. Out: deformable self-attention over both, as BEVFormer's.

Of one entry (the queries alone) it is plain deformable self-attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .deformable import check_heads, into_heads, sample_weighted, start_offsets
from .quirks import parse_quirks

QUIRKS = ('mixed_batch',)


class TemporalSelfAttention(nn.Module):
    """Each cell reads around itself in the BEV before and in its own (Li et al., ECCV 2022); the mean of both is projected.

    Args:
        dim: D.
        num_heads: heads; must divide D.
        num_points: sampled points per head and entry.
        entries: 2 for the BEV before and the queries, 1 for the queries alone.
        published_quirks: True, False or names. 'mixed_batch': offsets and weights of a batch's samples come from each other's
            BEV (the first B rows of before 0, now 0, before 1, ...), which is the same for one sample.
    """

    def __init__(self, dim: int, num_heads: int = 8, num_points: int = 4, entries: int = 2,
                 published_quirks: bool | Sequence[str] = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if entries not in (1, 2):
            raise ValueError(f'TemporalSelfAttention.entries must be 1 or 2, got {entries}')
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'TemporalSelfAttention')
        self.shape = (num_heads, entries, num_points)
        size = num_heads * entries * num_points
        self.sampling_offsets = nn.Linear(entries * dim, 2 * size)
        self.attention_weights = nn.Linear(entries * dim, size)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        start_offsets(self.sampling_offsets, num_heads, entries, num_points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, position: Tensor | None, bev_shape: Sequence[int], past: Tensor | None = None,
                past_shift: Tensor | None = None) -> Tensor:
        """What the queries read, without the queries themselves: (B, Q, D).

        Args:
            query: (B, Q, D) of the cells of a BEV of bev_shape (H, W), row-major, x along W.
            position: (B or 1, Q, D), added to the queries for offsets and weights alone; None is none.
            past: (B, Q, D) BEV of before, in the current frame's cells but for past_shift; None is none: the queries stand in.
            past_shift: (B, 2) x and y that the cells of before lie further on, in parts of the BEV.
        """
        entries = [query] if self.shape[1] == 1 else [query if past is None else past, query]
        places, weights = self.plan(query, position, bev_shape, past, past_shift)
        value = into_heads(self.value_proj(torch.stack(entries, dim=1)).flatten(0, 1), bev_shape, self.shape[0])
        reads = sample_weighted([value], places.flatten(0, 1), weights.flatten(0, 1))
        return self.output_proj(reads.unflatten(0, (len(query), -1)).mean(1).to(query.dtype))

    def plan(self, query: Tensor, position: Tensor | None, bev_shape: Sequence[int], past: Tensor | None = None,
             past_shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """places (B, entries, Q, heads, 1, P, 2) in parts of the BEV and weights (B, entries, Q, heads, 1, P); as forward."""
        heads, entries, points = self.shape
        asks = query if position is None else query + position
        if entries == 2:
            before = query if past is None else past
            if 'mixed_batch' in self.quirks:
                before = torch.stack([before, query], dim=1).flatten(0, 1)[:len(query)]
            asks = torch.cat([before.to(asks.dtype), asks], dim=-1)
        offsets = self.sampling_offsets(asks).float().unflatten(-1, (heads, entries, 1, points, 2))
        weights = self.attention_weights(asks).float().unflatten(-1, (heads, entries, 1, points)).softmax(-1)
        height, width = bev_shape
        size = torch.stack([offsets.new_full((), side) for side in (width, height)])
        places = self.centres(bev_shape, query.device).view(1, 1, -1, 1, 1, 1, 2) + offsets.movedim(3, 1) / size
        if past_shift is not None and entries == 2:
            shift = torch.stack([past_shift.float(), torch.zeros_like(past_shift.float())], dim=1)
            places = places + shift.view(-1, 2, 1, 1, 1, 1, 2)
        return places, weights.movedim(3, 1)

    @staticmethod
    def centres(bev_shape: Sequence[int], device: torch.device) -> Tensor:
        """(Q, 2) x and y of the cells' centres, in parts of the BEV."""
        y, x = ((torch.arange(count, device=device, dtype=torch.float64) + 0.5) / count for count in bev_shape)
        return torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).flatten(0, 1).float()
