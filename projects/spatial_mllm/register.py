"""Spatial: registers model, data set, hooks and metrics with mmdet3d's registries.

Configs say `custom_imports = dict(imports=['projects.spatial_mllm.register'])`.
"""

from projects.spatial_mllm.processing import batch
from projects.spatial_mllm.scoring import metrics
from projects.spatial_mllm.training import dataset, hooks, video_language_model

__all__ = ['batch', 'dataset', 'hooks', 'metrics', 'video_language_model']
