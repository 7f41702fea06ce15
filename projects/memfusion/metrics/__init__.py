"""Metrics: scoring by the official nuScenes evaluator, and what memory is for."""

from .bicycle_racks import load_bicycle_racks
from .class_ap import demo_map
from .memory_metric import MemoryMetric, evaluate_memory
from .nuscenes_metric import OrderedNuScenesMetric

__all__ = ['MemoryMetric', 'OrderedNuScenesMetric', 'demo_map', 'evaluate_memory', 'load_bicycle_racks']
