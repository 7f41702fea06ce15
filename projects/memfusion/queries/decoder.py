"""Queries. In: queries (B, Q, E), tokens of images and BEV. Out: the queries after every layer (L, B, Q, E).

A layer is self-attention, norm, cross-attention, norm, feed-forward, norm (DETR, Carion et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from projects.encodings.multihead import AttentionEncoding, MultiheadAttention
from projects.memfusion.structures import Looks, TokenPlaces

from .cross_poses import CrossPoses, QueryPoses


@dataclass(frozen=True)
class Tokens:
    """What queries attend to.

    Attributes:
        keys: (B, T, E), features that know their positions.
        values: (B, T, E), features.
        keep: (B, T) bool, which of them count; None is all.
        places: what they show, for pictures; empty where nobody said.
    """

    keys: Tensor
    values: Tensor
    keep: Tensor | None = None
    places: tuple[TokenPlaces, ...] = ()

    @staticmethod
    def join(parts: Sequence[Tokens]) -> Tokens:
        """All of them side by side; ValueError where there is no part."""
        if not parts:
            raise ValueError('the queries have nothing to attend to: give the head image tokens, BEV tokens or both')
        if len(parts) == 1:
            return parts[0]
        keep = None
        if any(part.keep is not None for part in parts):
            keep = torch.cat([part.values.new_ones(part.values.shape[:2], dtype=torch.bool) if part.keep is None
                              else part.keep for part in parts], dim=1)
        keys, values = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in ('keys', 'values'))
        return Tokens(keys, values, keep, tuple(place for part in parts for place in part.places))


class FeedForward(nn.Module):
    """Two layers and the residual.

    Args:
        dim: E.
        hidden: width between.
        dropout: share that training drops, after either layer.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand, self.reduce = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor) -> Tensor:
        """(..., E) -> (..., E)."""
        return queries + self.drop(self.reduce(self.drop(self.expand(queries).relu())))


class DecoderLayer(nn.Module):
    """One layer of a query decoder.

    Args:
        dim: E.
        num_heads: heads of both attentions.
        ffn_dim: width inside the feed-forward part.
        dropout: share that training drops, of attention weights and features alike.
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(dim, num_heads, dropout)
        self.cross_attn = MultiheadAttention(dim, num_heads, dropout)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.drop = nn.Dropout(dropout)

    def forward(self, queries: Tensor, positions: Tensor, tokens: Tokens, allowed: Tensor | None = None,
                memory: Tokens | None = None, encoding: AttentionEncoding | None = None) -> Tensor:
        """(B, Q, E) -> (B, Q, E).

        Args:
            queries, positions: (B, Q, E) features, and what is added to them wherever they ask or are asked.
            tokens: what cross-attention reads.
            allowed: (B, Q, Q + M) or (Q, Q + M) bool, who may read whom in self-attention; None is everyone everyone.
            memory: M remembered queries that self-attention reads beside the own ones.
            encoding: of the cross-attention; None is none.
        """
        queries = self._among(queries, positions, allowed, memory)
        read = self.cross_attn(queries + positions, tokens.keys, tokens.values, keep=tokens.keep, encoding=encoding)
        queries = self.norms[1](queries + self.drop(read))
        return self.norms[2](self.ffn(queries))

    def query_looks(self, chosen: Tensor, queries: Tensor, positions: Tensor, tokens: Tokens, allowed: Tensor | None = None,
              memory: Tokens | None = None, encoding: AttentionEncoding | None = None) -> Looks:
        """As structures.Looking: the mean over the heads of what the cross-attention of `forward` weighs tokens with."""
        asking = (self._among(queries, positions, allowed, memory) + positions)[:, chosen]
        weights = self.cross_attn.weights(asking, tokens.keys, tokens.keep, encoding)
        return Looks.of_weights(weights.mean(1), tokens.places)

    def _among(self, queries: Tensor, positions: Tensor, allowed: Tensor | None, memory: Tokens | None) -> Tensor:
        """The queries after they looked at each other."""
        asking = queries + positions
        keep = None
        if memory is None:
            own = self.self_attn.project(asking, queries)
        else:
            own = self.self_attn.project(torch.cat([asking, memory.keys], dim=1), torch.cat([queries, memory.values], dim=1))
            if memory.keep is not None:
                keep = torch.cat([memory.keep.new_ones(queries.shape[:2]), memory.keep], dim=1)
        return self.norms[0](queries + self.drop(self.self_attn(asking, own, keep=keep, allowed=allowed)))


@dataclass(frozen=True)
class DecoderSettings:
    """What `pts_bbox_head.transformer` says of a QueryDecoder; `dim` is E, `encoding` settings of build_encoding, poses of
    queries, cameras and BEV cells in the cross-attention.

    Raises:
        ValueError: where the heads do not share E out evenly, or there is no layer.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    dropout: float = 0.1
    with_cp: bool = False
    encoding: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, got {self.num_layers}')
        if self.num_heads < 1 or self.dim % self.num_heads:
            raise ValueError(f'num_heads={self.num_heads} must divide dim={self.dim}')

    def build(self) -> QueryDecoder:
        """The decoder."""
        return QueryDecoder(self.num_layers, self.dim, self.num_heads, self.ffn_dim, self.dropout, with_cp=self.with_cp,
                            encoding=self.encoding)


class QueryDecoder(nn.Module):
    """L layers.

    Args:
        num_layers: L.
        dim, num_heads, ffn_dim, dropout: as in DecoderLayer.
        post_norm: whether a norm of the decoder's own goes over every layer's output, apart from what the next layer reads.
        with_cp: whether training computes a layer's inside again instead of keeping it.
        encoding: settings of build_encoding, poses of queries and tokens in the cross-attention; None is none.
    """

    def __init__(self, num_layers: int, dim: int, num_heads: int = 8, ffn_dim: int = 2048, dropout: float = 0.1,
                 post_norm: bool = True, with_cp: bool = False, encoding: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, num_heads, ffn_dim, dropout) for _ in range(num_layers))
        self.post_norm = nn.LayerNorm(dim) if post_norm else nn.Identity()
        self.with_cp = with_cp
        self.cross_poses = None if encoding is None else CrossPoses(encoding, num_layers, dim, num_heads)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, queries: Tensor, positions: Tensor, tokens: Tokens, allowed: Tensor | None = None,
                memory: Tokens | None = None, poses: Callable[[], QueryPoses] | None = None) -> Tensor:
        """(B, Q, E) -> (L, B, Q, E); arguments as in DecoderLayer, and poses of queries and tokens, asked for where there is an
        encoding."""
        outputs: list[Tensor] = []
        encoding, known = None, poses() if poses is not None and self.cross_poses is not None else None
        for number, layer in enumerate(self.layers):
            if known is not None and self.cross_poses is not None:
                encoding = self.cross_poses(number, known, encoding, outputs[-1] if outputs else None)
            if self.with_cp and self.training and torch.is_grad_enabled():
                queries = checkpoint(layer, queries, positions, tokens, allowed, memory, encoding, use_reentrant=False)
            else:
                queries = layer(queries, positions, tokens, allowed, memory, encoding)
            outputs.append(self.post_norm(queries))
        return torch.stack(outputs)
