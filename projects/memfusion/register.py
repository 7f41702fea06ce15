"""Imports every stage so that mmdet3d's registries know it.

Configs say `custom_imports = dict(imports=['projects.memfusion.register'])`.
"""

from projects.memfusion import detectors, fusion, heads, hooks, lidar, memory, metrics
from projects.memfusion.data import clip_preprocessor, nuscenes_sequence, samplers, seeding, transforms
from projects.memfusion.data.transforms import clip_augmentation, gt_paste, packing

__all__ = [
    'clip_augmentation', 'clip_preprocessor', 'detectors', 'fusion', 'gt_paste', 'heads', 'hooks', 'lidar', 'memory', 'metrics',
    'nuscenes_sequence', 'packing', 'samplers', 'seeding', 'transforms',
]
