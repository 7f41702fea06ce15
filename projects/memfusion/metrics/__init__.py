"""Metrics: scoring by the official nuScenes evaluator."""

from .class_ap import demo_map
from .nuscenes_metric import OrderedNuScenesMetric

__all__ = ['OrderedNuScenesMetric', 'demo_map']
