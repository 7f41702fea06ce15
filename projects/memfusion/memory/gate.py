"""Readout `gate`. In: BEV (B, C, H, W) and occupancy logits (B, 1, Hm, Wm). Out: BEV features, scaled, same frame."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor


def gate_bev(bev: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
    """`bev * (1 - alpha + alpha * sigmoid(occ_logits))`, the logits resized to the BEV.

    alpha = 0 returns `bev` itself, bit for bit; alpha = 1 is the pure gate.
    """
    if alpha == 0:
        return bev
    logits = F.interpolate(occ_logits, size=bev.shape[-2:], mode='bilinear', align_corners=False)
    return bev * (1 - alpha + alpha * logits.sigmoid())


@MODELS.register_module()
class GateReadout(BaseModule):
    """Lets remembered occupancy scale the current features; it can only multiply, never add evidence."""

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """bev (B, C, H, W), decoded (B, D, Hm, Wm; unused by a gate), occ_logits (B, 1, Hm, Wm) -> (B, C, H, W)."""
        del decoded
        return gate_bev(bev, occ_logits, alpha)
