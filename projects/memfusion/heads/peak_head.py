"""SeparateHead for inference. In: shared BEV features (B, C, H, W). Out: heatmap, and boxes' numbers only where it scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.models.dense_heads.centerpoint_head import CenterHead, SeparateHead
from torch import Tensor, nn

_MARGIN = 1e-4
"""Cells that score this much less than the threshold count too: rounding may lift them above it where boxes are decoded."""
_DENSE_SHARE = 16
"""From every 16th cell on, whole maps cost less than windows around cells."""


class PeakHead(nn.Module):
    """What a SeparateHead computes; its regression maps are 0 where no class scores, which CenterHead's decoder throws away.

    A box's numbers depend on the 5 x 5 cells around it (two 3 x 3 convolutions), so they are computed from these windows.

    Args:
        head: whose branches are taken, with their names; see `replaces`.
        score_threshold: of the decoder.
    """

    def __init__(self, head: SeparateHead, score_threshold: float) -> None:
        super().__init__()
        self.heads, self.score_threshold = dict(head.heads), score_threshold
        for name in self.heads:
            self.add_module(name, getattr(head, name))

    @classmethod
    def put_into(cls, center_head: CenterHead) -> None:
        """Replaces the task heads that it can stand for. Their BatchNorms were folded before."""
        threshold = center_head.bbox_coder.score_threshold
        for index, head in enumerate(center_head.task_heads):
            if threshold and type(head) is SeparateHead and 'heatmap' in head.heads and all(
                    _is_local(getattr(head, name)) for name in head.heads if name != 'heatmap'):
                center_head.task_heads[index] = cls(head, threshold)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) -> maps (B, k, H, W) by name."""
        maps: dict[str, Tensor] = {'heatmap': self.get_submodule('heatmap')(x)}
        names = [name for name in self.heads if name != 'heatmap']
        peaks = (maps['heatmap'].sigmoid().amax(dim=1) > self.score_threshold - _MARGIN).nonzero(as_tuple=True)
        if len(peaks[0]) * _DENSE_SHARE > x[:, 0].numel():
            return maps | {name: self.get_submodule(name)(x) for name in names}
        windows, inside = _windows(x, *peaks)
        for name in names:
            first, last = self._modules[name]  # type: ignore[misc]
            hidden = F.relu(F.conv2d(windows, first.conv.weight, first.conv.bias)) * inside
            values = F.conv2d(hidden, last.weight, last.bias)[:, :, 0, 0]
            maps[name] = values.new_zeros(len(x), *x.shape[2:], values.shape[1]).index_put_(peaks, values).permute(0, 3, 1, 2)
        return maps


def _is_local(branch: Any) -> bool:
    """Whether a branch is a 3 x 3 convolution without norm, ReLU, and a 3 x 3 convolution, both with padding 1."""
    if len(branch) != 2 or type(branch[0]) is not ConvModule or type(branch[0].activate) is not nn.ReLU:
        return False
    normless = not branch[0].with_norm or isinstance(branch[0].norm, nn.Identity)
    plain = all(
        isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3) and conv.padding == conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1 and conv.padding_mode == 'zeros' for conv in (branch[0].conv, branch[1]))
    return normless and plain and branch[0].order == ('conv', 'norm', 'act')


def _windows(x: Tensor, frame: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Windows (n, C, 5, 5) around n cells, 0 beyond the map; and 1 where their inner 3 x 3 cells lie on it, (n, 1, 3, 3)."""
    reach = torch.arange(-2, 3, device=x.device)
    rows, columns = row[:, None] + reach, column[:, None] + reach
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 2, 2, 2, 2))
    windows = padded[frame[:, None, None], rows[:, :, None] + 2, columns[:, None] + 2].permute(0, 3, 1, 2)
    on_row = (rows >= 0) & (rows < x.shape[2])
    on_column = (columns >= 0) & (columns < x.shape[3])
    inside = on_row[:, 1:4, None] & on_column[:, None, 1:4]
    return windows, inside[:, None].to(x.dtype)
