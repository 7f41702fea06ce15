"""Temporal memory: networks, similarity, readouts, baselines, and the modules for the slot `temporal` that tie them."""

from .agent_stream import AgentMemory, AgentStream
from .baselines import ConvGRUFusion, StackFusion
from .bev_attention import BEVFormerTemporal
from .bev_network import BEVMemoryNetwork
from .copy_gru import CopyGRU
from .copy_memory import CopyMemory
from .frame_ring import FrameRing
from .image_network import ImageMemoryNetwork
from .query_memory import QueryMemory
from .readouts import ConcatReadout, GateReadout, LogOddsReadout, ResidualReadout
from .similarity import read_memory
from .slot import TemporalSlot, clock
from .temporal_memory import TemporalMemory

__all__ = [
    'AgentMemory', 'AgentStream', 'BEVFormerTemporal', 'BEVMemoryNetwork', 'ConcatReadout', 'ConvGRUFusion', 'CopyGRU',
    'CopyMemory', 'FrameRing', 'GateReadout', 'ImageMemoryNetwork', 'LogOddsReadout', 'QueryMemory', 'ResidualReadout',
    'StackFusion', 'TemporalMemory', 'TemporalSlot', 'clock', 'read_memory',
]
