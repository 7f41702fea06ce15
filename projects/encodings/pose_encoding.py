"""Encodings. In: views of queries and keys. Out: the transforms of an attention by poses and by rotary positions.

Per token D = blockdiag(P (x) I, rotations): q' = D_i^T q, k' = D_j^-1 k, so that the score is q^T D_i D_j^-1 k, which no change
of the world frame changes; with `values` also v' = D_j^-1 v and o = D_i o'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .bound import Encoding, PlainHeads
from .frames import Frame, make_frame, make_scale
from .layouts import Block, HeadGroups, check_layout, parse_layout
from .poses import inverse_matrices, pose_matrices
from .positions import TIME_MODES, turns_of
from .quirks import parse_quirks
from .rotary import Rotary
from .transforms import transform
from .view_checks import check_batch
from .views import Views

CONVENTIONS = ('gta', 'eschernet')
REFERENCES = ('first', 'world')
QUIRKS = ('diagonal_intrinsics', 'rigid_inverse')


class PoseEncoding(Encoding):
    """One block-diagonal encoding (PRoPE, Li et al., 2025; GTA, Miyato et al., 2024; CaPE, Kong et al., 2024; rotary).

    Args:
        layout: what channels do, see `parse_layout`.
        intrinsics: whether P has the camera's K, where views have one.
        values: whether values and outputs are transformed as well.
        convention: 'gta', q^T P_i P_j^-1 k; 'eschernet', q^T (P_j P_i^-1)^T k: the same rotation, the translation elsewhere.
        trans_norm: what lengths are multiplied by: 'fixed', trans_scale; 'learned', a float64 parameter that starts there;
            'median' or 'max', trans_scale over the median or largest distance of both sides' tokens from their mean.
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
        for name, value, known in (('convention', convention, CONVENTIONS), ('time_mode', time_mode, TIME_MODES),
                                   ('reference', reference, REFERENCES)):
            if value not in known:
                raise ValueError(f'encoding.{name} must be one of {", ".join(known)}, got {value!r}')
        if values and convention == 'eschernet':
            raise ValueError("encoding.values: the convention 'eschernet' transforms no values; use 'gta'")
        check_layout(layout)
        self.layout, self.intrinsics, self.values, self.convention = layout, intrinsics, values, convention
        self.trans_norm, self.time_mode, self.reference = trans_norm, time_mode, reference
        self.rotary = Rotary(**(rotary or {}))
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'encoding')
        self.trans_scale = make_scale(trans_norm, trans_scale)

    def check(self, num_heads: int, head_dim: int) -> None:
        """ValueError where the layout does not fit such an attention."""
        parse_layout(self.layout, num_heads, head_dim, self.rotary)

    def frame(self, views_q: Views, views_k: Views | None = None) -> Frame:
        """What both sides are relative to; keys that are cached and those that come later need the same.

        Args:
            views_q, views_k: of queries and keys; None: the queries'.
        """
        return make_frame(self.trans_norm, self.trans_scale, views_q, views_k, self.reference, self.time_mode)

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
        if views_k is None or views_k is views_q:
            side_q = side_k = self._side(views_q, frame, blocks, ('queries', 'keys'))
        else:
            side_q = self._side(views_q, frame, blocks, ('queries',))
            side_k = self._side(views_k, frame, blocks, ('keys',))
        return BoundPoses(self, frame, blocks, side_q, side_k)

    def _side(self, views: Views, frame: Frame, blocks: tuple[Block, ...], roles: tuple[str, ...]) -> Side:
        pose = inverse = None
        forward, backward = ('queries', 'keys') if self.convention == 'gta' else ('keys', 'queries')
        if any(block.kind == 'P' for block in blocks):
            pose = pose_matrices(views, frame, self.intrinsics, self.quirks) if forward in roles else None
            inverse = inverse_matrices(views, frame, self.intrinsics, self.quirks) if backward in roles else None
        turns = turns_of(views, blocks, self.time_mode, frame.times, self.rotary.unit, roles[0])
        return Side(views, pose, inverse, *((None, None) if turns is None else turns))


@dataclass(frozen=True, eq=False)
class Side:
    """Of queries, of keys or of both.

    Attributes:
        views: whose.
        pose, inverse: (B, N, 4, 4) float64 P and its inverse, as far as they are needed.
        cos, sin: (B or 1, heads or 1, N or 1, T or 1, d) float64, see `turns_of`.
    """

    views: Views
    pose: Tensor | None
    inverse: Tensor | None
    cos: Tensor | None
    sin: Tensor | None

    def apply(self, heads: Tensor, matrix: Tensor | None, blocks: tuple[Block, ...], back: bool, name: str) -> Tensor:
        """Features (B, heads, tokens, d) by a matrix of this side and by its turns, or those `back`."""
        check_batch(self.views, heads.shape[0], name)
        self.views.tokens_each(heads.shape[2], name)
        if heads.shape[3] != blocks[-1].channels[1]:
            raise ValueError(f'{name} have {heads.shape[3]} channels, but the encoding was made for {blocks[-1].channels[1]}')
        return transform(heads, matrix, self.cos, self.sin, blocks, self.views.count, back)


@dataclass(frozen=True, eq=False)
class BoundPoses(PlainHeads):
    """A PoseEncoding of certain views: what `MultiheadAttention` takes. Features (B, heads, tokens, d) in and out."""

    encoding: PoseEncoding
    frame: Frame
    blocks: tuple[Block, ...]
    side_q: Side
    side_k: Side

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
        return replace(self, side_q=self.encoding._side(views_q, self.frame, self.blocks, ('queries',)))

    @property
    def _eschernet(self) -> bool:
        return self.encoding.convention == 'eschernet'


def _transposed(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else matrix.transpose(-1, -2)
