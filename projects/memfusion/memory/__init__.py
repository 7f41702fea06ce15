"""Temporal memory: network, similarity, readouts, and the `temporal` slot that ties them."""

from .bev_network import BEVMemoryNetwork
from .gate import GateReadout
from .similarity import read_memory
from .temporal_memory import MemoryReadout, TemporalMemory

__all__ = ['BEVMemoryNetwork', 'GateReadout', 'MemoryReadout', 'TemporalMemory', 'read_memory']
