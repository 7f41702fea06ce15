"""Hook. Stores convolution weights channels-last, the order in which CPUs (and tensor cores) convolve fastest."""

from __future__ import annotations

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def to_channels_last(model: nn.Module) -> None:
    """Reorders the weights of 2-D convolutions in memory, in place; sparse ones have five axes and stay."""
    for weight in model.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Converts the model before a run; shapes, names and checkpoints stay as they are.

    Results differ from the default order in the last digits, as sums are taken in another order. For several processes the
    Runner converts earlier: DistributedDataParallel remembers the order that weights have when it is built, and permutes the
    gradients of its first step where that changes.
    """

    def before_run(self, runner: Runner) -> None:
        """Called before training, validation and testing.

        Raises:
            ValueError: where the model is wrapped for several processes and was not converted before.
        """
        if not is_model_wrapper(runner.model):
            to_channels_last(runner.model)
        elif not all(weight.is_contiguous(memory_format=torch.channels_last)
                     for weight in runner.model.parameters() if weight.dim() == 4):
            raise ValueError("ChannelsLastHook: the model is wrapped for several processes already, which would permute "
                             "gradients; set runner_type='MemFusionRunner', or leave the hook out")
