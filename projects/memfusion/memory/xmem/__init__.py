"""The published XMem (Cheng and Schwing, ECCV 2022): network, memory, and segmentation of a clip."""

from .checkpoint import load_checkpoint
from .memory_bank import MemoryBank
from .network import XMem, aggregate
from .segment import ClipSegmenter, segment_clip
from .settings import InferenceSettings

__all__ = ['ClipSegmenter', 'InferenceSettings', 'MemoryBank', 'XMem', 'aggregate', 'load_checkpoint', 'segment_clip']
