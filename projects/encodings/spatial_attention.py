"""Encodings. In: BEV queries, image levels, where each query's anchors lie in the images. Out: what the queries read there.

Only pairs of a query and a camera that sees it are computed, as BEVFormer does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .deformable import check_heads, into_heads, sample_weighted, start_offsets
from .quirks import parse_quirks

QUIRKS = ('visibility_of_sample_0', 'all_anchors', 'bias_of_unseen')


@dataclass(frozen=True)
class SeenQueries:
    """The queries that each of B x N images sees, in order, filled up to the largest number M with queries that do not count.

    Attributes:
        query: (B * N, M) int64 position in Q.
        filled: (B * N, M) bool, False for what fills up.
        places: (B * N, M, Z, 1 or L, 2) x and y of the anchors, 0 to 1 from border to border of a level.
        visible: (B * N, M, Z) bool, which anchors the camera sees.
        count: (B, Q) cameras that see a query.
    """

    query: Tensor
    filled: Tensor
    places: Tensor
    visible: Tensor
    count: Tensor


class SpatialCrossAttention(nn.Module):
    """Each query reads around its anchors in the cameras that see it (Li et al., ECCV 2022); the mean over these is projected.

    Point p of a head and level belongs to anchor p mod Z; offsets are in cells of their level. Points of anchors that a camera
    does not see have no weight. What a query reads that no camera sees is 0.

    Args:
        dim: D.
        img_channels: of the image levels.
        num_levels: L.
        num_heads: heads; must divide D.
        num_points: sampled points per head and level, a multiple of the anchors.
        num_anchors: Z, points above each other in a query's pillar.
        published_quirks: True, False or names. 'visibility_of_sample_0': which queries a camera sees in the first sample
            decides for the whole batch; 'all_anchors': a camera that sees one anchor is read at all of them;
            'bias_of_unseen': what no camera sees still reads the bias of the projection.
    """

    def __init__(self, dim: int, img_channels: int, num_levels: int, num_heads: int = 8, num_points: int = 8,
                 num_anchors: int = 4, published_quirks: bool | Sequence[str] = False) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if num_points % num_anchors:
            raise ValueError(f'num_points={num_points} must be a multiple of the {num_anchors} anchors of a pillar')
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'SpatialCrossAttention')
        self.shape, self.num_anchors = (num_heads, num_levels, num_points), num_anchors
        size = math.prod(self.shape)
        self.deformable_attention = nn.ModuleDict(dict(
            sampling_offsets=nn.Linear(dim, 2 * size), attention_weights=nn.Linear(dim, size),
            value_proj=nn.Linear(img_channels, dim)))
        self.output_proj = nn.Linear(dim, dim)
        offsets, weights, value = self.deformable_attention.values()
        assert isinstance(offsets, nn.Linear)
        start_offsets(offsets, num_heads, num_levels, num_points)
        nn.init.zeros_(weights.get_parameter('weight'))
        nn.init.zeros_(weights.get_parameter('bias'))
        for layer in (value, self.output_proj):
            nn.init.xavier_uniform_(layer.get_parameter('weight'))
            nn.init.zeros_(layer.get_parameter('bias'))

    def seen(self, places: Tensor, visible: Tensor) -> SeenQueries:
        """Who sees whom; the same for all layers, so it is made once. The host waits once, for the largest number.

        Args:
            places: (B, N, Q, Z, 1 or L, 2) of the anchors in every camera, 0 to 1 from border to border of a level; 1 where
                all levels cover the same. Where an anchor has no pixel, anything finite, far from the image.
            visible: (B, N, Q, Z) bool, whether an anchor has a pixel in its camera's image.
        """
        by_query = visible.any(-1)
        sees = by_query[:1].expand_as(by_query) if 'visibility_of_sample_0' in self.quirks else by_query
        sees = sees.flatten(0, 1)
        counts = sees.sum(-1)
        most = max([1, *counts.tolist()])
        query = sees.byte().sort(dim=-1, descending=True, stable=True).indices[:, :most]
        filled = torch.arange(most, device=query.device) < counts[:, None]
        rows = torch.arange(len(query), device=query.device)[:, None]
        places, visible = (part.flatten(0, 1)[rows, query] for part in (places, visible))
        return SeenQueries(query, filled, places, visible, by_query.sum(1))

    def forward(self, query: Tensor, levels: Sequence[Tensor], seen: SeenQueries,
                shown: Sequence[Tensor | None] | None = None) -> Tensor:
        """What the queries read, without the queries themselves: (B, Q, D).

        Args:
            query: (B, Q, D).
            levels: L of (B, N, Ci, h, w).
            seen: of these frames and queries.
            shown: L of (B, N, h, w) bool, cells that show an image; others read as 0. None is all, of a level or of all.
        """
        batch, count, dim = query.shape
        places, weights = self.plan(query, seen, [level.shape[-2:] for level in levels])
        values = []
        for i, level in enumerate(levels):
            value = self.deformable_attention['value_proj'](level.flatten(0, 1).flatten(2).transpose(1, 2))
            there = None if shown is None else shown[i]
            if there is not None:
                value = value.masked_fill(~there.flatten(0, 1).flatten(1)[..., None], 0)
            values.append(into_heads(value, level.shape[-2:], self.shape[0]))
        reads = sample_weighted(values, places, weights) * seen.filled[..., None]
        total = reads.new_zeros(batch * count, dim).index_add(0, self._rows(seen, batch, count).flatten(), reads.flatten(0, 1))
        mean = total.unflatten(0, (batch, count)) / seen.count.clamp(min=1)[..., None]
        read = self.output_proj(mean.to(query.dtype))
        return read if 'bias_of_unseen' in self.quirks else read * (seen.count > 0)[..., None]

    def plan(self, query: Tensor, seen: SeenQueries, level_shapes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """places (B * N, M, heads, L, P, 2) in parts of the levels and weights (B * N, M, heads, L, P) of the pairs."""
        heads, num_levels, points = self.shape
        rows = self._rows(seen, *query.shape[:2])
        offsets, weights = (self.deformable_attention[name](query).float().flatten(0, 1)
                            for name in ('sampling_offsets', 'attention_weights'))
        offsets = offsets[rows].unflatten(-1, (heads, num_levels, points // self.num_anchors, self.num_anchors, 2))
        sizes = torch.stack([offsets.new_full((), side) for height, width in level_shapes for side in (width, height)])
        anchors = seen.places.transpose(2, 3)[:, :, None, :, None]  # (B * N, M, 1, 1 or L, 1, Z, 2)
        logits = weights[rows].unflatten(-1, (heads, num_levels, -1, self.num_anchors))
        if 'all_anchors' not in self.quirks:
            logits = logits.masked_fill(~seen.visible[:, :, None, None, None], -math.inf)
        joint = logits.flatten(3)  # (B * N, M, heads, L * P)
        highest = joint.detach().amax(-1, keepdim=True)
        share = (joint - highest.masked_fill(highest == -math.inf, 0)).exp()
        share = share / share.sum(-1, keepdim=True).clamp(min=1.0)  # the largest term is 1, or all are 0
        return (anchors + offsets / sizes.view(-1, 1, 1, 2)).flatten(4, 5), share.unflatten(-1, (num_levels, -1))

    @staticmethod
    def _rows(seen: SeenQueries, batch: int, count: int) -> Tensor:
        """(B * N, M) positions of the pairs' queries in B * Q."""
        frame = torch.arange(batch, device=seen.query.device).repeat_interleave(
            len(seen.query) // batch, output_size=len(seen.query))
        return frame[:, None] * count + seen.query
