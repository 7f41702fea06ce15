"""Encodings. In: views of queries and keys. Out: what logits lose for other directions and other places (Pose-ALiBi).

Head h of H weighs with 2 ** (-8 h / H), as ALiBi does (Press et al., ICLR 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projects.geometry.rigid import invert_affine

from .alibi_factors import FEW_CAMERAS, BoundFactors
from .bound import Encoding, PlainHeads
from .frames import Frame, make_frame, make_scale
from .poses import relative_poses
from .views import Views

FORMS = ('table', 'factored')


class PoseALiBi(Encoding):
    """Logits lose rotation * theta / pi + distance * |c_i - c_j| / s, times the head's slope; 1 / s is the scale of lengths.

    theta is the angle between two views, c are their centres. The factored form loses rotation * (1 - cos theta) + distance *
    (|c_i - c_j| / s)^2 by 14 more channels of queries and keys, without a tensor of queries by keys: fused attention stays.
    Keys of at most 8 cameras get a channel for each instead, unless a frame is given, since then others may join them. What
    has no pose loses nothing.

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

    def frame(self, views_q: Views, views_k: Views | None = None) -> Frame:
        """Reference, for rounding alone, and scale of both sides."""
        return make_frame(self.trans_norm, self.trans_scale, views_q, views_k)

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> BoundTable | BoundFactors:
        """The encoding of these views; see PoseEncoding.bind."""
        views_k = views_q if views_k is None else views_k
        few = frame is None and views_k.per == 'camera' and views_k.count <= FEW_CAMERAS
        frame = self.frame(views_q, views_k) if frame is None else frame
        number = torch.arange(1, num_heads + 1, dtype=torch.float64, device=views_q.cam_from_world.device)
        slopes = torch.exp2(-8.0 * number / num_heads)
        if self.form == 'table':
            return BoundTable(self.rotation, self.distance, slopes, frame, views_q, views_k)
        return BoundFactors(self.rotation, self.distance, slopes, frame, views_q, views_k, head_dim, few)


@dataclass(frozen=True, eq=False)
class BoundTable(PlainHeads):
    """A bias for every pair of views, repeated for their tokens; attributes as those of BoundFactors."""

    rotation: float
    distance: float
    slopes: Tensor
    frame: Frame
    views_q: Views
    views_k: Views

    def bias(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """(B, heads, Q, S)."""
        each_q, each_k = self.views_q.tokens_each(queries, 'queries'), self.views_k.tokens_each(keys, 'keys')
        table = (-self.slopes[:, None, None] * self.losses()[:, None]).to(dtype)
        return table[:, :, :, None, :, None].expand(-1, -1, -1, each_q, -1, each_k).flatten(4).flatten(2, 3)

    def losses(self) -> Tensor:
        """(B, N_q, N_k) float64, by views, without the slopes."""
        pose_q, pose_k = (relative_poses(views, self.frame) for views in (self.views_q, self.views_k))
        inverse = invert_affine(pose_k)
        angle = angles_between(pose_q[..., :3, :3], inverse[..., :3, :3])
        away = invert_affine(pose_q)[..., :3, 3][:, :, None] - inverse[..., :3, 3][:, None]
        loss = self.rotation * angle / math.pi + self.distance * torch.linalg.vector_norm(away, dim=-1)
        if self.views_q.posed is not None:
            loss = loss * self.views_q.posed[:, :, None]
        return loss if self.views_k.posed is None else loss * self.views_k.posed[:, None]

    def with_queries(self, views_q: Views) -> BoundTable:
        """The same keys for other queries."""
        return replace(self, views_q=views_q)


def angles_between(rotation_q: Tensor, inverse_k: Tensor) -> Tensor:
    """(B, N_q, 3, 3) R_i and (B, N_k, 3, 3) R_j^-1 -> (B, N_q, N_k) radians of R_i R_j^-1, exact for small angles too.

    Only the trace and the three odd parts of each product are made.
    """
    rows, columns = rotation_q.unbind(-2), inverse_k.transpose(-1, -2).unbind(-2)
    cosine = (torch.cat(rows, -1) @ torch.cat(columns, -1).transpose(-1, -2) - 1) / 2
    odd = [torch.cat([rows[a], -rows[b]], -1) @ torch.cat([columns[b], columns[a]], -1).transpose(-1, -2)
           for a, b in ((2, 1), (0, 2), (1, 0))]
    return torch.atan2(torch.linalg.vector_norm(torch.stack(odd), dim=0) / 2, cosine)
