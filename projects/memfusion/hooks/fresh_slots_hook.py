"""Hook. Leaves out slots of the checkpoint that training starts from: a detector with another head keeps the encoders."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class FreshSlotsHook(Hook):
    """Drops the weights of slots from what `load_from` gives, so that these start anew; testing and resuming lose nothing.

    Args:
        slots: top-level slots of the model, e.g. 'pts_bbox_head' where the file's head is another one.
    """

    def __init__(self, slots: Sequence[str]) -> None:
        if isinstance(slots, str) or not slots:
            raise ValueError(f"FreshSlotsHook.slots must be a list of slots such as ['pts_bbox_head'], got {slots!r}")
        self.slots = tuple(slots)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Only where the Runner accepts a file that lacks slots."""
        if not getattr(runner, '_may_lack_slots', False):
            return
        weights = checkpoint.get('state_dict', checkpoint)
        for key in [key for key in weights if key.split('.')[0] in self.slots]:
            del weights[key]
