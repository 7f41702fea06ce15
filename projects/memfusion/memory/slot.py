"""Slot `temporal`, what its modules share. In: BEV features of one frame, a state. Out: BEV that remembers, the next state.

The events of a step, the same in training and testing: `align`, `read`, `choose_mask`, `write`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from projects.memfusion.structures import FrameBatch, TemporalState

ALIGNMENTS = ('network', 'loader', 'none')
OPTIONAL = ('readout.', 'motion_gate.', 'loss_occ.', 'log_locality')
"""Parts of a temporal module that a checkpoint may lack."""


@dataclass(frozen=True)
class TemporalReadout:
    """What a frame got from the past.

    Attributes:
        bev: (B, C, H, W).
        occ_logits: (B, 1, Hm, Wm), or None where the module predicts no occupancy.
        carried: what `write` needs of this read; only the module that made it looks inside.
    """

    bev: Tensor
    occ_logits: Tensor | None
    carried: Any


def clock(frames: FrameBatch, memory: TemporalState) -> dict[str, Tensor]:
    """The fields of TemporalState after this frame."""
    return dict(num_frames=memory.num_frames + 1, time_s=frames.time_s, global_from_bev=frames.global_from_bev,
                global_from_lidar=frames.global_from_lidar)


class TemporalSlot(BaseModule):
    """Base of the modules for the slot `temporal`.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres; the detector fills it in from model.grid.
        alpha: how much of the past is used, 0 (plain detector) to 1; may be changed after construction.
        align: ego-motion compensation. 'network' moves what is remembered into the current frame; 'loader' means that the
            data pipeline has moved all frames of a clip into the last one's coordinates; 'none' leaves it out.
    """

    needs_boxes = False
    """Whether `choose_mask` wants the boxes that the head finds in this frame."""

    def __init__(self, point_cloud_range: Sequence[float], alpha: float = 1.0, align: str = 'network',
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if align not in ALIGNMENTS:
            raise ValueError(f'temporal.align must be one of {ALIGNMENTS}, got {align!r}')
        self.point_cloud_range = tuple(float(v) for v in point_cloud_range)
        self.alpha, self.alignment = alpha, align

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        """As torch's, but a checkpoint of another temporal module is an error.

        MMEngine loads what fits and warns of the rest, which would leave memory untrained. Parts in `OPTIONAL` may be
        missing: they are added to a trained memory.

        Raises:
            ValueError: naming the first parameters that are missing or of another shape.
        """
        if any(key.startswith(prefix) for key in state_dict):
            own = {key: value for key, value in self.state_dict(prefix=prefix).items()
                   if not key[len(prefix):].startswith(OPTIONAL)}
            wrong = [key for key, value in own.items() if key not in state_dict or state_dict[key].shape != value.shape]
            if wrong:
                found = sorted(key for key in state_dict if key.startswith(prefix) and key not in own)
                raise ValueError(
                    f'the checkpoint holds another temporal module than this config builds: {len(wrong)} of {len(own)} '
                    f'parameters are missing or of another shape ({", ".join(wrong[:3])}); it has {found[:3]} instead. '
                    'Use the config it was trained with, or a checkpoint without memory')
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def alpha(self) -> float:
        """How much of the past is used, 0..1."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f'temporal.alpha must lie in 0..1, got {value}')
        self._alpha = float(value)

    def cur_from(self, global_from_src: Tensor, frames: FrameBatch) -> Tensor:
        """(B, ..., 4, 4) float64 transforms from stored BEV frames (B, ..., 4, 4) into the current one's."""
        cur_from_global = torch.linalg.inv(frames.global_from_bev)
        return cur_from_global.view(-1, *[1] * (global_from_src.dim() - 3), 4, 4) @ global_from_src

    def init_state(self, bev: Tensor) -> TemporalState:
        """An empty state for a batch of BEV features (B, C, H, W)."""
        raise NotImplementedError

    def align(self, memory: Any, frames: FrameBatch) -> Any:
        """Makes memory ready for this frame: scenes that begin here forget, what lies in space moves with the ego."""
        raise NotImplementedError

    def read(self, bev: Tensor, memory: Any, frames: FrameBatch) -> TemporalReadout:
        """bev (B, C, H, W) -> what the past makes of it."""
        raise NotImplementedError

    def choose_mask(self, readout: TemporalReadout, memory: Any, frames: FrameBatch, found: list[Tensor] | None = None,
                    truth: list[Tensor] | None = None) -> Tensor | None:
        """The mask that is written with this frame; None where the module writes without one.

        Args:
            found: the head's boxes in this frame, B tensors (n, 7+), where `needs_boxes`.
            truth: the true boxes, B tensors (n, 7+); only training has them.
        """
        del readout, memory, frames, found, truth
        return None

    def write(self, memory: Any, readout: TemporalReadout, mask: Tensor | None, frames: FrameBatch,
              observed: Tensor | None = None) -> Any:
        """The state after this frame. Where the frame is padding, the detector keeps the state before it.

        Args:
            observed: (B, 1, H, W) bool, BEV cells that hold a point; None is not known.
        """
        raise NotImplementedError

    def loss(self, occ_logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Losses of the module's own. occ_logits (N, 1, Hm, Wm) of labelled frames; target (N, 1, H, W) bool."""
        raise NotImplementedError
