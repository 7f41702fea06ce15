"""Typed contracts between the stages; no nn.Module."""

from .calibration import Calibration
from .camera_frame import CameraFrame
from .frame import META_KEYS, FrameBatch, FrameMeta
from .image_labels import ImageLabels
from .memory_state import MemorySizes, MemoryState, TemporalState, empty_clock

__all__ = [
    'META_KEYS', 'Calibration', 'CameraFrame', 'FrameBatch', 'FrameMeta', 'ImageLabels', 'MemorySizes', 'MemoryState',
    'TemporalState', 'empty_clock',
]
