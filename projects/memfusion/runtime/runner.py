"""Runtime. MMEngine's Runner: checks the run first, strict about checkpoints, leaves no half ones, resumes inside an epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import LOOPS, RUNNERS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from projects.memfusion.hooks.channels_last_hook import to_channels_last

from .checkpoint import load_weights
from .errors import UserError
from .resume import POSITION_KEY, Position, ResumableTrainLoop, position_of, resume_position, to_meta
from .run_checks import check_checkpoint, check_optimizer, check_run, check_values
from .run_checks.schedules import RunLength, check_resumed_length, follow_run
from .sharded import ShardedAdamW


def check_frozen(model: Any) -> None:
    """Raises UserError where parts in `train_cfg.frozen` would keep the random weights that they start with.

    Args:
        model: its config; a built model is let pass.
    """
    if not isinstance(model, Mapping) or _is_pretrained(model):
        return
    frozen = (model.get('train_cfg') or {}).get('frozen') or ()
    random = [name for name in frozen if not _is_pretrained(model.get(name.split('.')[0]))]
    if random:
        raise UserError(f'model.train_cfg.frozen={list(frozen)}: {", ".join(random)} would keep random weights, because no '
                        'checkpoint is given: add --cfg-options load_from=FILE, the detector that is to stay as it is')


def _is_pretrained(part: Any) -> bool:
    init_cfg = part.get('init_cfg') if isinstance(part, Mapping) else None
    return any(one.get('type') == 'Pretrained' for one in (init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]))


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
    def from_cfg(cls, cfg: Config) -> MemFusionRunner:
        """As Runner.from_cfg, also where mmdet3d's own tools read the config: what ours do with it before is done here.

        Raises:
            UserError: before any folder is made, for settings that cannot be what they are set to.
        """
        from .launch import complete_config  # which builds this Runner
        complete_config(cfg)
        check_values(cfg)
        return super().from_cfg(cfg)

    def train(self) -> nn.Module:
        """As Runner.train; `load_from` may lack whole slots unless this is a resumed run.

        Raises:
            UserError: where parts are frozen that nothing gives weights to, or the optimizer wants more processes.
        """
        self._may_lack_slots = not self._resume
        self._check('train')
        check_optimizer(self.cfg)
        if self._load_from is None and not self._resume:
            check_frozen(self.cfg.get('model'))
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

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As Runner.wrap_model; what a ChannelsLastHook converts is converted before it is wrapped (the hook says why)."""
        kinds = [hook.get('type') if isinstance(hook, Mapping) else type(hook) for hook in self.cfg.get('custom_hooks') or ()]
        if any(getattr(kind, '__name__', str(kind)).split('.')[-1] == 'ChannelsLastHook' for kind in kinds):
            to_channels_last(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As Runner.build_train_loop; MMEngine's loop over epochs becomes ours, which can go on inside one."""
        if isinstance(loop, dict):
            kind = loop.get('type', EpochBasedTrainLoop if loop.get('by_epoch') else None)
            if (LOOPS.get(kind) if isinstance(kind, str) else kind) is EpochBasedTrainLoop:
                loop = {**{key: value for key, value in loop.items() if key != 'by_epoch'}, 'type': ResumableTrainLoop}
        return super().build_train_loop(loop)

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
        if self._resume:
            self._check_state(checkpoint, str(filename))
            if isinstance(self._train_loop, BaseLoop):
                by_epoch = not isinstance(self._train_loop, IterBasedTrainLoop)
                length = self._train_loop.max_epochs if by_epoch else self._train_loop.max_iters
                was = checkpoint['message_hub'].get('runtime_info', {})
                check_resumed_length(was, length, by_epoch, str(filename), self.cfg.get('param_scheduler'))
            resume_position(self.train_loop, self.optim_wrapper, checkpoint, str(filename), self.seed)
            self._check_schedule(checkpoint, str(filename))
        return checkpoint

    def _check_schedule(self, checkpoint: dict, filename: str) -> None:
        """Raises UserError where a schedule ends in the middle of an epoch; between epochs it may be switched off."""
        inside = POSITION_KEY in checkpoint['meta'] and Position.from_meta(checkpoint['meta'][POSITION_KEY]).inside
        if inside and checkpoint.get('param_schedulers') and not self.param_schedulers:
            raise UserError(f'{filename}: is of a run with schedules, and param_scheduler is None here: the learning rate '
                            'would stay where it was saved; keep the schedule, or start from the weights: --cfg-options '
                            'load_from=FILE')

    def _check_state(self, checkpoint: dict, filename: str) -> None:
        """Raises UserError where a checkpoint lacks what a resumed run needs beside weights."""
        wanted = {'meta', 'message_hub', 'optimizer'} | ({'param_schedulers'} if self.param_schedulers else set())
        if not (wanted <= checkpoint.keys() and {'epoch', 'iter'} <= checkpoint['meta'].keys()):
            raise UserError(f'{filename}: has weights but not the state of a training run, so it cannot be resumed '
                            f'(no {", ".join(sorted(wanted - checkpoint.keys())) or "meta.epoch"}); start from its weights '
                            'instead: --cfg-options load_from=FILE')

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """As Runner.save_checkpoint; adds where in its epoch the run is, and a local file gets its name when it is complete.

        All processes call it, as MMEngine's hooks do: the first writes."""
        optimizer = getattr(self.optim_wrapper, 'optimizer', None)
        if save_optimizer and isinstance(optimizer, ShardedAdamW):
            optimizer.consolidate_state_dict(to=0)
        if not is_main_process():
            return
        epoch, iteration = (self.epoch + 1, self.iter) if by_epoch else (self.epoch, self.iter + 1)  # MMEngine's rule
        meta = dict(epoch=epoch, iter=iteration) | (meta or {})
        position = position_of(self.train_loop, meta['epoch'], meta['iter'])
        if position is not None:
            meta[POSITION_KEY] = to_meta(position)
        local = '://' not in str(out_dir)
        written = f'{filename}.unfinished' if local else filename
        super().save_checkpoint(out_dir, written, file_client_args, save_optimizer, save_param_scheduler, meta, by_epoch,
                                backend_args)
        if local:
            os.replace(os.path.join(out_dir, written), os.path.join(out_dir, filename))
