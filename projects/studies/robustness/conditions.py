"""Study. What a detector is tested under. In: a config. Out: its test set with one fault put into the pipeline."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import ConfigDict

from projects.memfusion.runtime.errors import UserError

ROTATIONS_DEG = (0.25, 0.5, 1.0, 2.0, 4.0)
TRANSLATIONS_M = (0.05, 0.1, 0.2, 0.5)
TIME_OFFSETS_S = (0.025, 0.05, 0.1)
IMAGES = ('other_scene', 'blank', 'masked')
LIDAR_DROPS = (0.25, 0.5, 1.0)
CLEAN = 'clean'
GROUPS = ('rotation_deg', 'translation_m', 'time_offset_s', 'cameras_dropped', 'lidar_dropped', 'grid')
NO_CAMERAS = ('test_dataloader.dataset.pipeline has no LoadMultiViewImages: robustness is measured of detectors with cameras '
              '(configs/fusion)')


@dataclass(frozen=True)
class Condition:
    """name: unique, used as the key of stored results; group: which table and curve; level: of the fault, in the group's unit.

    `images`: transforms that follow the loading of the images; `points`: those that come before packing.
    """

    name: str
    group: str
    level: float
    images: tuple[dict[str, Any], ...] = field(default=())
    points: tuple[dict[str, Any], ...] = field(default=())


def noise(rotation_deg: float = 0.0, translation_m: float = 0.0, time_offset_s: float = 0.0) -> dict[str, Any]:
    """CalibrationNoise on every camera of every frame, the same draws in every run."""
    return dict(type='CalibrationNoise', rotation_deg=rotation_deg, translation_m=translation_m, prob=1.0,
                time_offset_s=time_offset_s, seed=0)


def make_conditions(num_cameras: int, ann_file: str, groups: Sequence[str]) -> list[Condition]:
    """The conditions of these groups after the clean one and the false images, which the verdict needs.

    Args:
        num_cameras: of the rig.
        ann_file: the info file that `other_scene` takes images from.
        groups: of GROUPS.
    """
    found = [Condition(CLEAN, CLEAN, 0.0)]
    for kind in IMAGES:
        donor = dict(ann_file=ann_file) if kind == 'other_scene' else {}
        found.append(Condition(f'images {kind}', 'images', 0.0, (dict(type='ReplaceImages', mode=kind, **donor),)))
    found += [Condition(f'rotation {deg:g} deg', 'rotation_deg', deg, (noise(deg),)) for deg in ROTATIONS_DEG]
    found += [Condition(f'translation {100 * m:g} cm', 'translation_m', m, (noise(0.0, m),)) for m in TRANSLATIONS_M]
    found += [Condition(f'time offset {1000 * s:g} ms', 'time_offset_s', s, (noise(0.0, 0.0, s),)) for s in TIME_OFFSETS_S]
    found += [Condition(f'rotation {deg:g} deg, translation {100 * m:g} cm', 'grid', deg, (noise(deg, m),))
              for deg in ROTATIONS_DEG for m in TRANSLATIONS_M]
    found += [Condition(f'{n} cameras dropped', 'cameras_dropped', n,
                        (dict(type='DropCameras', prob=1.0, num=(n, n), seed=0),)) for n in range(1, num_cameras + 1)]
    found += [Condition(f'{100 * share:g} % of LiDAR frames dropped', 'lidar_dropped', share,
                        points=(dict(type='DropLidar', prob=share, seed=0),)) for share in LIDAR_DROPS]
    return [condition for condition in found if condition.group in (CLEAN, 'images', *groups)]


def with_condition(dataloader: ConfigDict, condition: Condition) -> ConfigDict:
    """The test loader with the condition's transforms in its pipeline.

    Raises:
        UserError: where the pipeline loads no images.
    """
    loader = copy.deepcopy(dataloader)
    loader['persistent_workers'] = False
    pipeline: Sequence[Any] = loader['dataset']['pipeline']
    steps = [step['type'] for step in pipeline]
    if 'LoadMultiViewImages' not in steps:
        raise UserError(NO_CAMERAS)
    image, last = steps.index('LoadMultiViewImages') + 1, len(steps) - 1
    loader['dataset']['pipeline'] = [*pipeline[:image], *condition.images, *pipeline[image:last], *condition.points,
                                     *pipeline[last:]]
    return loader
