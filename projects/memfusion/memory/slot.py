"""Slot `temporal`, what its modules share. In: features of one frame, a state. Out: what the past adds, the next state.

The events of a step, the same in training and testing: `align`, `read`, the head, `write`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor

from projects.memfusion.structures import FrameBatch, HeadOutputs, Readout, SceneFeatures, SceneTruth, TemporalState

ALIGNMENTS = ('network', 'loader', 'none')
OPTIONAL = ('readout.', 'motion_gate.', 'loss_occ.', 'log_locality')
"""Parts of a temporal module that a checkpoint may lack."""


def clock(frames: FrameBatch, memory: TemporalState) -> dict[str, Any]:
    """The fields of TemporalState after this frame."""
    return dict(ages=tuple(age + 1 for age in memory.ages), num_frames=memory.num_frames + 1, time_s=frames.time_s,
                global_from_bev=frames.global_from_bev, global_from_lidar=frames.global_from_lidar)


class TemporalSlot(BaseModule):
    """Base of the modules for the slot `temporal`.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres; the detector fills it in from model.grid.
        alpha: how much of the past is used, 0 (plain detector) to 1; may be changed after construction.
        align: ego-motion compensation. 'network' moves what is remembered into the current frame; 'loader' means that the
            data pipeline has moved all frames of a clip into the last one's coordinates; 'none' leaves it out.
    """

    grid_keys: ClassVar[Mapping[str, str]] = dict(point_cloud_range='point_cloud_range')
    """Settings that `model.grid` fills in, and what of the grid goes there."""

    needs_outputs = False
    """Whether `write` wants what the head makes of this very frame."""
    needs_levels = False
    """Whether `read` wants image features beside those of the BEV."""
    reads_bev = True
    """Whether it, or the head for its `write`, reads the BEV features of every frame."""
    hands_on: str | None = None
    """The field of Readout that it fills for others, 'bev', 'past' or 'queries'; None is not said, and not checked."""
    read_levels: Sequence[int] | None = None
    """Positions of the image levels that it reads; None is all."""

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
        return frames.bev_from_global.view(-1, *[1] * (global_from_src.dim() - 3), 4, 4) @ global_from_src

    def init_state(self, features: SceneFeatures) -> TemporalState:
        """An empty state for B scenes with features like these."""
        raise NotImplementedError

    def align(self, state: Any, frames: FrameBatch) -> Any:
        """Makes the state ready for this frame: scenes that begin here forget, what lies in space moves with the ego."""
        raise NotImplementedError

    def read(self, state: Any, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """What the past adds to this frame."""
        raise NotImplementedError

    def record(self, features: SceneFeatures) -> Readout | None:
        """What `write` needs of a frame that nobody reads (no loss, no boxes), with the frame's own features; None where only a
        read can tell."""
        del features
        return None

    def write(self, state: Any, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> TemporalState:
        """The state after this frame. Where the frame is padding, the detector keeps the state before it.

        Args:
            state: as `align` gave it.
            outputs: what the head makes of the frame, where `needs_outputs`.
            truth: what the frame really holds; only training is told.
        """
        raise NotImplementedError

    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """Losses of the module's own on V labelled frames; none by default. `readout.carried` is not there any more."""
        del readout, features, truth
        return {}

    def predictions(self, readout: Readout) -> dict[str, Tensor]:
        """What the module predicts by itself, (B, ...) by the name of the field on the data sample; nothing by default."""
        del readout
        return {}
