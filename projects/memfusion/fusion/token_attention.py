"""FuTr++, stage sample, reader 'tokens'. In: queries of cells. Out: attention over the tokens of all cameras of the frame.

With all cells active and one token per feature cell it is the dense BEV-to-camera attention.
"""

from __future__ import annotations

from torch import Tensor, nn

from projects.encodings.multihead import CrossAttention

from .fusion_state import FusionState, Reading


class TokenAttention(nn.Module):
    """Each cell attends to the tokens of every camera that is there.

    Args:
        dim: D of queries and tokens.
        num_heads: heads.
    """

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads)

    def forward(self, query: Tensor, cells_m: Tensor, state: FusionState) -> Reading:
        """query (V, K, D) -> Reading; trust is the mean weight of the frame's cameras, for every cell alike."""
        del cells_m  # the query knows its position; the tokens know theirs from the stage geometry
        tokens, cam_valid = state.tokens, state.calibration.cam_valid
        assert tokens is not None  # FuTrPlusPlus makes them where a stage reads them
        context = self.norm(tokens.features.flatten(1, 2))
        weight = state.weight[..., None].expand_as(tokens.valid).flatten(1, 2)
        features = self.attention(query, context, tokens.valid.flatten(1, 2), weight)
        trust = state.weight.sum(1) / cam_valid.sum(1).clamp(min=1)
        return Reading(features, trust[:, None, None].expand(-1, query.shape[1], 1))
