"""Encodings. In: views of queries and keys. Out: what logits lose for other directions and other places (Pose-ALiBi).

Head h of H weighs with 2 ** (-8 h / H), as ALiBi does (Press et al., ICLR 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.geometry.rigid import invert_affine

from .bound import PlainHeads
from .frames import Frame, make_frame, make_scale
from .poses import relative_poses
from .view_checks import check_batch
from .views import Views

FORMS = ('table', 'factored')
EXTRA, MULTIPLE = 14, 16


class PoseALiBi(nn.Module):
    """Logits lose rotation * theta / pi + distance * |c_i - c_j| / s, times the head's slope; 1 / s is the scale of lengths.

    theta is the angle between two views, c are their centres. The factored form loses rotation * (1 - cos theta) + distance *
    (|c_i - c_j| / s)^2 by 14 more channels of queries and keys, without a tensor of queries by keys: fused attention stays.
    What has no pose loses nothing.

    Args:
        form: 'table' or 'factored'.
        rotation, distance: weights.
        trans_norm, trans_scale: of lengths, as in PoseEncoding.

    Raises:
        ValueError: for a setting that there is not.
    """

    def __init__(self, form: str = 'table', rotation: float = 1.0, distance: float = 1.0, trans_norm: str = 'fixed',
                 trans_scale: float | None = None) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f'encoding.form must be one of {", ".join(FORMS)}, got {form!r}')
        if min(rotation, distance) < 0:
            raise ValueError(f'encoding.rotation and distance must not be negative, got {rotation} and {distance}')
        self.form, self.rotation, self.distance, self.trans_norm = form, rotation, distance, trans_norm
        self.trans_scale = make_scale(trans_norm, trans_scale)

    def check(self, num_heads: int, head_dim: int) -> None:
        """Fits all."""

    def frame(self, views_q: Views, views_k: Views | None = None) -> Frame:
        """Reference, for rounding alone, and scale of both sides."""
        return make_frame(self.trans_norm, self.trans_scale, views_q, views_k)

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> BoundTable | BoundFactors:
        """The encoding of these views; see PoseEncoding.bind."""
        frame = self.frame(views_q, views_k) if frame is None else frame
        views_k = views_q if views_k is None else views_k
        if self.form == 'table':
            return BoundTable(self, frame, views_q, views_k, num_heads)
        return BoundFactors(self, frame, views_q, views_k, num_heads, head_dim)

    def slopes(self, num_heads: int, like: Tensor) -> Tensor:
        """(heads,) of the dtype and on the device of `like`."""
        return torch.exp2(-8.0 * torch.arange(1, num_heads + 1, dtype=like.dtype, device=like.device) / num_heads)


@dataclass(frozen=True, eq=False)
class BoundTable(PlainHeads):
    """A bias for every pair of views, repeated for their tokens."""

    encoding: PoseALiBi
    frame: Frame
    views_q: Views
    views_k: Views
    num_heads: int

    def bias(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """(B, heads, Q, S)."""
        each_q, each_k = self.views_q.tokens_each(queries, 'queries'), self.views_k.tokens_each(keys, 'keys')
        loss = self.losses()
        table = (-self.encoding.slopes(self.num_heads, loss)[:, None, None] * loss[:, None]).to(dtype)
        return table[:, :, :, None, :, None].expand(-1, -1, -1, each_q, -1, each_k).flatten(4).flatten(2, 3)

    def losses(self) -> Tensor:
        """(B, N_q, N_k) float64, by views, without the slopes."""
        pose_q, pose_k = (relative_poses(views, self.frame) for views in (self.views_q, self.views_k))
        inverse = invert_affine(pose_k)
        angle = angles_between(pose_q[..., :3, :3], inverse[..., :3, :3])
        away = invert_affine(pose_q)[..., :3, 3][:, :, None] - inverse[..., :3, 3][:, None]
        loss = self.encoding.rotation * angle / math.pi + self.encoding.distance * torch.linalg.vector_norm(away, dim=-1)
        if self.views_q.posed is not None:
            loss = loss * self.views_q.posed[:, :, None]
        return loss if self.views_k.posed is None else loss * self.views_k.posed[:, None]

    def with_queries(self, views_q: Views) -> BoundTable:
        """The same keys for other queries."""
        return replace(self, views_q=views_q)


@dataclass(frozen=True, eq=False)
class BoundFactors(PlainHeads):
    """14 more channels; values are as wide as keys, since unequal widths leave the fused kernels."""

    encoding: PoseALiBi
    frame: Frame
    views_q: Views
    views_k: Views
    num_heads: int
    head_dim: int

    def queries(self, heads: Tensor) -> Tensor:
        """(B, heads, Q, d) -> (B, heads, Q, width)."""
        pose = relative_poses(self.views_q, self.frame)
        center = invert_affine(pose)[..., :3, 3]
        rotation, distance = self.encoding.rotation, self.encoding.distance
        extra = torch.cat([rotation / 2 * pose[..., :3, :3].flatten(-2), 2 * distance * center,
                           -distance * center.square().sum(-1, keepdim=True) - 1.5 * rotation,
                           torch.full_like(center[..., :1], -distance)], dim=-1)
        slope = self.encoding.slopes(self.num_heads, extra) * heads.shape[-1] ** 0.5  # attention divides by it again
        return _widened(heads, extra[:, None] * slope[:, None, None], self.views_q, 'queries')

    def keys(self, heads: Tensor) -> Tensor:
        """(B, heads, S, d) -> (B, heads, S, width)."""
        inverse = invert_affine(relative_poses(self.views_k, self.frame))
        center = inverse[..., :3, 3]
        extra = torch.cat([inverse[..., :3, :3].transpose(-1, -2).flatten(-2), center, torch.ones_like(center[..., :1]),
                           center.square().sum(-1, keepdim=True)], dim=-1)
        return _widened(heads, extra[:, None], self.views_k, 'keys')

    def values(self, heads: Tensor) -> Tensor:
        """(B, heads, S, d) -> (B, heads, S, width), zeros added."""
        return F.pad(heads, (0, padded_width(heads.shape[-1]) - heads.shape[-1]))

    def outputs(self, heads: Tensor) -> Tensor:
        """(B, heads, Q, width) -> (B, heads, Q, d)."""
        return heads[..., :self.head_dim]

    def with_queries(self, views_q: Views) -> BoundFactors:
        """The same keys for other queries."""
        return replace(self, views_q=views_q)


def padded_width(head_dim: int) -> int:
    """Of queries, keys and values in the factored form."""
    return -(-(head_dim + EXTRA) // MULTIPLE) * MULTIPLE


def angles_between(rotation_q: Tensor, inverse_k: Tensor) -> Tensor:
    """(B, N_q, 3, 3) R_i and (B, N_k, 3, 3) R_j^-1 -> (B, N_q, N_k) radians of R_i R_j^-1, exact for small angles too.

    Only the trace and the three odd parts of each product are made.
    """
    rows, columns = rotation_q.unbind(-2), inverse_k.transpose(-1, -2).unbind(-2)
    cosine = (torch.cat(rows, -1) @ torch.cat(columns, -1).transpose(-1, -2) - 1) / 2
    odd = [torch.cat([rows[a], -rows[b]], -1) @ torch.cat([columns[b], columns[a]], -1).transpose(-1, -2)
           for a, b in ((2, 1), (0, 2), (1, 0))]
    return torch.atan2(torch.linalg.vector_norm(torch.stack(odd), dim=0) / 2, cosine)


def _widened(heads: Tensor, extra: Tensor, views: Views, name: str) -> Tensor:
    """The heads with channels (B, heads or 1, N, 14) of their views, and zeros up to the width."""
    check_batch(views, heads.shape[0], name)
    each = views.tokens_each(heads.shape[2], name)
    if views.posed is not None:
        extra = extra * views.posed[:, None, :, None]
    extra = F.pad(extra.to(heads.dtype), (0, padded_width(heads.shape[-1]) - heads.shape[-1] - EXTRA))
    spread = extra[:, :, :, None].expand(*heads.shape[:2], -1, each, -1).flatten(2, 3)
    return torch.cat([heads, spread], dim=-1)
