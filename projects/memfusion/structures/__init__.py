"""Typed contracts between the stages; no nn.Module."""

from .agents import FUTURE_STEPS, KINEMATICS, Agents, Forecast
from .calibration import Calibration
from .camera_frame import CameraFrame
from .features import HeadOutputs, Readout, SceneFeatures, SceneTruth, take_rows
from .frame import META_KEYS, FrameBatch, FrameMeta
from .frame_images import FrameImages
from .history import History, PastFrame
from .image_labels import ImageLabels
from .memory_state import MemorySizes, MemoryState, TemporalState, empty_clock
from .query_looks import Looking, Looks, TokenPlaces
from .query_state import QueryProposals, QueryState
from .scene_head import SceneHead

__all__ = [
    'FUTURE_STEPS', 'KINEMATICS', 'META_KEYS', 'Agents', 'Calibration', 'CameraFrame', 'Forecast', 'FrameBatch', 'FrameImages',
    'FrameMeta', 'HeadOutputs', 'History', 'ImageLabels', 'Looking', 'Looks', 'MemorySizes', 'MemoryState', 'PastFrame',
    'QueryProposals', 'QueryState', 'Readout', 'SceneFeatures', 'SceneHead', 'SceneTruth', 'TemporalState', 'TokenPlaces',
    'empty_clock', 'take_rows',
]
