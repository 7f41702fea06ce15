"""Typed contracts between the stages; no nn.Module."""

from .calibration import Calibration
from .camera_frame import CameraFrame
from .features import HeadOutputs, Readout, SceneFeatures, SceneTruth, take_rows
from .frame import META_KEYS, FrameBatch, FrameMeta
from .image_labels import ImageLabels
from .memory_state import MemorySizes, MemoryState, TemporalState, empty_clock

__all__ = [
    'META_KEYS', 'Calibration', 'CameraFrame', 'FrameBatch', 'FrameMeta', 'HeadOutputs', 'ImageLabels', 'MemorySizes',
    'MemoryState', 'Readout', 'SceneFeatures', 'SceneTruth', 'TemporalState', 'empty_clock', 'take_rows',
]
