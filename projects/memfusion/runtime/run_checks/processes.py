"""Checks of a run, processes. In: its config. Out: nothing, or one line on what cannot run in one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import is_distributed

from ..errors import UserError
from .walk import is_kind


def check_optimizer(cfg: Mapping[str, Any]) -> None:
    """Raises UserError where the optimizer's state is to be shared out and there are no processes to share it."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if optimizer and is_kind(optimizer, 'ShardedAdamW', 'ZeroRedundancyOptimizer') and not is_distributed():
        kind = optimizer['type']
        raise UserError(f'optim_wrapper.optimizer.type={kind!r} shares its state out over processes, and this run has none: '
                        'start with tools/dist_train.sh CONFIG GPUS (1 will do), or set optim_wrapper.optimizer to '
                        "dict(type='AdamW', ...)")
