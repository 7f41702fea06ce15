"""Contract, no network: agents whose futures are asked for. In: scenes, each with its own number of them. Out: a padded batch.

The agent frame has its origin at the agent's centre in the clip's last frame and that frame's heading along +y, x to the right,
as the devkit's predictions (nuScenes prediction challenge). The BEV frame is the LiDAR frame of the clip's last frame
(augmented, where the pipeline augments): ego motion is compensated, so all H frames of a clip share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KINEMATICS = ('dx', 'dy', 'speed', 'acceleration', 'yaw_rate', 'sin', 'cos', 'valid')
"""Channels of `kinematics`; units in Agents."""
FUTURE_STEPS = 12
"""6 s at 2 Hz."""
_SHAPES: dict[str, tuple[Any, ...]] = dict(
    valid=('A',), history_xy=('A', 'H', 2), history_valid=('A', 'H'), kinematics=('A', 'H', len(KINEMATICS)),
    future_xy=('A', FUTURE_STEPS, 2), future_valid=('A', FUTURE_STEPS), boxes=('A', 'H', 7),
    global_from_agent=('A', 4, 4))


@dataclass(frozen=True)
class Agents:
    """A agents of each of B scenes, H frames of history, oldest first, the present one last.

    Padded: what is not there is zero and its `valid` False. Floats are float64; whoever feeds a network rounds them.

    Attributes:
        valid: (B, A) bool; False is padding.
        history_xy: (B, A, H, 2) metres, agent frame.
        history_valid: (B, A, H) bool; False where the agent had not appeared or was not labelled.
        kinematics: (B, A, H, 8), see KINEMATICS: displacement since the frame before (metres, agent frame), speed (m/s),
            acceleration (m/s^2) and yaw rate (rad/s) as the devkit's PredictHelper has them, its NaN being 0; sine and cosine
            of the heading, counted from the last frame's (0 and 1 there); 1 where the frame is valid.
        future_xy: (B, A, 12, 2) metres, agent frame, 0.5 s to 6 s.
        future_valid: (B, A, 12) bool.
        boxes: (B, A, H, 7) as mmdet3d's LiDAR boxes, in the BEV frame: x, y, z of the bottom's centre, length, width, height
            (metres), yaw (rad). Masks are drawn from them.
        global_from_agent: (B, A, 4, 4), agent frame to global; the identity where padded.
        tokens: B lists of the valid agents' `instance_sample`, in their order; they come first.

    Raises:
        ValueError: naming the field whose shape does not fit.
    """

    valid: Tensor
    history_xy: Tensor
    history_valid: Tensor
    kinematics: Tensor
    future_xy: Tensor
    future_valid: Tensor
    boxes: Tensor
    global_from_agent: Tensor
    tokens: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if self.history_valid.dim() != 3:
            raise ValueError(f'agents.history_valid must be (B, A, H), got {tuple(self.history_valid.shape)}')
        sizes = dict(zip('BAH', self.history_valid.shape))
        for name, shape in _SHAPES.items():
            expected = (sizes['B'], *(sizes.get(size, size) for size in shape))
            if tuple(getattr(self, name).shape) != expected:
                raise ValueError(f'agents.{name} must be {expected}, got {tuple(getattr(self, name).shape)}')
        counts = [len(row) for row in self.tokens]
        if len(counts) != sizes['B'] or max(counts, default=0) > sizes['A']:
            raise ValueError(f'agents.tokens names {counts} agents, but there are {sizes["B"]} scenes with room for '
                             f'{sizes["A"]} each')

    def tensors(self) -> dict[str, Tensor]:
        """All but the tokens, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != 'tokens'}

    @property
    def num_frames(self) -> int:
        """H."""
        return self.history_valid.shape[2]

    def to(self, device: torch.device | str) -> Agents:
        """The same on another device."""
        moved: dict[str, Any] = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()}
        return replace(self, **moved)

    def padded(self, count: int) -> Agents:
        """The same with A = count; ValueError where there are more."""
        missing = count - self.valid.shape[1]
        if missing < 0:
            raise ValueError(f'{self.valid.shape[1]} agents cannot be padded to {count}')
        if not missing:
            return self
        grown: dict[str, Any] = {
            name: F.pad(tensor, (*[0, 0] * (tensor.dim() - 2), 0, missing)) for name, tensor in self.tensors().items()}
        grown['global_from_agent'][:, -missing:] = torch.eye(4, dtype=torch.float64)
        return replace(self, **grown)

    @staticmethod
    def cat(parts: Sequence[Agents]) -> Agents:
        """Joins scenes along the batch, padded to the largest A; ValueError where their histories differ in length."""
        lengths = {part.num_frames for part in parts}
        if len(lengths) != 1:
            raise ValueError(f'scenes of one batch must have histories of one length, got {sorted(lengths)} frames')
        count = max(part.valid.shape[1] for part in parts)
        rows = [part.padded(count) for part in parts]
        joined: dict[str, Any] = {name: torch.cat([row.tensors()[name] for row in rows]) for name in _SHAPES}
        return Agents(tokens=tuple(row for part in parts for row in part.tokens), **joined)


@dataclass(frozen=True)
class Forecast:
    """Futures of the agents of B scenes.

    Attributes:
        modes: (B, A, M, 12, 2) metres, agent frame, 0.5 s to 6 s.
        logits: (B, A, M); their softmax is the modes' probability.
    """

    modes: Tensor
    logits: Tensor

    def global_xy(self, agents: Agents) -> Tensor:
        """(B, A, M, 12, 2) float64 global metres."""
        turn, shift = agents.global_from_agent[..., :2, :2], agents.global_from_agent[..., :2, 3]
        return self.modes.double() @ turn.mT[:, :, None] + shift[:, :, None, None]
