"""Metric. In: a nuScenes result file. Out: mean AP over classes with enough truth near the ego, official matching."""

from __future__ import annotations

from typing import Any

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, load_gt, load_prediction
from nuscenes.eval.detection.algo import accumulate, calc_ap
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox


def demo_map(
    nusc: NuScenes, result_json_path: str, eval_set: str, range_m: float = 25.0, min_truth: int = 20,
) -> dict[str, Any]:
    """Mean AP of nuScenes' detection_cvpr_2019 (centre distance 0.5, 1, 2, 4 m) near the ego, rare classes left out.

    Args:
        nusc: the tables.
        result_json_path: a submission file with one entry per sample of `eval_set`.
        eval_set: 'mini_val', 'val', ...
        range_m: truth and predictions count if their centre is closer than this to the ego, in metres, for every class
            (the official score uses 30, 40 or 50 m by class).
        min_truth: a class counts if it has at least this many truth boxes that hold a point within the range.

    Returns:
        `mAP` (0 where no class counts), `classes` (those that count), `per_class` {class: AP} and `num_truth` {class:
        boxes} for all ten classes; the AP of a class without truth is 0.

    Raises:
        ValueError: if the file's samples are not the split's.
    """
    config = config_factory('detection_cvpr_2019')
    ranges = {name: range_m for name in config.class_names}
    truth = load_gt(nusc, eval_set, DetectionBox)
    predicted, _ = load_prediction(result_json_path, config.max_boxes_per_sample, DetectionBox)
    if set(truth.sample_tokens) != set(predicted.sample_tokens):
        raise ValueError(f'{result_json_path}: has {len(predicted.sample_tokens)} samples, which are not the '
                         f'{len(truth.sample_tokens)} samples of {eval_set}')
    truth, predicted = _near(nusc, truth, ranges), _near(nusc, predicted, ranges)
    num_truth = {name: sum(box.detection_name == name for box in truth.all) for name in config.class_names}
    per_class = {name: _class_ap(truth, predicted, name, config) for name in config.class_names}
    classes = [name for name in config.class_names if num_truth[name] >= min_truth]
    mean = float(np.mean([per_class[name] for name in classes])) if classes else 0.0
    return dict(mAP=mean, classes=classes, per_class=per_class, num_truth=num_truth)


def _near(nusc: NuScenes, boxes: EvalBoxes, ranges: dict[str, float]) -> EvalBoxes:
    """The evaluator's own filter (range, points in truth, bicycle racks), which raises where there is no box."""
    return filter_eval_boxes(nusc, add_center_dist(nusc, boxes), ranges) if boxes.all else boxes


def _class_ap(truth: EvalBoxes, predicted: EvalBoxes, name: str, config: Any) -> float:
    aps = []
    for distance_m in config.dist_ths:
        data = accumulate(truth, predicted, name, config.dist_fcn_callable, distance_m)
        aps.append(calc_ap(data, config.min_recall, config.min_precision))
    return float(np.mean(aps))
