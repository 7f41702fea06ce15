"""Encodings. In: queries (B, Q, D) and context (B, T, D). Out: multi-head attention of the queries over the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bound import AttentionEncoding
from .build import build_encoding


class CrossAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017); keys have no bias, since the softmax would cancel it.

    Args:
        dim: D.
        num_heads: heads; must divide D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'fusion_layer.dim={dim} does not divide by num_heads={num_heads}')
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    @property
    def shape(self) -> tuple[int, int]:
        """Heads, and channels of each."""
        return self.num_heads, self.query.out_features // self.num_heads

    def forward(self, query: Tensor, context: Tensor, valid: Tensor | None = None, weight: Tensor | None = None,
                encoding: AttentionEncoding | None = None) -> Tensor:
        """query (B, Q, D), context (B, T, D) -> (B, Q, D).

        Args:
            query, context: as above.
            valid: (B, T) bool, which context counts; a row without any attends to all of it, so mask its result.
            weight: (B, T), multiplies the values.
            encoding: changes the heads; None leaves them.
        """
        value = self.value(context)
        if weight is not None:
            value = value * weight[..., None].to(value.dtype)
        mask = None if valid is None else (valid | ~valid.any(1, keepdim=True))[:, None, None]
        queries, keys, values = (part.unflatten(-1, self.shape).transpose(1, 2)
                                 for part in (self.query(query), self.key(context), value))
        if encoding is not None:
            queries, keys, values = encoding.queries(queries), encoding.keys(keys), encoding.values(values)
            bias = encoding.bias(query.shape[1], context.shape[1], queries.dtype)
            if bias is not None:
                mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=self.shape[1] ** -0.5)
        mixed = mixed if encoding is None else encoding.outputs(mixed)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, context: Tensor, valid: Tensor | None = None,
                encoding: AttentionEncoding | None = None) -> Tensor:
        """(B, Q, D) and (B, T, D) -> (B, heads, Q, T) float32, the weights of `forward`."""
        queries, keys = (part.unflatten(-1, self.shape).transpose(1, 2) for part in (self.query(query), self.key(context)))
        if encoding is not None:
            queries, keys = encoding.queries(queries), encoding.keys(keys)
        logits = (queries @ keys.transpose(-1, -2)).float() * self.shape[1] ** -0.5
        bias = None if encoding is None else encoding.bias(query.shape[1], context.shape[1], logits.dtype)
        logits = logits if bias is None else logits + bias
        mask = None if valid is None else (valid | ~valid.any(1, keepdim=True))[:, None, None]
        return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1)


def encoding_of(settings: Mapping[str, Any] | None, dim: int, num_heads: int, layer: int = 0) -> Any:
    """What build_encoding makes of the settings, None of None; ValueError where it does not fit heads of this width."""
    if settings is None:
        return None
    encoding = build_encoding(settings, layer)
    encoding.check(num_heads, dim // num_heads)
    return encoding


class KeysValues(NamedTuple):
    """Projected context, (B, heads, S, d) each."""

    keys: Tensor
    values: Tensor

    def join(self, other: KeysValues) -> KeysValues:
        """This context and then the other."""
        return KeysValues(torch.cat([self.keys, other.keys], dim=2), torch.cat([self.values, other.values], dim=2))


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with the parameters of torch's nn.MultiheadAttention, batch first.

    Args:
        dim: E.
        num_heads: heads; must divide E.
        dropout: share of the attention weights that training drops.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'attention: dim={dim} does not divide by num_heads={num_heads}')
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, key: Tensor, value: Tensor, encoding: AttentionEncoding | None = None) -> KeysValues:
        """(B, S, E) and (B, S, E) -> what queries attend to."""
        _, key_weight, value_weight = self.in_proj_weight.chunk(3)
        _, key_bias, value_bias = self.in_proj_bias.chunk(3)
        keys = self._heads(F.linear(key, key_weight, key_bias))
        values = self._heads(F.linear(value, value_weight, value_bias))
        return KeysValues(keys, values) if encoding is None else KeysValues(encoding.keys(keys), encoding.values(values))

    def forward(self, query: Tensor, key: Tensor | KeysValues, value: Tensor | None = None, keep: Tensor | None = None,
                allowed: Tensor | None = None, encoding: AttentionEncoding | None = None, bias: Tensor | None = None) -> Tensor:
        """(B, Q, E) -> (B, Q, E).

        Args:
            query: of Q positions.
            key: (B, S, E), or what `project` made of keys and values, with the same encoding.
            value: (B, S, E); None is `key`.
            keep: (B, S) bool, which context counts; where none of a sample's does, its queries read 0.
            allowed: (Q, S) or (B, Q, S) bool, which query may read what; each must be allowed something that counts.
            encoding: changes the heads; None leaves them.
            bias: (B, heads, Q, S), added to the logits, as is that of the encoding.
        """
        context = key if isinstance(key, KeysValues) else self.project(key, key if value is None else value, encoding)
        dim = self.in_proj_weight.shape[1]
        queries = self._heads(F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim]))
        queries = queries if encoding is None else encoding.queries(queries)
        mask = None
        if allowed is not None:
            mask = allowed[None, None] if allowed.dim() == 2 else allowed[:, None]
        if keep is not None:
            some = keep.any(1)[:, None, None]
            kept = (keep[:, None, None] | ~some[..., None])
            mask = kept if mask is None else mask & kept
        if encoding is not None:
            bias = _together(bias, encoding.bias(queries.shape[2], context.keys.shape[2], queries.dtype))
        if bias is not None:
            mask = (bias if mask is None else bias.masked_fill(~mask, -torch.inf)).to(queries.dtype)
        read = F.scaled_dot_product_attention(queries, context.keys.to(queries.dtype), context.values.to(queries.dtype), mask,
                                              dropout_p=self.dropout if self.training else 0.0, scale=self._scale)
        read = read if encoding is None else encoding.outputs(read)
        read = read.transpose(1, 2).flatten(2)
        return self.out_proj(read if keep is None else read * some)

    def weights(self, query: Tensor, key: Tensor, keep: Tensor | None = None,
                encoding: AttentionEncoding | None = None) -> Tensor:
        """(B, Q, E) and (B, S, E) -> (B, heads, Q, S) float32, the weights of `forward`; 0 where nothing of a sample counts."""
        dim = self.in_proj_weight.shape[1]
        queries = self._heads(F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim]))
        queries = queries if encoding is None else encoding.queries(queries)
        logits = (queries @ self.project(key, key, encoding).keys.transpose(-1, -2)).float() * self._scale
        bias = None if encoding is None else encoding.bias(query.shape[1], key.shape[1], logits.dtype)
        logits = logits if bias is None else logits + bias
        if keep is None:
            return logits.softmax(-1)
        kept = keep[:, None, None]
        return logits.masked_fill(~kept, torch.finfo(logits.dtype).min).softmax(-1) * kept

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    @property
    def _scale(self) -> float:
        """Of the logits, whatever channels an encoding adds to the heads."""
        return (self.in_proj_weight.shape[1] // self.num_heads) ** -0.5


def _together(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
