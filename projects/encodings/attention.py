"""Encodings. In: queries (B, Q, D) and context (B, T, D). Out: multi-head attention of the queries over the context."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


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

    def forward(self, query: Tensor, context: Tensor, valid: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """query (B, Q, D), context (B, T, D) -> (B, Q, D).

        Args:
            query, context: as above.
            valid: (B, T) bool, which context counts; a row without any attends to all of it, so mask its result.
            weight: (B, T), multiplies the values.
        """
        value = self.value(context)
        if weight is not None:
            value = value * weight[..., None].to(value.dtype)
        mask = None if valid is None else (valid | ~valid.any(1, keepdim=True))[:, None, None]
        heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                 for part in (self.query(query), self.key(context), value)]
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))
