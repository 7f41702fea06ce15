"""Demo. In: a config. Out: pictures of what its pipeline feeds the detector: augmented points, boxes, network images.

Boxes and points are in the augmented LiDAR frame and cross to the network's pixels through the frame's own calibration, so that
a fault in either shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras, write_png

_DEFAULT_RANGE_M = (-51.2, -51.2, 51.2, 51.2)


def browse(cfg: Config, split: str, out: Path, number: int) -> Iterator[Path]:
    """Writes `<index>_bev.png`, and `<index>_cameras.png` where there are images, of the split's first items; yields paths.

    Of a clip its last frame is drawn. Truth is what the frame carries: the packed boxes, or in testing the info's.

    Raises:
        UserError: where the config has no such split.
    """
    init_registry()
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'--split {split}: the config has no {split}_dataloader')
    dataset = DATASETS.build(loader.dataset)
    names = dataset.metainfo['classes']
    range_m = (cfg.model.get('grid') or {}).get('point_cloud_range') or cfg.get('point_cloud_range') or _DEFAULT_RANGE_M
    for index in range(min(number, len(dataset))):
        item = dataset[index]
        frame = item[-1] if isinstance(item, list) else item
        inputs, sample = frame['inputs'], frame['data_samples']
        truth = _truth(sample)
        frames = f', last of {len(item)} frames' if isinstance(item, list) else ''
        title = f'{split} {index}: sample {sample.metainfo.get("sample_idx")}{frames}'
        path = out / f'{split}_{index:04d}_bev.png'
        write_png(path, draw_bev(inputs.get('points'), range_m, truth, None, names, title=title))
        yield path
        cameras = inputs.get('cameras')
        if cameras is not None:
            images = {name: np.ascontiguousarray(image.numpy()[::-1].transpose(1, 2, 0))  # BGR to RGB
                      for name, image in zip(cameras.calibration.cam_names, cameras.images)}
            path = out / f'{split}_{index:04d}_cameras.png'
            write_png(path, draw_cameras(images, cameras.calibration, truth, None, names))
            yield path


def _truth(sample: Any) -> BoxSet | None:
    if 'bboxes_3d' in sample.get('gt_instances_3d', {}):
        return BoxSet.from_instances(sample.gt_instances_3d)
    info = sample.get('eval_ann_info')
    return BoxSet.from_instances(info) if info else None
