"""Images. In: a backbone's levels, finest first, (V, C_i, h_i, w_i). Out: as many of one width, coarser ones added to finer."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class CPFPN(BaseModule):
    """The FPN of PETR's family; slot `img_neck`. mmdet's FPN without the output convolutions of all levels but the finest.

    Its names are those of the published code (`lateral_convs.i.conv`, `fpn_convs.0.conv`), where nothing reads the coarser
    levels; here they are what goes into the finer ones.

    Args:
        in_channels: of the backbone's levels, finest first.
        out_channels: of every level that is returned.
        num_outs: levels that are returned; as many as there are.

    Raises:
        ValueError: naming the key, where the counts do not fit.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, num_outs: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        if not in_channels or num_outs != len(in_channels):
            raise ValueError(f'img_neck.num_outs={num_outs} must be the number of levels, in_channels={list(in_channels)} are '
                             f'{len(in_channels)}; more or fewer levels: mmdet.FPN')
        self.lateral_convs = nn.ModuleList(ConvModule(width, out_channels, 1, act_cfg=None) for width in in_channels)
        self.fpn_convs = nn.ModuleList([ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None)])

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (V, C_i, h_i, w_i) -> (V, C, h_i, w_i); each has the next coarser one's nearest cells added.

        Raises:
            ValueError: for another number of levels than `in_channels` says.
        """
        if len(levels) != len(self.lateral_convs):
            raise ValueError(f'img_neck.in_channels says {len(self.lateral_convs)} levels, img_backbone gives {len(levels)}')
        found = [conv(level) for conv, level in zip(self.lateral_convs, levels)]
        for i in range(len(found) - 1, 0, -1):
            found[i - 1] = found[i - 1] + F.interpolate(found[i], size=found[i - 1].shape[2:])
        return self.fpn_convs[0](found[0]), *found[1:]
