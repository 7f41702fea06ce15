"""FuTr and FuTr++, stage tokens. In: one image level (V, N, Ci, h, w). Out: CameraTokens, a coarse grid for each camera."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from projects.geometry import full_precision, window_bounds, window_shares
from projects.memfusion.structures import Calibration

from .fusion_state import CameraTokens


class TokenGrid(nn.Module):
    """Adaptive average pooling of each image to rows x columns tokens, then a linear layer.

    Windows are laid over the image's own feature cells: what pads it to the largest of the batch changes no token.

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
        cells = calibration.img_hw.add(self.stride - 1).div(self.stride, rounding_mode='floor')  # (V, N, 2)
        (top, bottom), (left, right) = (
            window_bounds(count.clamp(max=size), tokens)
            for count, size, tokens in zip(cells.unbind(-1), feature_map.shape[-2:], self.grid))
        shares = (window_shares(*bounds, size) for bounds, size in (
            ((top, bottom), feature_map.shape[-2]), ((left, right), feature_map.shape[-1])))
        pooled = _pool(feature_map, *shares)
        valid = calibration.cam_valid[..., None].expand(-1, -1, self.grid[0] * self.grid[1])
        features = self.proj(pooled.to(feature_map.dtype)).masked_fill(~valid[..., None], 0)
        u_px, v_px = (((first + last).float() * self.stride - 1) / 2 for first, last in ((left, right), (top, bottom)))
        shape = (-1, -1, *self.grid)
        uv_px = torch.stack([u_px[..., None, :].expand(shape), v_px[..., :, None].expand(shape)], dim=-1)
        return CameraTokens(features, uv_px.flatten(2, 3), valid)


@full_precision  # sums over an image do not fit into half precision
def _pool(feature_map: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(V, N, C, h, w) and the shares of rows (V, N, i, h) and columns (V, N, j, w) -> (V, N, i * j, C) float32."""
    return torch.einsum('vnih,vnchw,vnjw->vnijc', rows, feature_map.float(), columns).flatten(2, 3)
