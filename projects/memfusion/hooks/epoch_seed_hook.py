"""Hook. Before each training epoch: tells the training data set the epoch, which its random draws depend on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Calls `set_epoch(epoch)` on the training data set and on every data set it wraps that has this method.

    The sampler is not its business: MMEngine's DistSamplerSeedHook does that.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        for dataset in wrapped_datasets(runner.train_dataloader.dataset):
            if hasattr(dataset, 'set_epoch'):
                dataset.set_epoch(runner.epoch)


def wrapped_datasets(dataset: Any) -> Iterator[Any]:
    """The data set, then those inside it (`.dataset`, or `.datasets` of a concatenation), outermost first."""
    yield dataset
    inner = getattr(dataset, 'dataset', None)
    for part in [inner] if inner is not None else getattr(dataset, 'datasets', ()):
        yield from wrapped_datasets(part)
