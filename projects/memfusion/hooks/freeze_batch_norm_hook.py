"""Hook. Keeps BatchNorm layers in eval mode during training: their statistics stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm


@HOOKS.register_module()
class FreezeBatchNormHook(Hook):
    """Freezes the running statistics of BatchNorm, e.g. for batches too small to estimate them.

    The affine weights still train. Without frozen statistics two processes with one clip each differ from one process
    with two clips, because each normalises by its own clip.

    Args:
        prefixes: module names under which layers are frozen; '' is the whole model.
    """

    def __init__(self, prefixes: Sequence[str] = ('',)) -> None:
        self.prefixes = tuple(prefixes)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Before every iteration, since the training loop switches the model to train mode."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm) and name.startswith(self.prefixes):
                module.eval()
