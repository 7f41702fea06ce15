"""Encodings. In: views of queries and keys. Out: the transforms of an attention by poses and by rotary positions.

Per token D = blockdiag(P (x) I, rotations): q' = D_i^T q, k' = D_j^-1 k, so that the score is q^T D_i D_j^-1 k, which no change
of the world frame changes; with `values` also v' = D_j^-1 v and o = D_i o'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .layouts import Block, HeadGroups, parse_layout
from .poses import NORMS, Frame, matrices, size_of, world_from_first
from .positions import TIME_MODES, angles_of, sorted_times
from .quirks import parse_quirks
from .rotary import Rotary
from .transforms import transform
from .view_checks import check_batch
from .views import Views

CONVENTIONS = ('gta', 'eschernet')
REFERENCES = ('first', 'world')
QUIRKS = ('diagonal_intrinsics', 'rigid_inverse')


class PoseEncoding(nn.Module):
    """One block-diagonal encoding (PRoPE, Li et al., 2025; GTA, Miyato et al., 2024; CaPE, Kong et al., 2024; rotary).

    Args:
        layout: what channels do, see `parse_layout`.
        intrinsics: whether P has the camera's K, where views have one.
        values: whether values and outputs are transformed as well.
        convention: 'gta', q^T P_i P_j^-1 k; 'eschernet', q^T (P_j P_i^-1)^T k: the same rotation, the translation elsewhere.
        trans_norm: what lengths are multiplied by: 'fixed', trans_scale; 'learned', a float64 parameter that starts there;
            'median' or 'max', trans_scale over the median or largest distance of the views of both sides from their mean.
        trans_scale: None is 1/25 per metre, and 1 for 'median' and 'max'.
        time_mode: 'index', numbers of frames in order; 'seconds'; 'zero', as if all were seen at once.
        reference: 'first', positions are relative to the first posed view of the keys; 'world' leaves the world frame. It
            matters for tokens without a pose and for rounding, and for nothing else.
        rotary: settings of `Rotary`.
        published_quirks: which peculiarities of PRoPE's code to follow, of diagonal_intrinsics and rigid_inverse; True is both.

    Raises:
        ValueError: for a setting that there is not.
    """

    def __init__(self, layout: HeadGroups, intrinsics: bool = False, values: bool = False, convention: str = 'gta',
                 trans_norm: str = 'fixed', trans_scale: float | None = None, time_mode: str = 'index',
                 reference: str = 'first', rotary: Mapping[str, Any] | None = None,
                 published_quirks: bool | Sequence[str] = False) -> None:
        super().__init__()
        for name, value, known in (('convention', convention, CONVENTIONS), ('trans_norm', trans_norm, NORMS),
                                   ('time_mode', time_mode, TIME_MODES), ('reference', reference, REFERENCES)):
            if value not in known:
                raise ValueError(f'encoding.{name} must be one of {", ".join(known)}, got {value!r}')
        if values and convention == 'eschernet':
            raise ValueError("encoding.values: the convention 'eschernet' transforms no values; use 'gta'")
        self.layout, self.intrinsics, self.values, self.convention = layout, intrinsics, values, convention
        self.trans_norm, self.time_mode, self.reference = trans_norm, time_mode, reference
        self.rotary = Rotary(**(rotary or {}))
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'encoding')
        scale = (1.0 if trans_norm in ('median', 'max') else 1 / 25) if trans_scale is None else float(trans_scale)
        if not scale > 0:
            raise ValueError(f'encoding.trans_scale must be positive, got {trans_scale}')
        self.trans_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64)) if trans_norm == 'learned' else scale

    def check(self, num_heads: int, head_dim: int) -> None:
        """ValueError where the layout does not fit such an attention."""
        parse_layout(self.layout, num_heads, head_dim, self.rotary)

    def frame(self, views_q: Views, views_k: Views | None = None) -> Frame:
        """What both sides are relative to; keys that are cached and those that come later need the same.

        Args:
            views_q, views_k: of queries and keys; None: the queries'.
        """
        sides = (views_q,) if views_k is None or views_k is views_q else (views_k, views_q)
        pose = views_q.cam_from_world
        world_from_ref = (torch.eye(4, dtype=torch.float64, device=pose.device)[None] if self.reference == 'world'
                          else world_from_first(*sides))
        if isinstance(self.trans_scale, Tensor):
            scale = self.trans_scale.double()
        elif self.trans_norm == 'fixed':
            scale = torch.full((1,), self.trans_scale, dtype=torch.float64, device=pose.device)
        else:
            scale = self.trans_scale / size_of(self.trans_norm, *sides)
        return Frame(world_from_ref, scale, sorted_times(self.time_mode, *sides))

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> BoundPoses:
        """The encoding of these views; build it once for all layers that share it.

        Args:
            views_q, views_k: of queries and keys; None: the queries'.
            num_heads, head_dim: of the attention.
            frame: of an earlier call, where keys of then are still read; None takes that of these views.

        Raises:
            ValueError: where the layout does not fit the heads, or views lack what it needs.
        """
        blocks = parse_layout(self.layout, num_heads, head_dim, self.rotary)
        frame = self.frame(views_q, views_k) if frame is None else frame
        side_q = self._side(views_q, frame, blocks, 'queries')
        side_k = side_q if views_k is None or views_k is views_q else self._side(views_k, frame, blocks, 'keys')
        return BoundPoses(self, frame, blocks, side_q, side_k)

    def _side(self, views: Views, frame: Frame, blocks: tuple[Block, ...], name: str) -> Side:
        pose = inverse = None
        if any(block.kind == 'P' for block in blocks):
            pose, inverse = matrices(views, frame, self.intrinsics, self.quirks)
        angles = angles_of(views, blocks, self.time_mode, frame.times, self.rotary.unit, name)
        return Side(views, pose, inverse, None if angles is None else angles.cos(), None if angles is None else angles.sin())


@dataclass(frozen=True, eq=False)
class Side:
    """Of queries or of keys: P and its inverse (B, N, 4, 4), cosines and sines of all pairs (B or 1, N or 1, T or 1, pairs)."""

    views: Views
    pose: Tensor | None
    inverse: Tensor | None
    cos: Tensor | None
    sin: Tensor | None

    def apply(self, heads: Tensor, matrix: Tensor | None, blocks: tuple[Block, ...], back: bool, name: str) -> Tensor:
        """Features (B, heads, tokens, d) by a matrix of this side and by its turns, or those `back`."""
        check_batch(self.views, heads.shape[0], name)
        self.views.tokens_each(heads.shape[2], name)
        sin = -self.sin if back and self.sin is not None else self.sin
        return transform(heads, matrix, self.cos, sin, blocks, self.views.count)


@dataclass(frozen=True, eq=False)
class BoundPoses:
    """A PoseEncoding of certain views: what `MultiheadAttention` takes. Features (B, heads, tokens, d) in and out."""

    encoding: PoseEncoding
    frame: Frame
    blocks: tuple[Block, ...]
    side_q: Side
    side_k: Side

    @property
    def bias(self) -> None:
        """Nothing is added to the logits."""

    def queries(self, heads: Tensor) -> Tensor:
        """D^T q."""
        side = self.side_q
        matrix = side.inverse if self._eschernet else _transposed(side.pose)
        return side.apply(heads, matrix, self.blocks, False, 'queries')

    def keys(self, heads: Tensor) -> Tensor:
        """D^-1 k."""
        side = self.side_k
        matrix = _transposed(side.pose) if self._eschernet else side.inverse
        return side.apply(heads, matrix, self.blocks, False, 'keys')

    def values(self, heads: Tensor) -> Tensor:
        """D^-1 v, or v."""
        return self.side_k.apply(heads, self.side_k.inverse, self.blocks, False, 'values') if self.encoding.values else heads

    def outputs(self, heads: Tensor) -> Tensor:
        """D o', or o'."""
        return self.side_q.apply(heads, self.side_q.pose, self.blocks, True, 'outputs') if self.encoding.values else heads

    def with_queries(self, views_q: Views) -> BoundPoses:
        """The same keys, in the same frame, for other queries: such that move from layer to layer, or read cached keys."""
        return replace(self, side_q=self.encoding._side(views_q, self.frame, self.blocks, 'queries'))

    @property
    def _eschernet(self) -> bool:
        return self.encoding.convention == 'eschernet'


def _transposed(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else matrix.transpose(-1, -2)
