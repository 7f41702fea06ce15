"""Benchmark, BEVFormer's attentions in plain torch, in the published order. In: BEV queries, levels or a BEV. Out: their reads.

Written from the papers' descriptions (Li et al., ECCV 2022; Zhu et al., ICLR 2021): a camera's queries are copied one sample
and camera after another, offsets and weights are made for each copy, the samples of all levels lie side by side before they are
weighed. Parameters have the published names; what the published code does oddly is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_plain(value: Tensor, shapes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """value (B, S, heads, d) of all levels, places (B, Q, heads, L, P, 2) in 0..1, weights (B, Q, heads, L, P) -> (B, Q, D)."""
    batch, _, heads, width = value.shape
    queries = places.shape[1]
    samples, start = [], 0
    for level, (rows, columns) in enumerate(shapes):
        part = value[:, start:start + rows * columns].flatten(2).transpose(1, 2).reshape(batch * heads, width, rows, columns)
        grid = (2 * places - 1)[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(F.grid_sample(part, grid, align_corners=False))
        start += rows * columns
    share = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    mixed = (torch.stack(samples, dim=-2).flatten(-2) * share).sum(-1)
    return mixed.view(batch, heads * width, queries).transpose(1, 2).contiguous()


class PlainSpatial(nn.Module):
    """Spatial cross-attention; parameters of SpatialCrossAttention."""

    def __init__(self, dim: int, num_levels: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        size = num_heads * num_levels * num_points
        self.heads, self.levels, self.points = num_heads, num_levels, num_points
        self.deformable_attention = nn.ModuleDict(dict(
            sampling_offsets=nn.Linear(dim, 2 * size), attention_weights=nn.Linear(dim, size), value_proj=nn.Linear(dim, dim)))
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, levels: Sequence[Tensor], places: Tensor, visible: Tensor) -> Tensor:
        """query (B, Q, D), levels of (B, N, D, h, w), places (B, N, Q, Z, 2) of the anchors, visible (B, N, Q, Z) -> (B, Q, D)
        with the query."""
        batch, cameras = visible.shape[:2]
        seen = [visible[0, camera].any(-1).nonzero().squeeze(-1) for camera in range(cameras)]
        most = max(len(rows) for rows in seen)
        copied = query.new_zeros(batch, cameras, most, query.shape[-1])
        anchors = places.new_zeros(batch, cameras, most, *places.shape[-2:])
        for sample in range(batch):
            for camera, rows in enumerate(seen):
                copied[sample, camera, :len(rows)] = query[sample, rows]
                anchors[sample, camera, :len(rows)] = places[sample, camera, rows]
        features = torch.cat([level.flatten(3).transpose(2, 3) for level in levels], dim=2)
        read = self._read(copied.flatten(0, 1), anchors.flatten(0, 1), features.flatten(0, 1),
                          [(level.shape[-2], level.shape[-1]) for level in levels]).unflatten(0, (batch, cameras))
        slots = torch.zeros_like(query)
        for sample in range(batch):
            for camera, rows in enumerate(seen):
                slots[sample, rows] += read[sample, camera, :len(rows)]
        count = visible.any(-1).sum(1).clamp(min=1)
        return self.output_proj(slots / count[..., None]) + query

    def _read(self, query: Tensor, anchors: Tensor, features: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        parts, size = self.deformable_attention, (self.heads, self.levels)
        value = parts['value_proj'](features).unflatten(-1, (self.heads, -1))
        offsets = parts['sampling_offsets'](query).unflatten(-1, (*size, self.points, 2))
        weights = parts['attention_weights'](query).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, (self.levels, -1))
        sizes = torch.tensor([[columns, rows] for rows, columns in shapes], device=query.device)
        offsets = (offsets / sizes[:, None]).unflatten(-2, (-1, anchors.shape[-2]))
        places = (anchors[:, :, None, None, None] + offsets).flatten(4, 5)
        return sample_plain(value, shapes, places, weights)


class PlainTemporal(nn.Module):
    """Temporal self-attention of two entries; parameters of TemporalSelfAttention."""

    def __init__(self, dim: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        size = 2 * num_heads * num_points
        self.heads, self.points = num_heads, num_points
        self.sampling_offsets, self.attention_weights = nn.Linear(2 * dim, 2 * size), nn.Linear(2 * dim, size)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, query: Tensor, position: Tensor, shape: tuple[int, int], past: Tensor, shift: Tensor) -> Tensor:
        """query, position, past (B, Q, D), shift (B, 2) in parts of the BEV -> (B, Q, D) with the query."""
        batch = len(query)
        both = torch.stack([past, query], dim=1).flatten(0, 1)
        asks = torch.cat([both[:batch], query + position], dim=-1)
        value = self.value_proj(both).unflatten(-1, (self.heads, -1))
        offsets = self.sampling_offsets(asks).unflatten(-1, (self.heads, 2, 1, self.points, 2))
        weights = self.attention_weights(asks).unflatten(-1, (self.heads, 2, 1, self.points)).softmax(-1)
        offsets, weights = offsets.movedim(3, 1).flatten(0, 1), weights.movedim(3, 1).flatten(0, 1)
        y, x = ((torch.arange(count, device=query.device) + 0.5) / count for count in shape)
        centres = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=-1).flatten(0, 1)
        entries = torch.stack([centres + shift[:, None], centres.expand(batch, -1, -1)], dim=1).flatten(0, 1)
        sizes = torch.tensor([shape[1], shape[0]], device=query.device)
        read = sample_plain(value, [shape], entries[:, :, None, None, None] + offsets / sizes, weights)
        return self.output_proj(read.unflatten(0, (batch, 2)).mean(1)) + query
