"""Encodings. In: what an attention shows an encoding. Out: the two contracts that every encoding keeps."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .frames import Frame
from .views import Views


class AttentionEncoding(Protocol):
    """What an encoding of certain views does to the heads of an attention, each (B, heads, n, d) -> (B, heads, n, d or more).

    Queries, keys and values may gain channels; outputs come back with d. The softmax scale is 1 / sqrt(d) nevertheless.
    """

    def bias(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor | None:
        """(B or 1, heads, Q, S), added to the logits of so many queries and keys; None adds nothing."""

    def queries(self, heads: Tensor) -> Tensor:
        """Of the queries."""

    def keys(self, heads: Tensor) -> Tensor:
        """Of the keys."""

    def values(self, heads: Tensor) -> Tensor:
        """Of the values."""

    def outputs(self, heads: Tensor) -> Tensor:
        """Of what the queries read."""


class BoundEncoding(AttentionEncoding, Protocol):
    """An AttentionEncoding that `Encoding.bind` made."""

    def with_queries(self, views_q: Views) -> BoundEncoding:
        """The same keys for other queries."""


class Encoding(nn.Module):
    """What `build_encoding` makes; fits all attentions and needs no frame, unless a subclass says otherwise."""

    def check(self, num_heads: int, head_dim: int) -> None:
        """ValueError where it does not fit such an attention."""

    def frame(self, views_q: Views, views_k: Views | None = None) -> Frame | None:
        """What both sides are relative to; None where nothing is."""
        return None

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> BoundEncoding:
        """The encoding of these views."""
        raise NotImplementedError


class NoEncoding(Encoding):
    """Plain attention."""

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> PlainHeads:
        """Whatever the views are, nothing happens to the heads."""
        return PlainHeads()


class PlainHeads:
    """Leaves all heads as they are; the base of encodings that change some."""

    def bias(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor | None:
        """Nothing is added to the logits."""
        return None

    def queries(self, heads: Tensor) -> Tensor:
        """Of the queries."""
        return heads

    def keys(self, heads: Tensor) -> Tensor:
        """Of the keys."""
        return heads

    def values(self, heads: Tensor) -> Tensor:
        """Of the values."""
        return heads

    def outputs(self, heads: Tensor) -> Tensor:
        """Of what the queries read."""
        return heads

    def with_queries(self, views_q: Views) -> PlainHeads:
        """The same."""
        return self
