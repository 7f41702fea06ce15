"""Metric. In: a submission file, the samples of an info file. Out: the devkit's own evaluation of exactly these samples."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuscenes import NuScenes
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, load_gt_of_sample_tokens, load_prediction
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import create_splits_scenes

OFFICIAL_SETS = {'v1.0-mini': 'mini_val', 'v1.0-trainval': 'val'}
_LIDAR = 'LIDAR_TOP'  # the channel whose ego pose the devkit measures ranges from


class InfoFileEval(DetectionEval):
    """The devkit's evaluation, of the samples of an info file instead of a split that the devkit knows by name.

    Everything but the choice of samples is the devkit's code, so for the official val set the numbers are the official ones.

    Args:
        nusc: the tables; where the LiDAR is not LIDAR_TOP, after `name_lidars`.
        config: settings; AP, errors and NDS are of its `class_names`.
        result_path: submission with one entry for each sample.
        tokens: of the samples.
        output_dir: where metrics_summary.json and metrics_details.json go.

    Raises:
        ValueError: where none of the samples has a box of a class that nuScenes scores.
    """

    def __init__(self, nusc: NuScenes, config: DetectionConfig, result_path: str, tokens: Sequence[str],
                 output_dir: Path) -> None:
        self.nusc, self.cfg, self.result_path = nusc, config, result_path
        self.eval_set, self.output_dir, self.verbose = 'info file', str(output_dir), False
        predicted, self.meta = load_prediction(result_path, config.max_boxes_per_sample, DetectionBox)
        truth = load_gt_of_sample_tokens(nusc, list(tokens), DetectionBox)
        if not truth.all:
            raise ValueError(f'none of the {len(tokens)} samples has an annotation of a class that nuScenes scores in '
                             f'{nusc.dataroot}/{nusc.version}: there is nothing to score by')
        self.pred_boxes = filter_eval_boxes(nusc, add_center_dist(nusc, predicted), config.class_range)
        self.gt_boxes = filter_eval_boxes(nusc, add_center_dist(nusc, truth), config.class_range)
        self.sample_tokens = self.gt_boxes.sample_tokens


def name_lidars(nusc: NuScenes, infos: Sequence[Mapping[str, Any]]) -> None:
    """Lets the devkit find the LiDAR reading that the infos are made of, whatever its channel; changes the records in `nusc`.

    Raises:
        ValueError: naming a sample that the tables do not have or that has no LiDAR reading.
    """
    known = {sample['token']: sample for sample in nusc.sample}
    for info in infos:
        sample = known.get(info['token'])
        if sample is None:
            raise ValueError(f'{nusc.dataroot}/{nusc.version} has no sample {info["token"]}: the info file was made from other '
                             'tables; data_root must be the folder that it was made from')
        own = info['lidar_points'].get('sample_data_token')  # infos of mmdet3d's converter are of LIDAR_TOP and do not have it
        lidars = [token for token in sample['data'].values() if nusc.get('sample_data', token)['sensor_modality'] == 'lidar']
        if own in lidars:
            sample['data'][_LIDAR] = own
        elif _LIDAR not in sample['data'] and len(lidars) == 1:
            sample['data'][_LIDAR] = lidars[0]
        elif _LIDAR not in sample['data']:
            raise ValueError(f'sample {info["token"]} of {nusc.dataroot}/{nusc.version} has {len(lidars)} LiDAR readings, and '
                             'the info file does not say which it is of; make it again with tools/create_data.py')


def of_classes(config: DetectionConfig, classes: Sequence[str]) -> DetectionConfig:
    """These settings for some of nuScenes' classes, in the official order; the same object for all of them.

    Raises:
        ValueError: naming a class that nuScenes does not score.
    """
    unknown = [name for name in classes if name not in config.class_range]
    if unknown:
        raise ValueError(f'dataset_meta.classes has {unknown[0]!r}, which nuScenes does not score; use some of '
                         f'{", ".join(config.class_range)}')
    chosen = [name for name in config.class_range if name in classes]
    if len(chosen) == len(config.class_range):
        return config
    subset = copy.copy(config)
    subset.class_names = chosen
    return subset


def describe_set(nusc: NuScenes, tokens: Sequence[str]) -> str | None:
    """What the samples are, in words, unless they are the whole official val set of their version; None then."""
    scene_of = {sample['token']: sample['scene_token'] for sample in nusc.sample}
    length = Counter(scene_of.values())
    scored = Counter(scene_of[token] for token in tokens)
    names = {nusc.get('scene', scene)['name'] for scene in scored}
    total = sum(length[scene] for scene in scored)
    frames = f'{len(tokens)} of the {total} keyframes of these scenes'
    official = OFFICIAL_SETS.get(nusc.version)
    expected = set(create_splits_scenes()[official]) if official else set()
    if names <= expected:
        if names == expected and len(tokens) == total:
            return None
        return f'part of {official}: {len(names)} of {len(expected)} scenes, {frames}'
    shared = f', {len(names & expected)} of them of {official}' if official else ''
    return f'an evaluation set of its own: {len(names)} scenes{shared}, {frames}'
