"""Queries. In: queries (B, Q, E) and their boxes' centres. Out: the queries, after attention that prefers those nearby.

Scale-adaptive self-attention of SparseBEV (Liu et al., ICCV 2023).
"""

from __future__ import annotations

from torch import Tensor, nn

from projects.encodings.multihead import AttentionEncoding, MultiheadAttention
from projects.geometry.precision import full_precision


class ScaleAdaptiveAttention(nn.Module):
    """Self-attention whose logits lose tau times the distance on the ground, in metres; every query and head has a tau.

    Args:
        dim: E.
        num_heads: heads; must divide E.
        dropout: of the attention.
    """

    def __init__(self, dim: int, num_heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = MultiheadAttention(dim, num_heads, dropout)
        self.gen_tau = nn.Linear(dim, num_heads)
        nn.init.zeros_(self.gen_tau.weight)
        nn.init.uniform_(self.gen_tau.bias, 0.0, 2.0)

    def forward(self, centers_m: Tensor, query: Tensor, allowed: Tensor | None = None,
                encoding: AttentionEncoding | None = None) -> Tensor:
        """The queries plus what they attend to.

        Args:
            centers_m: (B, Q, 2) or more columns, metres.
            query: (B, Q, E).
            allowed: (B, Q, Q) bool, which query (row) may attend to which (column); None is all.
            encoding: of positions or poses in the attention; none by default.
        """
        tau = self.gen_tau(query).float().transpose(1, 2)  # (B, heads, Q)
        bias = self.nearness(centers_m)[:, None] * tau[..., None]
        return query + self.attention(query, query, allowed=allowed, encoding=encoding, bias=bias.to(query.dtype))

    @staticmethod
    @full_precision
    def nearness(centers_m: Tensor) -> Tensor:
        """(B, Q, Q): minus the distance on the ground, metres; no gradient, which has no value between a query and itself."""
        places_m = centers_m[..., :2].detach().float()
        way = places_m[:, :, None] - places_m[:, None]
        return -(way * way).sum(-1).sqrt()
