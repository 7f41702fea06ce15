"""FuTr and FuTr++, stage tokens. In: one image level (V, N, Ci, h, w). Out: CameraTokens, a coarse grid for each camera."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.memfusion.structures import Calibration

from .fusion_state import CameraTokens


class TokenGrid(nn.Module):
    """Adaptive average pooling to rows x columns tokens, then a linear layer.

    Feature cells that hold only padding are left out of the means, so a small image in a large canvas has clean tokens (and
    fewer of them).

    Args:
        img_channels: Ci.
        dim: D of the tokens.
        stride: network pixels per feature cell.
        grid: rows and columns per camera; one number is both.
    """

    def __init__(self, img_channels: int, dim: int, stride: int, grid: int | Sequence[int]) -> None:
        super().__init__()
        rows, columns = (grid, grid) if isinstance(grid, int) else grid
        if min(rows, columns) < 1:
            raise ValueError(f'fusion_layer.tokens.grid must be at least 1, got {grid}')
        self.grid, self.stride = (rows, columns), stride
        self.proj = nn.Linear(img_channels, dim)

    def forward(self, feature_map: Tensor, calibration: Calibration) -> CameraTokens:
        """feature_map (V, N, Ci, h, w), 0 for cameras that are not valid; calibration tells each image's own size."""
        row_px, column_px = (torch.arange(size, device=feature_map.device) * self.stride for size in feature_map.shape[-2:])
        height, width = calibration.img_hw[..., None, None].unbind(2)
        filled = (row_px[:, None] < height) & (column_px[None] < width)  # (V, N, h, w): a pixel of the image is in the cell
        filled &= calibration.cam_valid[..., None, None]
        centers = torch.stack(torch.meshgrid(column_px, row_px, indexing='xy')) + (self.stride - 1) / 2
        share = self._pool(filled[:, :, None].float())
        valid = share > 0
        scale = torch.where(valid, share, torch.ones_like(share))
        uv_px = self._pool(centers * filled[:, :, None]) / scale
        mean = self._pool(feature_map * filled[:, :, None]) / scale.to(feature_map.dtype)
        features = self.proj(mean).masked_fill(~valid, 0)
        return CameraTokens(features, uv_px, valid[..., 0])

    def _pool(self, maps: Tensor) -> Tensor:
        """(V, N, K, h, w) -> (V, N, T, K)."""
        pooled = F.adaptive_avg_pool2d(maps.flatten(0, 1), self.grid)
        return pooled.flatten(2).transpose(1, 2).unflatten(0, maps.shape[:2])
