"""Losses of boxes. In: predictions, targets, weights (..., D). Out: a scalar."""

from __future__ import annotations

from mmdet.models.losses import GaussianFocalLoss, L1Loss
from mmdet.models.losses.smooth_l1_loss import l1_loss
from mmdet3d.registry import MODELS
from torch import Tensor

# Configs made before the heads divided by the counts of all ranks themselves name these losses for it.
MODELS.register_module(name='SyncGaussianFocalLoss', module=GaussianFocalLoss)


@MODELS.register_module(name=['MaskedL1Loss', 'SyncL1Loss'])
class MaskedL1Loss(L1Loss):
    """mmdet's L1Loss for weights most of which are 0: those values cost nothing, whatever their targets hold, NaN included.

    mmdet's asks the device whether any weight is above 0, for which the host would wait.
    """

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | None = None) -> Tensor:
        """pred, target, weight of shapes that broadcast; avg_factor: scalar tensor, boxes that count, a mean over ranks."""
        target = target.masked_fill(weight == 0, 0.0)
        return self.loss_weight * l1_loss(pred, target, weight, reduction=self.reduction, avg_factor=avg_factor)
