"""Runtime. MMEngine's Runner that checks the assembled run first, and what checkpoints it takes and leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import master_only
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from .checkpoint import load_weights
from .errors import UserError
from .run_checks import check_checkpoint, check_run, check_values
from .run_checks.schedules import RunLength, check_resumed_length, follow_run


@RUNNERS.register_module()
class MemFusionRunner(Runner):
    """MMEngine's Runner, strict about configs and checkpoints.

    Before data are read, the parts of the config are compared (`run_checks`). Schedules follow the run's length. Testing,
    validation and resuming want every weight; training's `load_from` may lack whole top-level slots. Weights that do not
    belong are an error (MMEngine only logs them and goes on with random ones), and so are classes that mean something else.
    """

    _may_lack_slots = False
    _phase = 'test'

    @classmethod
    def from_cfg(cls, cfg: dict | Config | ConfigDict) -> Runner:
        """As Runner.from_cfg; UserError, before any folder is made, for settings that cannot be what they are set to."""
        check_values(cfg)
        return super().from_cfg(cfg)

    def train(self) -> nn.Module:
        """As Runner.train; `load_from` may lack whole slots unless this is a resumed run."""
        self._may_lack_slots = not self._resume
        self._check('train')
        return super().train()

    def val(self) -> dict:
        """As Runner.val."""
        self._check('val')
        return super().val()

    def test(self) -> dict:
        """As Runner.test."""
        self._check('test')
        return super().test()

    def _check(self, phase: str) -> None:
        self._phase = phase
        for warning in check_run(self.cfg, phase):
            self.logger.warning(warning)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As Runner.build_param_scheduler, of schedulers that are made as long as the run."""
        if isinstance(self._train_loop, BaseLoop):
            run = RunLength(self._train_loop.max_iters, len(self._train_loop.dataloader))
            scheduler, lines = follow_run(scheduler, run)
            for line in lines:
                self.logger.warning(line)
        return super().build_param_scheduler(scheduler)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module\.', '')],  # noqa: B006 (MMEngine's signature; never changed)
    ) -> dict:
        """Loads the weights of a file into the model.

        Args:
            filename: path or web address.
            map_location: as torch.load's.
            strict: do not accept missing slots either.
            revise_keys: (pattern, replacement) pairs for the file's keys.

        Raises:
            UserError: naming the file, if it cannot be read or belongs to another architecture.
        """
        checkpoint = _load_checkpoint(filename, map_location=map_location)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        allow_missing_slots = self._may_lack_slots and not strict
        load_weights(self.model, checkpoint, str(filename), allow_missing_slots, revise_keys)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        for warning in check_checkpoint(checkpoint, str(filename), self.cfg, self._phase, self._may_lack_slots):
            self.logger.warning(warning)
        if self._resume and not ({'meta', 'message_hub'} <= checkpoint.keys() and 'epoch' in checkpoint['meta']):
            raise UserError(f'{filename}: has weights but not the state of a training run, so it cannot be resumed; '
                            'start from its weights instead: --cfg-options load_from=FILE')
        if self._resume and isinstance(self._train_loop, BaseLoop):
            by_epoch = not isinstance(self._train_loop, IterBasedTrainLoop)
            length = self._train_loop.max_epochs if by_epoch else self._train_loop.max_iters
            was = checkpoint['message_hub'].get('runtime_info', {})
            check_resumed_length(was, length, by_epoch, str(filename), self.cfg.get('param_scheduler'))
        return checkpoint

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As Runner.save_checkpoint, but a file in a local folder gets its name only when it is complete."""
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        unfinished = f'{filename}.unfinished'
        super().save_checkpoint(out_dir, unfinished, *args, **kwargs)
        os.replace(os.path.join(out_dir, unfinished), os.path.join(out_dir, filename))
