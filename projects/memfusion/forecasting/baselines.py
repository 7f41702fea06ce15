"""Forecasting: constant velocity and heading. In: agents' kinematics. Out: (B, A, 12, 2) metres, agent frame."""

from __future__ import annotations

import torch
from torch import Tensor

from projects.memfusion.structures import FUTURE_STEPS, KINEMATICS

STEP_S = 0.5


def step_times_s(device: torch.device | None = None) -> Tensor:
    """(12,) float64: 0.5 to 6 s."""
    return STEP_S * torch.arange(1, FUTURE_STEPS + 1, dtype=torch.float64, device=device)


def constant_velocity(kinematics: Tensor) -> Tensor:
    """Straight on along +y with the last frame's speed, as the devkit's ConstantVelocityHeading.

    Args:
        kinematics: (B, A, H, 8) float64, see Agents.
    """
    ahead = kinematics[:, :, -1, KINEMATICS.index('speed'), None].double() * step_times_s(kinematics.device)
    return torch.stack([torch.zeros_like(ahead), ahead], dim=-1)
