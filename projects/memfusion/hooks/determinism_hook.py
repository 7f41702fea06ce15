"""Hook. Where only deterministic algorithms are wanted: the run warns of what has none, instead of ending there."""

from __future__ import annotations

import os
import warnings

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

ORDERED = {
    'grid_sampler_2d_backward': 'geometry.resampling.sample_bilinear',
    '_adaptive_avg_pool2d_backward': 'geometry.resampling.pool_adaptive',
    'upsample_bilinear2d_backward': 'torch.nn.functional.interpolate',
}
"""Of the operations that torch documents as never deterministic on CUDA, those that this project's models run (a test looks
at training steps), and which function takes a deterministic form there instead."""

_OTHER_KERNELS = ('spconv', 'mmcv.ops')


@HOOKS.register_module()
class DeterminismHook(Hook):
    """Follows `randomness.deterministic` (`--deterministic`); does nothing without it.

    MMEngine makes torch raise an error where an operation has no deterministic algorithm on CUDA, in the midst of the first
    backward pass. Here torch warns, each operation once. Attention is computed by plain products, since its fused kernels
    are deterministic only where torch raises errors.
    """

    def before_run(self, runner: Runner) -> None:
        """Before training, validation and testing."""
        if not torch.are_deterministic_algorithms_enabled():
            return
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS is deterministic only with this
        torch.use_deterministic_algorithms(True, warn_only=True)
        for name in ('enable_flash_sdp', 'enable_mem_efficient_sdp', 'enable_cudnn_sdp'):
            if hasattr(torch.backends.cuda, name):  # the last one came with torch 2.5
                getattr(torch.backends.cuda, name)(False)
        warnings.filterwarnings('once', message='.*does not have a deterministic implementation')
        runner.logger.warning(
            'only deterministic algorithms, which are slower; an operation that torch has none for on CUDA is told in a '
            'warning, and may differ from run to run')
        foreign = foreign_kernels(runner.model)
        if foreign:
            runner.logger.warning(
                f'{", ".join(foreign)}: with kernels of their own, of which torch does not know whether they are deterministic')


def foreign_kernels(model: nn.Module) -> list[str]:
    """Names of the model's module classes that bring CUDA kernels from outside torch, sorted."""
    kinds = {type(module) for module in model.modules()}
    return sorted(f'{kind.__module__.split(".")[0]}.{kind.__name__}' for kind in kinds
                  if kind.__module__.startswith(_OTHER_KERNELS))
