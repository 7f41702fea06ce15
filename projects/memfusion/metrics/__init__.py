"""Metrics: scoring by the official nuScenes evaluator, what memory is for, and camera and BEV tasks."""

from .bicycle_racks import load_bicycle_racks
from .class_ap import demo_map
from .forecast_metric import NuScenesForecastMetric
from .image_bbox_metric import ImageBBoxMetric
from .memory_metric import MemoryMetric, evaluate_memory
from .nuscenes_metric import OrderedNuScenesMetric
from .segmentation_metric import BEVSegMetric, ImageSegMetric

__all__ = [
    'BEVSegMetric', 'ImageBBoxMetric', 'ImageSegMetric', 'MemoryMetric', 'NuScenesForecastMetric', 'OrderedNuScenesMetric',
    'demo_map', 'evaluate_memory', 'load_bicycle_racks',
]
