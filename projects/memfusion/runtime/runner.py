"""Runtime. MMEngine's Runner that refuses another architecture's checkpoint and never leaves half a one behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn

from .checkpoint import load_weights
from .errors import UserError


@RUNNERS.register_module()
class MemFusionRunner(Runner):
    """MMEngine's Runner, strict about checkpoints.

    Testing, validation and resuming want every weight; training's `load_from` may lack whole top-level slots. Weights
    that do not belong are an error (MMEngine only logs them and goes on with random ones).
    """

    _may_lack_slots = False

    @classmethod
    def from_cfg(cls, cfg: Config) -> MemFusionRunner:
        """As Runner.from_cfg, also where mmdet3d's own tools read the config: what ours do with it before is done here."""
        from .launch import complete_config  # which builds this Runner
        complete_config(cfg)
        return super().from_cfg(cfg)

    def train(self) -> nn.Module:
        """As Runner.train; `load_from` may lack whole slots unless this is a resumed run."""
        self._may_lack_slots = not self._resume
        return super().train()

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
        if self._resume and not ({'meta', 'message_hub'} <= checkpoint.keys() and 'epoch' in checkpoint['meta']):
            raise UserError(f'{filename}: has weights but not the state of a training run, so it cannot be resumed; '
                            'start from its weights instead: --cfg-options load_from=FILE')
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
