"""Hook. Stores convolution weights channels-last, the order in which CPUs (and tensor cores) convolve fastest."""

from __future__ import annotations

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Converts the model before a run; shapes, names and checkpoints stay as they are.

    Results differ from the default order in the last digits, as sums are taken in another order.
    """

    def before_run(self, runner: Runner) -> None:
        """Called before training, validation and testing."""
        runner.model.to(memory_format=torch.channels_last)
