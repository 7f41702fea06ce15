"""Queries. In: queries of all decoder layers (L, B, Q, E). Out: numbers of all branches, layer by layer (L, B, Q, n).

Each layer has weights of its own, kept as grouped 1-D convolutions over layers, as CMT (Yan et al., ICCV 2023) publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class LayerNorms(nn.Module):
    """The affine part of one norm over channels for each of L layers, layer-major."""

    def __init__(self, num_layers: int, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_layers * dim)), nn.Parameter(torch.zeros(num_layers * dim))


class LayerwiseHeads(nn.ModuleDict):
    """Branches of a linear layer, LayerNorm, ReLU and a linear layer; parameters are called NAME.0, NAME.1 and NAME.3.

    Args:
        dim: E.
        num_layers: L; all of them are held in one tensor, layer-major.
        branches: name -> how many numbers it gives.
        hidden_dim: channels between the two layers.
        out_bias: name -> what the last layer's bias begins with, e.g. a low score; 0 where it is not named.
    """

    def __init__(self, dim: int, num_layers: int, branches: Mapping[str, int], hidden_dim: int = 64,
                 out_bias: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.num_layers, self.hidden_dim, self.widths = num_layers, hidden_dim, dict(branches)
        for name, width in branches.items():
            hidden, out = num_layers * hidden_dim, num_layers * width
            last: Any = nn.Conv1d(hidden, out, 1, groups=num_layers)
            nn.init.constant_(last.bias, (out_bias or {}).get(name, 0.0))
            self[name] = nn.ModuleDict({
                '0': nn.Conv1d(num_layers * dim, hidden, 1, groups=num_layers, bias=False),
                '1': LayerNorms(num_layers, hidden_dim), '3': last})

    def forward(self, queries: Tensor, layers: Sequence[int] | None = None) -> dict[str, Tensor]:
        """(L', B, Q, E) of the layers named, all L by default -> name -> (L', B, Q, n)."""
        chosen = slice(None) if layers is None else list(layers)
        flat = queries.flatten(1, 2)
        parts: list[Any] = [self[name] for name in self.widths]
        first = torch.cat([self._by_layer(part['0'].weight[..., 0])[chosen] for part in parts], dim=1)
        hidden = torch.bmm(flat, first.transpose(1, 2)).unflatten(-1, (len(parts), -1)).float()
        hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPS)
        scale, shift = (torch.stack([self._by_layer(getattr(part['1'], kind))[chosen] for part in parts], dim=1)[:, None]
                        for kind in ('weight', 'bias'))
        hidden = torch.addcmul(shift, hidden, scale).relu_()
        out = {}
        for number, (name, part) in enumerate(zip(self.widths, parts)):
            weight, bias = (self._by_layer(value)[chosen] for value in (part['3'].weight[..., 0], part['3'].bias))
            out[name] = torch.baddbmm(bias[:, None], hidden[:, :, number], weight.transpose(1, 2)).unflatten(
                1, queries.shape[1:3])
        return out

    def _by_layer(self, value: Tensor) -> Tensor:
        return value.unflatten(0, (self.num_layers, -1))
