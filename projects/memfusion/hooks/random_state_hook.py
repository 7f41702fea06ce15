"""Hook. Keeps every process's random generators in checkpoints: a resumed run draws what the uninterrupted would."""

from __future__ import annotations

from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from projects.common.random_state import random_state, set_random_state

CHECKPOINT_KEY = 'memfusion_random_state'


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Takes the states of python's, numpy's, torch's and CUDA's generators where a checkpoint is due; puts them back.

    They are put back not only in a resumed run but also, unchanged, in the uninterrupted one before it goes on
    training: what lies between (validation, the making of data-loader iterators) draws numbers that a resumed run
    does not draw. Put back twice: before the epoch, for what loads data in this process, and before its first step,
    because the making of an iterator itself draws one.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] | None = None  # of all ranks, where a checkpoint is due
        self._pending = False  # put back before the next training step

    # -- taking: all ranks take part, because only rank 0 runs before_save_checkpoint ---------------------------------
    def after_train_epoch(self, runner: Runner) -> None:
        self._take()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None,
    ) -> None:
        if any(_saves_at_this_step(hook, runner) for hook in runner.hooks):
            self._take()

    def _take(self) -> None:
        self._states = all_gather_object(random_state())
        self._pending = True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Rank 0: adds the states, plain tensors and lists, to what is saved."""
        if self._states is not None:
            checkpoint[CHECKPOINT_KEY] = self._states

    # -- putting back -------------------------------------------------------------------------------------------------
    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Remembers the states of a run that is resumed; `load_from` and testing keep their own."""
        if not runner._resume:
            return
        states = checkpoint.get(CHECKPOINT_KEY)
        if states is None or len(states) != get_world_size():
            found = 'no random states' if states is None else f'the random states of {len(states)} processes'
            runner.logger.warning(f'the checkpoint has {found} and this run has {get_world_size()} processes: it goes '
                                  'on, but with other random numbers than the uninterrupted run')
            return
        self._states, self._pending = states, True

    def before_train_epoch(self, runner: Runner) -> None:
        if self._pending:
            self._put_back()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._pending:
            self._put_back()
            self._pending = False

    def _put_back(self) -> None:
        assert self._states is not None
        set_random_state(self._states[get_rank()])


def _saves_at_this_step(hook: Hook, runner: Runner) -> bool:
    """Whether a CheckpointHook that counts steps saves after the current one (its own rule)."""
    if not isinstance(hook, CheckpointHook) or hook.by_epoch:
        return False
    return hook.every_n_train_iters(runner, hook.interval, hook.save_begin) or (
        hook.save_last and hook.is_last_train_iter(runner))
