"""Metric. In: the content of an info file. Out: nothing, or an error that says why there is no truth to score by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES

_FIELDS = ('centre', 'centre', 'centre', 'size', 'size', 'size', 'yaw')
_REMEDY = 'mend it in sample_annotation.json and make the infos again with tools/create_data.py'


def has_truth(infos: Mapping[str, Any]) -> bool:
    """Whether any sample of an info file has a box of a class that nuScenes scores."""
    instances = (instance for info in infos['data_list'] for instance in info.get('instances') or ())
    return any(instance.get('bbox_label_3d', -1) >= 0 for instance in instances)


def check_truth(infos: Mapping[str, Any], ann_file: str) -> None:
    """Raises ValueError naming the file where it has no annotations to score by, or one that the devkit would die of.

    Args:
        infos: content of the info file.
        ann_file: its path, for the message.
    """
    version = infos['metainfo'].get('version')
    if version == 'v1.0-test' or not has_truth(infos):
        raise ValueError(f'{ann_file} is of {version} and has no annotations of classes that nuScenes scores, so there is no '
                         'truth to score by; choose another ann_file, or write the submission alone with '
                         'test_evaluator.format_only=True and test_evaluator.jsonfile_prefix=FOLDER')
    for info in infos['data_list']:
        scored = [instance for instance in info.get('instances') or () if instance.get('bbox_label_3d', -1) >= 0]
        boxes = np.array([instance['bbox_3d'][:7] for instance in scored], dtype=np.float64).reshape(-1, 7)
        wrong = ~np.isfinite(boxes)
        # The devkit looks at the size of boxes with points alone: others are dropped before.
        num_points = [instance.get('num_lidar_pts', 0) + instance.get('num_radar_pts', 0) for instance in scored]
        has_points = np.array(num_points, dtype=np.int64) > 0
        wrong[:, 3:6] |= (boxes[:, 3:6] <= 0) & has_points[:, None]
        for row, column in np.argwhere(wrong)[:1]:
            raise ValueError(f'{ann_file}: sample {info["token"]}: the {_FIELDS[column]} of annotation {row} is '
                             f'{boxes[row, column]:g}; {_REMEDY}')
        for instance in scored:
            if instance.get('attribute') and instance['attribute'] not in ATTRIBUTE_NAMES:
                raise ValueError(f'{ann_file}: sample {info["token"]}: the attribute {instance["attribute"]!r} is none of '
                                 f"nuScenes' ({', '.join(ATTRIBUTE_NAMES)}); {_REMEDY}, or leave attribute_tokens empty")
