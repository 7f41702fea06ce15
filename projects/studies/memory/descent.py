"""Study. In: parameters, a budget. Out: the descent that all rows share: AdamW, one cycle of the rate, clipped gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .rows import Budget

_MAX_NORM = 10.0


class Descent:
    """AdamW, whose rate rises to the budget's and falls again over the budget's steps.

    Args:
        parameters: that learn.
        budget: steps and peak rate.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], budget: Budget) -> None:
        self.parameters = list(parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=budget.lr, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, budget.lr, total_steps=budget.iterations, pct_start=0.2, div_factor=10)

    def step(self, loss: Tensor) -> None:
        """One step down."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, _MAX_NORM)
        self.optimizer.step()
        self.schedule.step()
