"""Fusion losses, pure functions. In: predictions and truth. Out: scalars whose normalisers are shared by all ranks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .ranks import mean_over_ranks


def center_focal_loss(logits: Tensor, heatmap: Tensor) -> Tensor:
    """Focal loss of a centre heatmap (Law and Deng, ECCV 2018), per centre.

    Args:
        logits: (V, 1, H, W).
        heatmap: (V, 1, H, W) in 0..1, exactly 1 at a centre.

    Raises:
        ValueError: where the shapes differ.
    """
    if logits.shape != heatmap.shape:
        raise ValueError(f'the centre heatmap is {tuple(heatmap.shape)}, but the BEV asks for {tuple(logits.shape)}')
    logits, heatmap = logits.float(), heatmap.float()
    prob, center = logits.sigmoid(), heatmap.eq(1)
    hit = -F.logsigmoid(logits) * (1 - prob).square()
    miss = -F.logsigmoid(-logits) * prob.square() * (1 - heatmap).pow(4)
    return torch.where(center, hit, miss).sum() / mean_over_ranks(center.float().sum()).clamp(min=1.0)


def calibration_error(error: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4, 4) rigid errors -> degrees (..., 3) and metres (..., 3) about and along each axis.

    The rotation is read from the antisymmetric part, sin(angle) times the axis: smooth at zero, and right to 1 % up to 14 deg.
    """
    turned = (error[..., :3, :3] - error[..., :3, :3].transpose(-1, -2)) / 2
    axis = torch.stack([turned[..., 2, 1], turned[..., 0, 2], turned[..., 1, 0]], dim=-1)
    return axis * (180.0 / math.pi), error[..., :3, 3]
