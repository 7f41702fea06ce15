"""FuTr and FuTr++, stage tokens. In: one image level (V, N, Ci, h, w). Out: CameraTokens, a coarse grid for each camera."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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
        size = torch.tensor(feature_map.shape[-2:], device=feature_map.device)
        cells = calibration.img_hw.add(self.stride - 1).div(self.stride, rounding_mode='floor').minimum(size)  # (V, N, 2)
        (top, bottom), (left, right) = (_windows(count, tokens) for count, tokens in zip(cells.unbind(-1), self.grid))
        with torch.autocast(feature_map.device.type, enabled=False):  # sums over an image do not fit into half precision
            pooled = torch.einsum('vnih,vnchw,vnjw->vnijc', _shares(top, bottom, feature_map.shape[-2]),
                                  feature_map.float(), _shares(left, right, feature_map.shape[-1])).flatten(2, 3)
        valid = calibration.cam_valid[..., None].expand(-1, -1, self.grid[0] * self.grid[1])
        features = self.proj(pooled.to(feature_map.dtype)).masked_fill(~valid[..., None], 0)
        u_px, v_px = (((first + last).float() * self.stride - 1) / 2 for first, last in ((left, right), (top, bottom)))
        shape = (-1, -1, *self.grid)
        uv_px = torch.stack([u_px[..., None, :].expand(shape), v_px[..., :, None].expand(shape)], dim=-1)
        return CameraTokens(features, uv_px.flatten(2, 3), valid)


def _windows(cells: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """First and one past the last of `cells` (V, N) feature cells that each token covers: (V, N, tokens) int64 each."""
    token = torch.arange(tokens, device=cells.device)
    first = (token * cells[..., None]).div(tokens, rounding_mode='floor')
    last = ((token + 1) * cells[..., None] + tokens - 1).div(tokens, rounding_mode='floor')
    return first, last


def _shares(first: Tensor, last: Tensor, size: int) -> Tensor:
    """(V, N, tokens, size) float32: how much each of `size` feature cells counts in the mean of each token."""
    cell = torch.arange(size, device=first.device)
    inside = (cell >= first[..., None]) & (cell < last[..., None])
    return inside / (last - first)[..., None]
