"""Stage data: info files, clips, transforms, samplers.

Names load on first use, so that importing the package (or one light module of it) does not import mmdet3d's compiled ops;
importing a module registers what it defines.
"""

from importlib import import_module
from typing import Any

_MODULE_OF = {
    'AlignToClipEnd': 'transforms.clip_alignment',
    'BadFrameError': 'errors',
    'ClipBEVAugmentation': 'transforms.clip_augmentation',
    'ClipDataPreprocessor': 'clip_preprocessor',
    'DataError': 'errors',
    'ForecastDataPreprocessor': 'forecast_preprocessor',
    'LoadLidarPoints': 'transforms.loading',
    'LoadLidarSweeps': 'transforms.loading',
    'NuScenesForecastDataset': 'nuscenes_forecast',
    'NuScenesSequenceDataset': 'nuscenes_sequence',
    'PackClipFrame': 'transforms.packing',
    'SceneBatchSampler': 'samplers',
    'SceneSampler': 'samplers',
    'complete_infos': 'sequence_fields',
    'create_gt_database': 'gt_database',
    'create_infos': 'nuscenes_infos',
    'ensure_sequence_fields': 'sequence_fields',
    'load_info_file': 'sequence_fields',
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULE_OF[name]}', __name__), name)
