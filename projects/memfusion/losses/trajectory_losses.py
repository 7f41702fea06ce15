"""Losses of forecast futures. In: modes and true futures, agents' frames, metres. Out: means over all ranks' agents."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from .ranks import mean_over_ranks


@MODELS.register_module()
class TrajectoryLoss(BaseModule):
    """MTP's loss (Cui et al., ICRA 2019), the devkit's batched: the winner takes all. Of one mode: ADE.

    The winner is the nearest by mean distance among the modes whose end lies within the gate's angle of the true end, seen from
    the agent; where either end is the agent itself, the angle is 0. It learns by smooth L1, its logit by cross-entropy. Where
    no mode passes the gate, MTP draws one; here the nearest of all wins, so that runs and processes agree.

    Args:
        gate_deg: the angle, degrees.
        regression_weight: of smooth L1 beside cross-entropy.
    """

    def __init__(self, gate_deg: float = 5.0, regression_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 < gate_deg <= 180 or regression_weight <= 0:
            raise ValueError(f'TrajectoryLoss: gate_deg must lie in (0, 180] and regression_weight above 0, got {gate_deg} and '
                             f'{regression_weight}')
        self.gate_deg, self.regression_weight = gate_deg, regression_weight

    def forward(self, modes: Tensor, logits: Tensor, truth: Tensor, there: Tensor) -> dict[str, Tensor]:
        """loss_ade of one mode, else loss_regression and loss_mode.

        Args:
            modes: (B, A, M, S, 2) metres.
            logits: (B, A, M).
            truth: (B, A, S, 2) metres.
            there: (B, A, S) bool, steps that are known; an agent without any counts nothing.
        """
        modes, logits, truth = modes.float(), logits.float(), truth.float()
        steps = there.sum(dim=-1)  # (B, A)
        agents = mean_over_ranks((steps > 0).sum().float()).clamp(min=1e-6)
        weight = there / steps.clamp(min=1)[..., None]  # of each step in its agent's mean
        apart = torch.linalg.vector_norm(modes - truth[:, :, None], dim=-1)  # (B, A, M, S)
        distance = (apart * weight[:, :, None]).sum(dim=-1)
        if modes.shape[2] == 1:
            return dict(loss_ade=distance.sum() / agents + 0 * logits.sum())  # distributed training waits for every gradient
        winner = self.winners(modes.detach(), truth, there, distance.detach())
        best = modes.gather(2, winner[:, :, None, None, None].expand(-1, -1, 1, *modes.shape[3:]))[:, :, 0]
        smooth = F.smooth_l1_loss(best, truth, reduction='none').mean(dim=-1)
        entropy = F.cross_entropy(logits.flatten(0, 1), winner.flatten(), reduction='none').view_as(steps)
        return dict(loss_regression=self.regression_weight * (smooth * weight).sum() / agents,
                    loss_mode=(entropy * (steps > 0)).sum() / agents)

    def winners(self, modes: Tensor, truth: Tensor, there: Tensor, distance: Tensor) -> Tensor:
        """(B, A) int64, the mode that learns; arguments as in `forward`, distance (B, A, M) metres."""
        order = torch.arange(1, there.shape[-1] + 1, device=there.device)
        last = (there * order).argmax(dim=-1)  # the last known step
        end = truth.gather(2, last[:, :, None, None].expand(-1, -1, 1, 2))  # (B, A, 1, 2)
        ends = modes.gather(3, last[:, :, None, None, None].expand(-1, -1, modes.shape[2], 1, 2))[..., 0, :]
        norms = end.norm(dim=-1) * ends.norm(dim=-1)
        cosine = (end * ends).sum(dim=-1) / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        passes = (cosine.clamp(-1, 1).acos() <= math.radians(self.gate_deg)) | (norms == 0)
        passes = passes | ~passes.any(dim=-1, keepdim=True)
        return distance.masked_fill(~passes, torch.inf).argmin(dim=-1)
