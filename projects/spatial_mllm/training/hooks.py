"""Spatial: training. In: a model that trains. Out: checkpoint folders that the library's `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from .lora import merged_state


@HOOKS.register_module()
class SavePretrainedHook(Hook):
    """Writes WORK_DIR/NAME after training, and WORK_DIR/NAME_epoch_N every `interval` epochs; weights, config and tokenizer.

    Args:
        name: of the folder.
        interval: epochs; 0 writes at the end alone.
    """

    def __init__(self, name: str = 'pretrained', interval: int = 0) -> None:
        self.name, self.interval = name, interval

    def after_train_epoch(self, runner: Any) -> None:
        """Called by the Runner."""
        if self.interval and self.every_n_epochs(runner, self.interval):
            self.save(runner, f'{self.name}_epoch_{runner.epoch + 1}')

    def after_train(self, runner: Any) -> None:
        """Called by the Runner."""
        self.save(runner, self.name)

    @master_only
    def save(self, runner: Any, name: str) -> None:
        """One folder."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        folder = Path(runner.work_dir) / name
        model.network.save_pretrained(folder, state_dict=merged_state(model.network))
        model.tokenizer.save_pretrained(folder)
        runner.logger.info(f'wrote {folder}')
