"""Metric, tracks. In: a submission of tracking, the samples of an info file, their tables. Out: AMOTA, id switches, ..."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, load_gt_of_sample_tokens, load_prediction

from ..official_eval import name_lidars

NAMES = ('amota', 'amotp', 'recall', 'mota', 'motp', 'ids', 'frag', 'mt', 'ml', 'tp', 'fp', 'fn', 'gt')
"""What the table shows, in its order."""
_ANY_OFFICIAL = 'mini_val'


def evaluate_tracking(path: Path, infos: Sequence[Mapping[str, Any]], data_root: Path, version: str) -> dict[str, Any]:
    """The devkit's `tracking_nips_2019` evaluation of exactly these samples. All but their choice is its code, so for the
    official val set the numbers are the official ones.

    Args:
        path: of the submission, with one entry for each sample.
        infos: keyframes of whole scenes.
        data_root, version: of the tables.

    Returns:
        `metrics.serialize()` of the devkit: means over classes by name (`amota`, `ids`, ...), classes in `label_metrics`.

    Raises:
        ValueError: where motmetrics is not there, or the tables.
    """
    try:
        from nuscenes.eval.tracking.data_classes import TrackingBox, TrackingMetrics
        from nuscenes.eval.tracking.evaluate import TrackingEval
        from nuscenes.eval.tracking.loaders import create_tracks
    except ImportError as error:
        raise ValueError("the devkit's tracking evaluation needs motmetrics: pip install motmetrics==1.4.0") from error
    if not (data_root / version / 'sample_annotation.json').is_file():
        raise ValueError(f'{data_root / version} has no tables, which scores of tracking need: give the data set root')
    tokens = [info['token'] for info in sorted(infos, key=lambda one: (one['scene_token'], one['timestamp']))]
    config = config_factory('tracking_nips_2019')
    evaluation = TrackingEval.__new__(TrackingEval)  # its constructor knows official and custom splits alone
    evaluation.cfg, evaluation.verbose, evaluation.render_classes, evaluation.output_dir = config, False, None, ''
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # means over classes without truth, and pandas' of its own future
        nusc = NuScenes(version, str(data_root), verbose=False)
        name_lidars(nusc, infos)
        predicted, _ = load_prediction(str(path), config.max_boxes_per_sample, TrackingBox)
        truth = load_gt_of_sample_tokens(nusc, tokens, TrackingBox)
        tracks = []
        for boxes, is_truth in ((truth, True), (predicted, False)):
            near = filter_eval_boxes(nusc, add_center_dist(nusc, boxes), config.class_range)
            tracks.append(create_tracks(near, nusc, _ANY_OFFICIAL, gt=is_truth))
        evaluation.tracks_gt, evaluation.tracks_pred = tracks
        metrics, _ = evaluation.evaluate()
        assert isinstance(metrics, TrackingMetrics)
        return metrics.serialize()


def format_scores(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table: result files in columns, metrics in rows, then AMOTA and id switches of each class.

    Args:
        scores: what evaluate_tracking gave, by name of the result file.
    """
    width = max(12, *(len(name) + 2 for name in scores))
    lines = [f'{"":<24}' + ''.join(f'{name:>{width}}' for name in scores)]
    lines += [f'{name:<24}' + ''.join(f'{one[name]:>{width}.4g}' for one in scores.values()) for name in NAMES]
    first = next(iter(scores.values()))
    for label in first['label_metrics']['gt']:
        if first['label_metrics']['gt'][label] > 0:
            for metric in ('amota', 'ids'):
                lines.append(f'{label + " " + metric:<24}' + ''.join(
                    f'{one["label_metrics"][metric][label]:>{width}.4g}' for one in scores.values()))
    return lines
