"""Spatial: training. In: a model that trains or answers. Out: folders that `from_pretrained` reads; no mixed answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper
from torch import Tensor

from projects.spatial_mllm.scoring.store import MODEL, AnswerStore

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
        model, folder = _unwrapped(runner), Path(runner.work_dir) / name
        model.network.save_pretrained(folder, state_dict=_stored(merged_state(model.network), model.dtype))
        model.tokenizer.save_pretrained(folder)
        runner.logger.info(f'wrote {folder}')


@HOOKS.register_module()
class AnswerDtypeHook(Hook):
    """Before a test by a run that does not train: all weights in the model's dtype."""

    def before_test(self, runner: Any) -> None:
        """Called by the Runner."""
        if not isinstance(runner.optim_wrapper, BaseOptimWrapper):
            _unwrapped(runner).all_in_dtype()


@HOOKS.register_module()
class KeptAnswersHook(Hook):
    """Before a test that keeps answers: a folder that another model began is refused, and so are two folders."""

    def before_test(self, runner: Any) -> None:
        """Called by the Runner.

        Raises:
            ValueError: naming the folders, or what differs.
        """
        folder = getattr(runner.test_dataloader.dataset, 'answers', None)
        kept = [metric.answers for metric in runner.test_evaluator.metrics if hasattr(metric, 'answers')]
        others = [other for other in kept if other != folder]
        if others:
            raise ValueError(f'test_dataloader.dataset.answers={folder!r} and test_evaluator.answers={others[0]!r} must be one '
                             'folder: what is kept in it is not asked again')
        if folder is not None:
            AnswerStore(folder).check(_what_answers(runner.cfg), MODEL)


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """In this dtype, beside the device, which has no room for them; tied weights stay one, or they would be written twice."""
    copies: dict[tuple, Tensor] = {}
    for value in state.values():
        if (value.data_ptr(), value.shape) not in copies:
            copies[value.data_ptr(), value.shape] = value.to('cpu', dtype)
    return {name: copies[value.data_ptr(), value.shape] for name, value in state.items()}


def _unwrapped(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _what_answers(cfg: Any) -> dict[str, str]:
    """Weights, with the time of their last change, and the model's settings."""
    weights = Path(cfg.get('load_from') or cfg.model.checkpoint)
    files = list(weights.iterdir()) if weights.is_dir() else [weights]
    newest = datetime.fromtimestamp(max(path.stat().st_mtime for path in files))
    settings = {name: str(cfg.model.get(name)) for name in ('spatial', 'dtype', 'max_new_tokens')}
    return dict(settings, weights=f'{weights} of {newest:%Y-%m-%d %H:%M:%S}')
