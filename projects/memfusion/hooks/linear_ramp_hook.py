"""Hook. Before each training iteration: sets a number of the model to where its ramp is."""

from __future__ import annotations

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


@HOOKS.register_module()
class LinearRampHook(Hook):
    """Moves an attribute of the model from `start` to `end`, linearly between two training iterations.

    It depends on the iteration alone, so a resumed run goes on where it was. Used for `temporal.alpha` (memory is blended
    in) and `temporal.masks.teacher_forcing` (the truth is taken away).

    Args:
        attribute: path from the model, e.g. 'temporal.alpha'.
        start: value until iteration `begin`.
        end: value from iteration `finish` on.
        begin, finish: iterations; begin <= finish.
    """

    def __init__(self, attribute: str, start: float, end: float, begin: int, finish: int) -> None:
        if not 0 <= begin <= finish:
            raise ValueError(f'LinearRampHook({attribute}): needs 0 <= begin <= finish, got {begin} and {finish}')
        self.attribute, self.start, self.end, self.begin, self.finish = attribute, start, end, begin, finish

    def value_at(self, iteration: int) -> float:
        """The attribute's value at a training iteration."""
        if iteration >= self.finish:
            return self.end
        progress = max(iteration - self.begin, 0) / max(self.finish - self.begin, 1)
        return self.start + (self.end - self.start) * progress

    def before_train(self, runner: Runner) -> None:
        """Raises ValueError, before anything is trained, where the model has no such number."""
        owner, name = self._owner(runner.model)
        if not isinstance(getattr(owner, name, None), float | int):
            raise ValueError(f'LinearRampHook: the model has no number {self.attribute!r}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Sets the value of this iteration."""
        owner, name = self._owner(runner.model)
        setattr(owner, name, self.value_at(runner.iter))

    def _owner(self, model: nn.Module) -> tuple[object, str]:
        owner: object = model.module if is_model_wrapper(model) else model
        *path, name = self.attribute.split('.')
        for part in path:
            owner = getattr(owner, part, None)
        return owner, name
