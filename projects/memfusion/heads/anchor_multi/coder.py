"""Heads, box coding. In: anchors and boxes, LiDAR frame, z of the centre. Out: the numbers that a network regresses; back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

YAW = 6
_TINY_M = 1e-5


@TASK_UTILS.register_module()
class ResidualBoxCoder:
    """Boxes relative to anchors: (x, y) by the anchor's diagonal, z by its height, log ratios of sizes, yaw, the rest as it is.

    Source: ResidualCoder of OpenPCDet.

    Args:
        sincos_yaw: code yaw as (cos g - cos a, sin g - sin a), which knows front from back, instead of g - a.
        velocity: code (vx, vy) after the yaw.
    """

    def __init__(self, sincos_yaw: bool = False, velocity: bool = True) -> None:
        self.sincos_yaw = sincos_yaw
        self.box_size = 9 if velocity else 7
        self.code_size = self.box_size + int(sincos_yaw)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """boxes (n, box_size), anchors (n, 7) -> (n, code_size). Sizes under 1e-5 m count as that."""
        size, own = boxes[:, 3:6].clamp(min=_TINY_M), anchors[:, 3:6].clamp(min=_TINY_M)
        yaw, own_yaw = boxes[:, YAW:YAW + 1], anchors[:, YAW:YAW + 1]
        turn = [yaw.cos() - own_yaw.cos(), yaw.sin() - own_yaw.sin()] if self.sincos_yaw else [yaw - own_yaw]
        shift = (boxes[:, :3] - anchors[:, :3]) / self._scale(own)
        return torch.cat([shift, torch.log(size / own), *turn, boxes[:, YAW + 1:self.box_size]], dim=1)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """codes (..., n, code_size), anchors (n, 7) -> (..., n, box_size); yaw in -pi..pi if it was coded as cos and sin."""
        own, own_yaw = anchors[:, 3:6], anchors[:, YAW:YAW + 1]
        center = codes[..., :3] * self._scale(own) + anchors[:, :3]
        size = codes[..., 3:6].exp() * own
        if self.sincos_yaw:
            yaw = torch.atan2(codes[..., 7:8] + own_yaw.sin(), codes[..., 6:7] + own_yaw.cos())
        else:
            yaw = codes[..., 6:7] + own_yaw
        return torch.cat([center, size, yaw, codes[..., self.code_size - (self.box_size - 7):]], dim=-1)

    @staticmethod
    def _scale(size: Tensor) -> Tensor:
        diagonal = size[:, :2].square().sum(dim=1, keepdim=True).sqrt()
        return torch.cat([diagonal, diagonal, size[:, 2:]], dim=1)


@dataclass(frozen=True)
class DirectionBins:
    """Yaw as a bin, by a classifier, and a rest, by regression that does not tell front from back.

    Args:
        offset_rad: where the first bin begins.
        limit_offset: share of a bin by which a rest may lie below the bin's beginning, 0 to 1.
        num_bins: bins in a full turn.
    """

    offset_rad: float = 0.78539
    limit_offset: float = 0.0
    num_bins: int = 2

    def __post_init__(self) -> None:
        if self.num_bins < 2:
            raise ValueError('num_bins must be at least 2')

    def bin_of(self, yaw: Tensor) -> Tensor:
        """Yaw in radians -> its bin, int64. Source: get_direction_target of OpenPCDet and mmdet3d."""
        within = _wrapped(yaw - self.offset_rad, 0.0, 2 * math.pi)
        return (within / (2 * math.pi / self.num_bins)).floor().long().clamp(0, self.num_bins - 1)

    def resolve(self, yaw: Tensor, bins: Tensor) -> Tensor:
        """The yaw of `bins` that differs from `yaw` by whole bins; it is not wrapped afterwards."""
        period = 2 * math.pi / self.num_bins
        return _wrapped(yaw - self.offset_rad, self.limit_offset, period) + self.offset_rad + period * bins.to(yaw.dtype)


def _wrapped(value: Tensor, offset: float, period: float) -> Tensor:
    """`value` moved by whole periods into -offset * period ... (1 - offset) * period."""
    return value - torch.floor(value / period + offset) * period
