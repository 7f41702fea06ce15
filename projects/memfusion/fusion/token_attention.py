"""FuTr++, stage sample, reader 'tokens'. In: queries of cells. Out: attention over the tokens of all cameras of the frame.

With all cells active and one token per feature cell it is the dense BEV-to-camera attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from projects.encodings.multihead import CrossAttention, encoding_of

from .fusion_state import CameraTokens, FusionState, Reading
from .token_poses import cell_views


class TokenAttention(nn.Module):
    """Each cell attends to the tokens of every camera that is there.

    Args:
        dim: D of queries and tokens.
        num_heads: heads.
        encoding: settings of build_encoding, poses of cells and cameras in the attention; None is none. Places within an image
            mean nothing to a cell, so its layout is of P and I.
        point_cloud_range: of the BEV, metres; needed for an encoding.
    """

    def __init__(self, dim: int, num_heads: int = 8, encoding: Mapping[str, Any] | None = None,
                 point_cloud_range: Sequence[float] = ()) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads)
        self.point_cloud_range = tuple(point_cloud_range)
        self.encoding = encoding_of(encoding, dim, num_heads)

    def forward(self, query: Tensor, cells_m: Tensor, state: FusionState) -> Reading:
        """query (V, K, D), cells_m (V, K, 2) -> Reading; trust: the mean weight of the frame's cameras, for all cells alike."""
        tokens, cam_valid = state.tokens, state.calibration.cam_valid
        assert tokens is not None  # FuTrPlusPlus makes them where a stage reads them
        context = self.norm(tokens.features.flatten(1, 2))
        weight = state.weight[..., None].expand_as(tokens.valid).flatten(1, 2)
        bound = None
        if self.encoding is not None:
            assert tokens.views is not None
            bound = self.encoding.bind(cell_views(cells_m, self.point_cloud_range), tokens.views, *self.attention.shape)
        features = self.attention(query, context, tokens.valid.flatten(1, 2), weight, bound)
        trust = state.weight.sum(1) / cam_valid.sum(1).clamp(min=1)
        return Reading(features, trust[:, None, None].expand(-1, query.shape[1], 1))


class CameraAttention(nn.Module):
    """Stage tokens: the tokens of all cameras of a frame attend to each other, and know whose cameras they are by their poses.

    It starts as the identity.

    Args:
        dim: D of the tokens.
        num_heads: heads.
        encoding: settings of build_encoding; None is none.
    """

    def __init__(self, dim: int, num_heads: int = 8, encoding: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads)
        nn.init.zeros_(self.attention.output.weight)
        nn.init.zeros_(self.attention.output.bias)
        self.encoding = encoding_of(encoding, dim, num_heads)

    def forward(self, tokens: CameraTokens) -> CameraTokens:
        """The tokens with what they read of each other; those of cameras that are not there stay 0."""
        features = self.norm(tokens.features.flatten(1, 2))
        bound = None
        if self.encoding is not None:
            assert tokens.views is not None
            bound = self.encoding.bind(tokens.views, tokens.views, *self.attention.shape)
        read = self.attention(features, features, tokens.valid.flatten(1, 2), encoding=bound)
        read = read.view_as(tokens.features).masked_fill(~tokens.valid[..., None], 0)
        return replace(tokens, features=tokens.features + read)
