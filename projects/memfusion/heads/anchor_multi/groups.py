"""Heads, one group of classes. In: shared features (V, C, H, W). Out: logits and box codes of the group's anchors (V, n, .)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleDict, bias_init_with_prob
from torch import Tensor, nn


@dataclass(frozen=True)
class BranchSettings:
    """How a group's branches are built.

    Args:
        numbers: name of a regression branch -> numbers for each anchor, in the order in which they are joined.
        channels: width.
        num_convs: 3 x 3 convolutions before the last one.
        norm_cfg: of their BatchNorms.
    """

    numbers: Mapping[str, int] = field(default_factory=lambda: dict(reg=2, height=1, size=3, angle=2, velo=2))
    channels: int = 64
    num_convs: int = 1
    norm_cfg: Mapping[str, Any] = field(default_factory=lambda: dict(type='BN', eps=1e-5, momentum=0.1))

    def __post_init__(self) -> None:
        if not self.numbers or min(self.numbers.values()) < 1 or self.num_convs < 0:
            raise ValueError('each branch needs at least one number, and num_convs must not be negative')


@dataclass(frozen=True)
class GroupOutput:
    """What a group says about its anchors, ordered anchor of the cell, y, x.

    Attributes:
        cls_logits: (V, n, K) of every class of the group for every anchor, whichever class the anchor belongs to.
        box_codes: (V, n, code size).
        dir_logits: (V, n, bins), None without a direction classifier.
    """

    cls_logits: Tensor
    box_codes: Tensor
    dir_logits: Tensor | None


class AnchorGroupHead(BaseModule):
    """Branches of one group: class logits, regression branches of their own, direction bins.

    The regression branches are joined along channels, branch by branch, and the joint channels are then read as (anchor,
    number). So a branch does not give what its name says for every anchor: with two anchors the first one takes all of
    `reg` (2 numbers x 2 anchors), all of `height` and the beginning of `size`. It is the published layout, which the
    published weights were trained with.
    """

    def __init__(self, in_channels: int, num_classes: int, per_cell: int, branches: BranchSettings,
                 num_dir_bins: int | None) -> None:
        super().__init__()
        self.num_classes, self.per_cell, self.num_dir_bins = num_classes, per_cell, num_dir_bins
        self.code_size = sum(branches.numbers.values())
        self.cls = _branch(in_channels, per_cell * num_classes, branches)
        self.box = ModuleDict({name: _branch(in_channels, per_cell * count, branches)
                               for name, count in branches.numbers.items()})
        self.direction = None if num_dir_bins is None else nn.Conv2d(in_channels, per_cell * num_dir_bins, 1)
        self.init_weights()

    def init_weights(self) -> None:
        """As published: Kaiming by fan-out for boxes, biases 0; classes start at 1 %."""
        for part in self.box.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode='fan_out', nonlinearity='relu')
                if part.bias is not None:
                    nn.init.constant_(part.bias, 0)
        last: Any = self.cls[-1]
        nn.init.constant_(last.bias, bias_init_with_prob(0.01))

    def forward(self, shared: Tensor) -> GroupOutput:
        """(V, C, H, W) -> predictions of the per_cell * H * W anchors."""
        codes = torch.cat([branch(shared) for branch in self.box.values()], dim=1)
        bins = None
        if self.direction is not None and self.num_dir_bins is not None:
            bins = self._per_anchor(self.direction(shared), self.num_dir_bins)
        return GroupOutput(
            self._per_anchor(self.cls(shared), self.num_classes), self._per_anchor(codes, self.code_size), bins)

    def _per_anchor(self, maps: Tensor, numbers: int) -> Tensor:
        """(V, anchors x numbers, H, W) -> (V, anchors x H x W, numbers)."""
        frames, _, height, width = maps.shape
        return maps.view(frames, self.per_cell, numbers, height, width).permute(0, 1, 3, 4, 2).reshape(frames, -1, numbers)


def _branch(in_channels: int, out_channels: int, settings: BranchSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(settings.num_convs):
        layers.append(ConvModule(in_channels, settings.channels, 3, padding=1, bias=False, norm_cfg=dict(settings.norm_cfg)))
        in_channels = settings.channels
    return nn.Sequential(*layers, nn.Conv2d(in_channels, out_channels, 3, padding=1))
