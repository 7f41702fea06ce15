"""Queries. In: boxes, their features, what the sensors show. Out: the features after one SparseBEV layer, logits, better boxes.

SparseBEV (Liu et al., ICCV 2023): scale-adaptive self-attention, adaptive sampling, adaptive mixing, FFN; each is followed by a
layer norm.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from projects.geometry.precision import full_precision
from projects.memfusion.structures import PastFrame

from .adaptive_mixing import AdaptiveMixing
from .adaptive_sampling import AdaptiveSampling
from .branches import classification_branch, regression_branch
from .decoder import FeedForward
from .references import in_metres, refined
from .scale_adaptive_attention import ScaleAdaptiveAttention


@dataclass(frozen=True)
class LayerSettings:
    """What `pts_bbox_head.transformer` says.

    Attributes:
        dim, num_layers, num_heads, ffn_dim: E, layers (all share their weights), heads of the attention, width of the FFN.
        num_groups, num_points, num_levels: G groups of P points, which each read L levels of the images.
        out_points: rows of the mixing over points.
        views_per_point: cameras of a frame that a point is read in at most.
        dropout: of attention and FFN.
        with_cp: whether training computes sampling and mixing again in its backward pass instead of keeping what they need.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 512
    num_groups: int = 4
    num_points: int = 4
    num_levels: int = 4
    out_points: int = 128
    views_per_point: int = 2
    dropout: float = 0.1
    with_cp: bool = True

    def __post_init__(self) -> None:
        if min(self.num_layers, self.num_points, self.views_per_point) < 1:
            raise ValueError('num_layers, num_points and views_per_point must be at least 1, got '
                             f'{self.num_layers}, {self.num_points} and {self.views_per_point}')
        for name in ('num_heads', 'num_groups'):
            if getattr(self, name) < 1 or self.dim % getattr(self, name):
                raise ValueError(f'{name}={getattr(self, name)} must divide dim={self.dim}')


@dataclass(frozen=True)
class Surroundings:
    """What boxes are compared with.

    Attributes:
        frames: T frames of images, newest first; none without cameras.
        gaps_s: (B, T) seconds that they were taken before now.
        bev: (B, E, H, W) features of the LiDAR; None without.
    """

    frames: Sequence[PastFrame]
    gaps_s: Tensor
    bev: Tensor | None = None


class SparseBEVLayer(nn.Module):
    """One layer.

    Args:
        settings: widths.
        num_classes: K.
        num_frames: T; 0 without cameras.
        lidar: whether there is a BEV map.
        point_cloud_range: of the box code, metres.
        quirks: names of SparseBEVHead's.
    """

    def __init__(self, settings: LayerSettings, num_classes: int, num_frames: int, lidar: bool,
                 point_cloud_range: Sequence[float], quirks: Collection[str] = ()) -> None:
        super().__init__()
        dim = settings.dim
        self.point_cloud_range, self.quirks, self.with_cp = tuple(point_cloud_range), frozenset(quirks), settings.with_cp
        self.position_encoder = nn.Sequential(
            nn.Linear(3, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU())
        self.self_attn = ScaleAdaptiveAttention(dim, settings.num_heads, settings.dropout)
        self.sampling = AdaptiveSampling(
            dim, settings.num_groups, settings.num_points, settings.num_levels if num_frames else 0, point_cloud_range,
            settings.views_per_point, quirks)
        self.mixing = AdaptiveMixing(dim, settings.num_groups, (num_frames + lidar) * settings.num_points, settings.out_points)
        self.ffn = FeedForward(dim, settings.ffn_dim, settings.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.cls_branch = classification_branch(dim, num_classes)
        self.reg_branch = regression_branch(dim, 10)

    def forward(self, boxes: Tensor, query: Tensor, around: Surroundings,
                allowed: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """boxes (B, Q, 10), query (B, Q, E) -> query, logits (B, Q, K), boxes; allowed as ScaleAdaptiveAttention."""
        query = query + self.position_encoder(boxes[..., :3])
        query = self.norms[0](self.self_attn(self.centers(boxes), query, allowed))
        query = self.norms[1](self._read(boxes, query, around))
        query = self.norms[2](self.ffn(query))
        return query, self.cls_branch(query), self._better(boxes, self.reg_branch(query), around.gaps_s)

    def centers(self, boxes: Tensor) -> Tensor:
        """(B, Q, 3) metres."""
        return in_metres(boxes[..., :3].float(), self.point_cloud_range)

    def _read(self, boxes: Tensor, query: Tensor, around: Surroundings) -> Tensor:
        def read(query: Tensor) -> Tensor:
            return self.mixing(self.sampling(boxes, query, around.frames, around.gaps_s, around.bev), query)

        if self.with_cp and torch.is_grad_enabled() and query.requires_grad:
            return checkpoint(read, query, use_reentrant=False)
        return read(query)

    @full_precision
    def _better(self, boxes: Tensor, change: Tensor, gaps_s: Tensor) -> Tensor:
        """Centres are moved, everything else is said anew; velocities in m/s."""
        change = change.float()
        velocity = change[..., 8:]
        if 'velocity_by_first_gap' in self.quirks and gaps_s.shape[1] > 1:
            gap = gaps_s[:, 1, None, None]
            velocity = velocity / torch.where(gap < 1e-5, torch.ones_like(gap), gap)
        return torch.cat([refined(change[..., :3], boxes[..., :3]), change[..., 3:8], velocity], dim=-1)
