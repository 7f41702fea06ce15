"""Forecasting: agents' features from memory, the head, baselines."""

from .baselines import constant_velocity
from .head import TrajectoryHead

__all__ = ['TrajectoryHead', 'constant_velocity']
