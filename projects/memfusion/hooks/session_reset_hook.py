"""Hook. Before and after each validation and test epoch: the detector's streaming memory is emptied."""

from __future__ import annotations

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class SessionResetHook(Hook):
    """Clears `model.session` (a dict, scene token to memory), where the model has one.

    Before an epoch, so that nothing of an earlier one is remembered; after it, so that the memory's tensors are freed
    even when the last scene did not come to its end.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        self._clear(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._clear(runner)

    def before_test_epoch(self, runner: Runner) -> None:
        self._clear(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._clear(runner)

    @staticmethod
    def _clear(runner: Runner) -> None:
        model = runner.model
        while is_model_wrapper(model):
            model = model.module
        session = getattr(model, 'session', None)
        if session is not None:
            session.clear()
