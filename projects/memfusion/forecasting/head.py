"""Forecasting: the head. In: features and kinematics of agents in frames. Out: Forecast, M futures each, agent's frame."""

from __future__ import annotations

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, constant_init
from torch import Tensor, nn

from projects.memfusion.structures import FUTURE_STEPS, KINEMATICS, Agents, Forecast

from .baselines import constant_velocity, step_times_s

KINDS = ('gru', 'mlp')
MODES = (1, 5, 10)
_SCALES = (5.0, 5.0, 10.0, 3.0, 0.5, 1.0, 1.0, 1.0)  # m, m, m/s, m/s^2, rad/s: brings kinematics to order 1


@MODELS.register_module()
class TrajectoryHead(BaseModule):
    """Adds what it learned to constant velocity and heading; it starts at zero, so before training every mode is just that.

    The residual at time t is t times what the last layer says, metres: a change of velocity costs it the same at any step.

    Args:
        feature_dim: channels F of the features of each agent and frame; 0 is kinematics alone.
        num_modes: M, 1, 5 or 10.
        hidden_dim: width.
        kind: 'gru' reads the frames oldest first, and frames in which the agent was not there hold its state; 'mlp' reads all
            at once, those as zeros.
        num_frames: H, for 'mlp'.
        feature_bottleneck: channels that features are brought to before they meet the kinematics; 0 is none. Hundreds of
            features of few agents are learned by heart otherwise.
        feature_dropout: share of the features that is left out in training, drawn anew for each agent and frame. Neither is
            used where feature_dim is 0.
    """

    scales: Tensor

    def __init__(
        self,
        feature_dim: int = 64,
        num_modes: int = 5,
        hidden_dim: int = 128,
        kind: str = 'gru',
        num_frames: int = 5,
        feature_bottleneck: int = 0,
        feature_dropout: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if kind not in KINDS or num_modes not in MODES:
            raise ValueError(f'TrajectoryHead: kind must be one of {KINDS} and num_modes one of {MODES}, got {kind!r} and '
                             f'{num_modes}')
        self.feature_dim, self.num_modes, self.hidden_dim, self.num_frames = feature_dim, num_modes, hidden_dim, num_frames
        if type(feature_bottleneck) is not int or feature_bottleneck < 0 or not 0 <= feature_dropout < 1:
            raise ValueError('TrajectoryHead: feature_bottleneck must be a whole number from 0 on and feature_dropout in '
                             f'0..1, got {feature_bottleneck} and {feature_dropout}')
        narrow = feature_bottleneck if feature_dim else 0
        self.squeeze = nn.Linear(feature_dim, narrow) if narrow else None
        self.drop = nn.Dropout(feature_dropout) if feature_dropout else None
        self.embed = nn.Linear((narrow or feature_dim) + len(KINEMATICS), hidden_dim)
        self.recur = nn.GRUCell(hidden_dim, hidden_dim) if kind == 'gru' else None
        self.join = None if kind == 'gru' else nn.Linear(num_frames * hidden_dim, hidden_dim)
        last = nn.Linear(hidden_dim, num_modes * (FUTURE_STEPS * 2 + 1))
        constant_init(last, 0.0)
        self.decode = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU(inplace=True), last)
        self.register_buffer('scales', torch.tensor(_SCALES), persistent=False)

    def forward(self, agents: Agents, features: Tensor | None = None, flags: Tensor | None = None) -> Forecast:
        """Futures of every agent; those of padding mean nothing.

        Args:
            features: (B, A, H, F); None where feature_dim is 0.
            flags: (B, A, H), 1 where the features are those of the agent's mask, 0 where it was empty; goes into the input
                `valid`. None is 1.

        Raises:
            ValueError: features of another width, or histories that an 'mlp' was not built for.
        """
        steps = agents.kinematics.float() / self.scales
        given = 0 if features is None else features.shape[-1]
        if given != self.feature_dim:
            raise ValueError(f'TrajectoryHead was built for {self.feature_dim} features of an agent, got {given}: set '
                             'model.head.feature_dim to what model.features gives')
        if features is not None:
            steps = torch.cat([self._narrowed(features.float()), steps], dim=-1)
        if flags is not None:
            steps = torch.cat([steps[..., :-1], steps[..., -1:] * flags[..., None]], dim=-1)
        raw = self.decode(self._read(self.embed(steps).relu(), agents.history_valid))
        residual, logits = raw.split([self.num_modes * FUTURE_STEPS * 2, self.num_modes], dim=-1)
        residual = residual.unflatten(-1, (self.num_modes, FUTURE_STEPS, 2))
        times_s = step_times_s(residual.device)[:, None]
        return Forecast(constant_velocity(agents.kinematics)[:, :, None] + times_s * residual, logits)

    def _narrowed(self, features: Tensor) -> Tensor:
        """(B, A, H, F) -> (B, A, H, F or feature_bottleneck)."""
        if self.drop is not None:
            features = self.drop(features)
        return features if self.squeeze is None else self.squeeze(features)

    def _read(self, steps: Tensor, there: Tensor) -> Tensor:
        """(B, A, H, D) and (B, A, H) bool -> (B, A, D)."""
        if self.join is not None:
            if steps.shape[2] != self.num_frames:
                raise ValueError(f"TrajectoryHead(kind='mlp') was built for {self.num_frames} frames, got {steps.shape[2]}")
            return self.join((steps * there[..., None]).flatten(2)).relu()
        assert self.recur is not None
        state = steps.new_zeros(steps.shape[0] * steps.shape[1], self.hidden_dim)
        for step, known in zip(steps.flatten(0, 1).unbind(1), there.flatten(0, 1).unbind(1)):
            state = torch.where(known[:, None], self.recur(step, state), state)
        return state.unflatten(0, steps.shape[:2])
