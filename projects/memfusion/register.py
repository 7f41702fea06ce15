"""Imports every stage so that mmdet3d's registries know it, and makes MMEngine's loaders read files without running them.

Configs say `custom_imports = dict(imports=['projects.memfusion.register'])`.
"""

from projects.memfusion import detectors, forecasting, fusion, heads, hooks, images, lidar, memory, metrics, queries
from projects.memfusion.data import (
    clip_preprocessor,
    forecast_preprocessor,
    nuscenes_forecast,
    nuscenes_sequence,
    pickle_handler,
    samplers,
    seeding,
    transforms,
)
from projects.memfusion.data.transforms import clip_augmentation, gt_paste, packing
from projects.memfusion.losses import center_losses, occupancy_loss, trajectory_losses
from projects.memfusion.runtime import fuse, install_safe_loading, runner

install_safe_loading()

__all__ = [
    'center_losses', 'clip_augmentation', 'clip_preprocessor', 'detectors', 'forecast_preprocessor', 'forecasting',
    'fuse', 'fusion', 'gt_paste', 'heads', 'hooks', 'images', 'lidar', 'memory', 'metrics', 'nuscenes_forecast',
    'nuscenes_sequence', 'occupancy_loss', 'packing', 'pickle_handler', 'queries', 'runner', 'samplers', 'seeding',
    'trajectory_losses', 'transforms',
]
