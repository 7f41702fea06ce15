"""Imports every stage so that mmdet3d's registries know it, and makes MMEngine's loaders read files without running them.

Configs say `custom_imports = dict(imports=['projects.memfusion.register'])`.
"""

from projects.memfusion import detectors, fusion, heads, hooks, lidar, memory, metrics
from projects.memfusion.data import clip_preprocessor, nuscenes_sequence, pickle_handler, samplers, seeding, transforms
from projects.memfusion.data.transforms import clip_augmentation, gt_paste, packing
from projects.memfusion.runtime import install_safe_loading, runner

install_safe_loading()

__all__ = [
    'clip_augmentation', 'clip_preprocessor', 'detectors', 'fusion', 'gt_paste', 'heads', 'hooks', 'lidar', 'memory', 'metrics',
    'nuscenes_sequence', 'packing', 'pickle_handler', 'runner', 'samplers', 'seeding', 'transforms',
]
