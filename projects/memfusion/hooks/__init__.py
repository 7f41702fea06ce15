"""Hooks: what happens around the flow, at the Runner's events."""

from .channels_last_hook import ChannelsLastHook
from .determinism_hook import DeterminismHook
from .epoch_seed_hook import EpochSeedHook
from .fit_values_hook import FitValuesHook
from .freeze_batch_norm_hook import FreezeBatchNormHook
from .fresh_slots_hook import FreshSlotsHook
from .linear_ramp_hook import LinearRampHook
from .random_state_hook import RandomStateHook
from .session_reset_hook import SessionResetHook
from .visualization_hook import BEVVisualizationHook

__all__ = [
    'BEVVisualizationHook', 'ChannelsLastHook', 'DeterminismHook', 'EpochSeedHook', 'FitValuesHook',
    'FreezeBatchNormHook', 'FreshSlotsHook', 'LinearRampHook', 'RandomStateHook', 'SessionResetHook',
]
