"""Runtime. In: parameters that all processes share. Out: AdamW, of whose state each process keeps its part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import OPTIMIZERS
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import AdamW


@OPTIMIZERS.register_module()
class ShardedAdamW(ZeroRedundancyOptimizer):
    """AdamW by torch's ZeroRedundancyOptimizer (ZeRO stage 1, Rajbhandari et al., SC 2020).

    MMEngine's own wrapper of it brings the state together when it is asked for its state, which the Runner does in the first
    process alone: it waits for the others without end. Here all call `consolidate_state_dict` before. What does not learn is
    left out: torch's refuses parameters of two dtypes, and sends all that it has to all processes after each step.

    Args:
        params: or groups of them.
        lr, betas, eps, weight_decay: as in torch's AdamW.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01) -> None:
        super().__init__(_learning(params), AdamW, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def _learning(params: Iterable[Any]) -> list[Any]:
    """Parameters, or groups of them, that learn."""
    kept: list[Any] = []
    for one in params:
        own = [each for each in one['params'] if each.requires_grad] if isinstance(one, Mapping) else []
        if own:
            kept.append({**one, 'params': own})
        elif not isinstance(one, Mapping) and one.requires_grad:
            kept.append(one)
    return kept
