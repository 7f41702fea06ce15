"""Spatial: model. In: patch rows of videos. Out: tokens of a small geometry encoder that learns with the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from projects.encodings.sine import sine_points


class SmallViT(nn.Module):
    """A transformer over all patches of a video, which sees views beside each other.

    It knows tokens, and neither cameras nor world points.

    Args:
        patch_dim: numbers in a patch row.
        dim: width of a token, divisible by 6 and by `heads`.
        depth, heads: of the transformer.
        merge: patches along a side of a language model's token.
    """

    def __init__(self, patch_dim: int, dim: int = 96, depth: int = 2, heads: int = 4, merge: int = 2) -> None:
        super().__init__()
        if dim % 6 or dim % heads:
            raise ValueError(f'encoder: dim={dim} must divide by 6 (sines of time, row and column) and by heads={heads}')
        self.dim, self.merge = dim, merge
        self.embed = nn.Linear(patch_dim, dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, 'gelu', batch_first=True, norm_first=True)
            for _ in range(depth))

    def forward(self, rows: Tensor, grids: Sequence[Sequence[int]]) -> Tensor:
        """Rows (P, patch_dim) of all videos and their grids (t, h, w) -> packed (P / merge^2, merge^2 * dim)."""
        tokens = self.embed(rows.to(self.embed.weight.dtype))
        outputs = []
        for part, grid in zip(tokens.split([steps * height * width for steps, height, width in grids]), grids):
            part = (part + self._places(grid, part))[None]
            for layer in self.layers:
                part = layer(part)
            outputs.append(part[0].unflatten(0, (-1, self.merge ** 2)).flatten(1))
        return torch.cat(outputs)

    def _places(self, grid: Sequence[int], like: Tensor) -> Tensor:
        """(patches, dim) in the order of patch rows: time, row and column."""
        axes = torch.meshgrid(*(torch.arange(size, device=like.device) for size in grid), indexing='ij')
        cells = torch.stack(axes, dim=-1).unflatten(2, (-1, self.merge)).unflatten(1, (-1, self.merge))
        places = cells.transpose(2, 3).reshape(-1, 3).float()
        return sine_points(places / max(grid), self.dim // 3, (0, 1, 2)).to(like.dtype)
