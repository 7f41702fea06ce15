"""Loss of the occupancy branch. In: logits and target (N, 1, H, W). Out: scalars; BCE on the hardest cells, and dice."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from .ranks import mean_over_ranks


@MODELS.register_module()
class OccupancyLoss(BaseModule):
    """Bootstrapped binary cross-entropy plus dice, as XMem trains its masks.

    Cross-entropy starts over all cells and narrows to the hardest: bootstrapping from the first step on holds every
    undecided cell at one half and hardly learns.

    Args:
        hard_fraction: share of the cells with the largest cross-entropy that count in the end; 1 is plain cross-entropy.
        warmup_iters: (first, last) training iteration of the linear way from 1 to `hard_fraction`.
        bce_weight: weight of the cross-entropy.
        dice_weight: weight of the dice loss.
    """

    iteration: Tensor

    def __init__(
        self,
        hard_fraction: float = 0.15,
        warmup_iters: tuple[int, int] = (2000, 8000),
        bce_weight: float = 1.0,
        dice_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0.0 < hard_fraction <= 1.0:
            raise ValueError(f'loss_occ.hard_fraction must lie in (0, 1], got {hard_fraction}')
        if not 0 <= warmup_iters[0] <= warmup_iters[1]:
            raise ValueError(f'loss_occ.warmup_iters must be 0 <= first <= last, got {tuple(warmup_iters)}')
        self.hard_fraction, self.warmup_iters = hard_fraction, tuple(warmup_iters)
        self.bce_weight, self.dice_weight = bce_weight, dice_weight
        self.register_buffer('iteration', torch.zeros((), dtype=torch.int64))  # saved, so that a resumed run goes on
        self._iteration = 0  # the same on the host, which would wait for a device's

    def current_fraction(self) -> float:
        """Share of the cells that count at this iteration."""
        first, last = self.warmup_iters
        progress = 1.0 if first == last == 0 else (self._iteration - first) / max(last - first, 1)
        return 1.0 - (1.0 - self.hard_fraction) * min(max(progress, 0.0), 1.0)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """logits, target (N, 1, H, W), target in 0..1 -> loss_occ_bce, loss_occ_dice: means over the frames of all ranks."""
        frames = mean_over_ranks(logits.new_full((), float(logits.shape[0]))).clamp(min=1e-6)
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction='none').flatten(1)
        hardest = max(1, int(self.current_fraction() * bce.shape[1]))
        if self.training:
            self._iteration += 1
            self.iteration.fill_(self._iteration)
        bce = bce.topk(hardest, dim=1).values.mean(dim=1)
        prob, truth = logits.sigmoid().flatten(1), target.flatten(1)
        dice = 1 - (2 * (prob * truth).sum(dim=1) + 1) / (prob.sum(dim=1) + truth.sum(dim=1) + 1)
        return {
            'loss_occ_bce': self.bce_weight * torch.sum(bce) / frames,
            'loss_occ_dice': self.dice_weight * torch.sum(dice) / frames,
        }

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._iteration = int(self.iteration)
