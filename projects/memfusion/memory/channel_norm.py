"""Normalisation of the memory networks. In and out: (B, C, H, W). Every cell is normalised by itself."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each cell (as in ConvNeXt, Liu et al., CVPR 2022).

    Statistics over the map, as GroupNorm's, would let what enters at one border change every cell: a world that stands still
    would not be remembered as it is seen, and channels that are the same everywhere (ego motion) would be taken out. Running
    statistics would be touched by padded frames, and memory is read one frame at a time.
    """

    _abbr_ = 'ln'

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.layer_norm(
            input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


LOCAL_NORM = dict(type=ChannelNorm)
"""For mmcv's ConvModule. A class and no name: to look a name up it would import all of mmdet3d."""
