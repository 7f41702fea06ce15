"""Demo. In: a config. Out: pictures of what its pipeline feeds the detector, before and after augmentation.

Boxes and points are in the frame's (augmented) LiDAR coordinates and cross to the images' pixels through the frame's own
calibration, so that a fault in either shows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras, write_png
from projects.memfusion.visualization.reads import Panel, draw_panels, stack_rows

_DEFAULT_RANGE_M = (-51.2, -51.2, 51.2, 51.2)
_CLIP_PX = 360
_KEPT = ('Load', 'Pack', 'AlignToClipEnd')
"""How the steps are called that make a frame; all others change it."""


def browse(cfg: Config, split: str, out: Path, number: int) -> Iterator[Path]:
    """Draws the split's first items; yields paths.

    `<index>_bev.png`, and `<index>_cameras.png` where there are images, are the item's own frame, of a clip its last;
    `<index>_before_*.png` the same through the pipeline's loading steps alone. `<index>_clip.png` is every frame of a clip, the
    oldest first, above before and below after. Truth is what the frame carries: the packed boxes, or in testing the info's.

    Raises:
        UserError: where the config has no such split.
    """
    init_registry()
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise UserError(f'--split {split}: the config has no {split}_dataloader')
    fed, raw = DATASETS.build(loader.dataset), DATASETS.build(without_changes(loader.dataset))
    names = fed.metainfo['classes']
    range_m = (cfg.model.get('grid') or {}).get('point_cloud_range') or cfg.get('point_cloud_range') or _DEFAULT_RANGE_M
    for index in range(min(number, len(fed))):
        before, after = (_frames(dataset[index]) for dataset in (raw, fed))
        stem = f'{split}_{index:04d}'
        yield from _draw_frame(before[-1], out, f'{stem}_before', f'{stem}, before', range_m, names)
        of_clip = f', last of {len(after)} frames' if len(after) > 1 else ''
        yield from _draw_frame(after[-1], out, stem, f'{stem}{of_clip}', range_m, names)
        if len(after) > 1:
            rows = [draw_panels([_panel(frame, what, range_m, names) for frame in frames])
                    for what, frames in (('before', before), ('after', after))]
            yield write_png(out / f'{stem}_clip.png', stack_rows(rows))


def without_changes(dataset: Any) -> Any:
    """A data set's config, and those that it wraps, whose pipelines load and pack alone."""
    plain = copy.deepcopy(dataset)
    inner = plain
    while inner.get('dataset') is not None:
        inner = inner.dataset
    inner.pipeline = [step for step in inner.pipeline if step['type'].startswith(_KEPT)]
    return plain


def _frames(item: Any) -> list[Any]:
    """The frames of an item that are there, oldest first."""
    return [frame for frame in item if frame['data_samples'].frame_valid] if isinstance(item, list) else [item]


def _draw_frame(frame: Any, out: Path, stem: str, title: str, range_m: Sequence[float], names: Sequence[str]) -> Iterator[Path]:
    inputs, sample = frame['inputs'], frame['data_samples']
    truth = _truth(sample)
    title = f'{title}: sample {sample.metainfo.get("sample_idx")}'
    yield write_png(out / f'{stem}_bev.png', draw_bev(inputs.get('points'), range_m, truth, None, names, title=title))
    cameras = inputs.get('cameras')
    if cameras is not None:
        images = {name: np.ascontiguousarray(image.numpy()[::-1].transpose(1, 2, 0))  # BGR to RGB
                  for name, image in zip(cameras.calibration.cam_names, cameras.images)}
        yield write_png(out / f'{stem}_cameras.png', draw_cameras(images, cameras.calibration, truth, None, names))


def _panel(frame: Any, what: str, range_m: Sequence[float], names: Sequence[str]) -> Panel:
    sample = frame['data_samples']
    picture = draw_bev(frame['inputs'].get('points'), range_m, _truth(sample), None, names, size_px=_CLIP_PX)
    return Panel(f'{what}: sample {sample.metainfo.get("sample_idx")}', picture)


def _truth(sample: Any) -> BoxSet | None:
    if 'bboxes_3d' in sample.get('gt_instances_3d', {}):
        return BoxSet.from_instances(sample.gt_instances_3d)
    info = sample.get('eval_ann_info')
    return BoxSet.from_instances(info) if info else None
