"""Losses of CenterHead whose normalisers are shared by all ranks. Drop-in for mmdet's; the same in one process.

mmdet3d's CenterHead divides by the positives of its own rank, so 2 x batch 1 is not 1 x batch 2. Dividing by the mean
over ranks makes it so, since DDP averages gradients.
"""

from __future__ import annotations

from mmdet.models.losses import GaussianFocalLoss, L1Loss
from mmdet3d.registry import MODELS
from mmengine.dist import get_world_size
from torch import Tensor

from .ranks import mean_over_ranks


@MODELS.register_module()
class SyncGaussianFocalLoss(GaussianFocalLoss):
    """mmdet's GaussianFocalLoss, averaged over the positives of all ranks."""

    def forward(self, pred: Tensor, target: Tensor, avg_factor: float | None = None) -> Tensor:
        """pred, target (N, K, H, W) in 0..1; avg_factor: positives of this rank, at least 1 (for one process only)."""
        if get_world_size() > 1:
            # The caller's factor is clamped to 1 per rank, which has no place in a mean: count the peaks anew.
            positives = mean_over_ranks(target.eq(1).float().sum())
            avg_factor = max(positives.item(), 1.0 / get_world_size())
        return super().forward(pred, target, avg_factor=avg_factor)


@MODELS.register_module()
class SyncL1Loss(L1Loss):
    """mmdet's L1Loss, averaged over the boxes of all ranks."""

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None,
                avg_factor: Tensor | None = None) -> Tensor:
        """pred, target, weight (N, M, D); avg_factor: scalar tensor, boxes of this rank."""
        if avg_factor is not None:
            avg_factor = mean_over_ranks(avg_factor)
        return super().forward(pred, target, weight, avg_factor=avg_factor)
