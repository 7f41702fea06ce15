"""Encodings. In: heads of an attention, views of both sides. Out: heads whose further channels make Pose-ALiBi's losses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry.rigid import invert_affine

from .bound import PlainHeads
from .frames import Frame
from .poses import relative_poses
from .view_checks import check_batch
from .views import Views

FACTORS, FEW_CAMERAS, MULTIPLE = 14, 8, 8


@dataclass(frozen=True, eq=False)
class BoundFactors(PlainHeads):
    """14 more channels, or one for each camera of the keys where those are few: the queries then hold the losses themselves.

    Values are as wide as keys, and both a multiple of 8: fused attention leaves other widths, or is slow with them.

    Attributes:
        rotation, distance: weights.
        slopes: (heads,) float64.
        frame: of both sides.
        views_q, views_k: of both sides.
        head_dim: d.
        by_camera: whether keys have a channel for each camera.
    """

    rotation: float
    distance: float
    slopes: Tensor
    frame: Frame
    views_q: Views
    views_k: Views
    head_dim: int
    by_camera: bool

    def queries(self, heads: Tensor) -> Tensor:
        """(B, heads, Q, d) -> (B, heads, Q, width)."""
        extra = self.query_factors()
        if self.by_camera:
            extra = extra @ self.key_factors().transpose(-1, -2)
        slopes = self.slopes * self.head_dim ** 0.5  # attention divides by it again
        return self._widened(heads, extra[:, None] * slopes[:, None, None], self.views_q, 'queries')

    def keys(self, heads: Tensor) -> Tensor:
        """(B, heads, S, d) -> (B, heads, S, width)."""
        like = self.slopes
        one_each = torch.eye(self.views_k.count, dtype=like.dtype, device=like.device)[None]
        extra = one_each if self.by_camera else self.key_factors()
        return self._widened(heads, extra[:, None], self.views_k, 'keys')

    def values(self, heads: Tensor) -> Tensor:
        """(B, heads, S, d) -> (B, heads, S, width), zeros added."""
        if heads.shape[3] != self.head_dim:
            raise ValueError(f'values have {heads.shape[3]} channels, but the encoding was made for {self.head_dim}: the '
                             'factored form needs values as wide as keys')
        return F.pad(heads, (0, self.width - self.head_dim))

    def outputs(self, heads: Tensor) -> Tensor:
        """(B, heads, Q, width) -> (B, heads, Q, d)."""
        return heads[..., :self.head_dim]

    def with_queries(self, views_q: Views) -> BoundFactors:
        """The same keys for other queries."""
        return replace(self, views_q=views_q)

    @property
    def width(self) -> int:
        """Channels of queries, keys and values."""
        more = self.views_k.count if self.by_camera else FACTORS
        return -(-(self.head_dim + more) // MULTIPLE) * MULTIPLE

    def query_factors(self) -> Tensor:
        """(B, N_q, 14) float64."""
        pose = relative_poses(self.views_q, self.frame)
        center = invert_affine(pose)[..., :3, 3]
        return _posed(torch.cat([
            self.rotation / 2 * pose[..., :3, :3].flatten(-2), 2 * self.distance * center,
            -self.distance * center.square().sum(-1, keepdim=True) - 1.5 * self.rotation,
            torch.full_like(center[..., :1], -self.distance)], dim=-1), self.views_q)

    def key_factors(self) -> Tensor:
        """(B, N_k, 14) float64; the products with those of queries are the losses, negative."""
        inverse = invert_affine(relative_poses(self.views_k, self.frame))
        center = inverse[..., :3, 3]
        return _posed(torch.cat([inverse[..., :3, :3].transpose(-1, -2).flatten(-2), center, torch.ones_like(center[..., :1]),
                                 center.square().sum(-1, keepdim=True)], dim=-1), self.views_k)

    def _widened(self, heads: Tensor, extra: Tensor, views: Views, name: str) -> Tensor:
        """The heads with channels (B or 1, heads or 1, N, ...) of their views, and zeros up to the width."""
        check_batch(views, heads.shape[0], name)
        each = views.tokens_each(heads.shape[2], name)
        wide = F.pad(heads, (0, self.width - self.head_dim))
        with torch.set_grad_enabled(torch.is_grad_enabled() and extra.requires_grad):  # else nobody asks for their gradient
            more = wide.unflatten(2, (-1, each))[..., self.head_dim:self.head_dim + extra.shape[-1]]
            more.copy_(extra[:, :, :, None])
        return wide


def _posed(factors: Tensor, views: Views) -> Tensor:
    """Zeros where there is no pose."""
    return factors if views.posed is None else factors * views.posed[..., None]
