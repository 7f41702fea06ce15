"""Forecasting: agents' features from memory, the head, baselines."""

from .agent_masks import AgentMasks, bev_masks, image_masks
from .baselines import constant_velocity
from .detector_features import DetectorAgentFeatures
from .features import MemoryAgentFeatures
from .forecaster import AgentForecaster, write_futures
from .head import TrajectoryHead
from .pooling import AgentPooling
from .query_features import QueryAgentFeatures

__all__ = [
    'AgentForecaster', 'AgentMasks', 'AgentPooling', 'DetectorAgentFeatures', 'MemoryAgentFeatures', 'QueryAgentFeatures',
    'TrajectoryHead', 'bev_masks', 'constant_velocity', 'image_masks', 'write_futures',
]
