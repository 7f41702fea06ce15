"""Metric. In: each sample's boxes in its LiDAR frame. Out: what memory is for: hidden objects found, and flicker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger
from nuscenes.utils.data_classes import Box

from projects.memfusion.structures.box_scores import check_hidden_boxes

from .bicycle_racks import load_bicycle_racks
from .box_results import PREDICTIONS, keep_best
from .box_tables import Bools, Floats, Ints, TruthTable
from .build_tables import OfficialFilter, build_predictions, build_truth, check_infos
from .hidden_strata import hidden_strata
from .matching import candidate_pairs
from .mean_ap_seen import average_precisions, mean_over
from .memory_recall import find_truth, flicker, recalls, recalls_in
from .nuscenes_metric import OrderedBoxMetric, load_infos
from .truth_checks import has_truth
from .visibility import visibility, visibility_lines

_MAX_BOXES = 500  # of a sample, as in the official score
_FARTHEST_M = 4.0  # the widest of the official centre distances


def evaluate_memory(
    infos: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    categories: Mapping[str, int],
    *,
    match_m: float = 2.0,
    seen_s: float = 2.0,
    long_s: float = 6.0,
    false_positives_per_frame: float = 1.0,
    range_m: float | None = None,
    min_truth: int = 0,
    racks: Mapping[str, Sequence[Box]] | None = None,
) -> dict[str, float]:
    """mAP_seen, recall at a rate of false positives, and flicker; docs/metrics.md defines them.

    Args:
        infos: `data_list` of an info file with whole scenes.
        predictions: one per info, in their order: `bboxes_3d` (LiDARInstance3DBoxes), `scores_3d` (k,), `labels_3d`
            (k,), labels in the order of `classes`; the best 500 count.
        classes: those of the model (`dataset_meta['classes']`).
        categories: `metainfo['categories']` of the info file: its labels are in another order than the model's.
        match_m: for recall and flicker, a prediction finds truth nearer than this on the ground, in metres.
        seen_s: how long ago an object may have been seen, in seconds.
        long_s: the same for the stratum of objects that were seen longer ago than `seen_s`.
        false_positives_per_frame: sets the score threshold of recall and flicker.
        range_m: boxes count nearer than this to the ego, in metres, never beyond their class's official range.
        min_truth: a class is in the means of AP if it has this many boxes with points.
        racks: bicycle racks (`load_bicycle_racks`), in which the official score ignores bicycles; None for none.

    Returns:
        `mAP_seen` and `AP_seen_{class}`; `mAP`, the official score on the same range and classes; `score_threshold`;
        `recall_{stratum}`, `num_{stratum}`; `flicker`, `num_flicker`; `num_frames`; where predictions have `seen_3d`, its
        calibration (`visibility`). What is undefined is left out.

    Raises:
        ValueError: naming what is wrong with the infos, the predictions or the classes.
    """
    if len(predictions) != len(infos):
        raise ValueError(f'{len(infos)} infos and {len(predictions)} predictions: give one per info, in their order')
    check_infos(infos)
    official = OfficialFilter(classes, range_m, racks or {})
    truth = build_truth(infos, classes, categories, seen_s, official)
    predicted = build_predictions(infos, [keep_best(one, _MAX_BOXES) for one in predictions], official)
    pairs = candidate_pairs(truth, predicted, max(_FARTHEST_M, match_m))
    expected = truth.has_points_or_seen
    per_class = average_precisions(truth, predicted, pairs, expected, ~expected, len(classes))
    plain = average_precisions(truth, predicted, pairs, truth.has_points, np.zeros_like(expected), len(classes))
    chosen = np.bincount(truth.label[truth.has_points], minlength=len(classes)) >= min_truth
    values = dict(mAP_seen=mean_over(per_class, classes, chosen), mAP=mean_over(plain, classes, chosen))
    values |= {f'AP_seen_{name}': float(per_class[label]) for label, name in enumerate(classes)}
    finds = find_truth(truth, predicted, pairs, match_m, len(infos), false_positives_per_frame)
    values |= _at_threshold(truth, finds.detected) | recalls_in(hidden_strata(truth, seen_s, long_s), finds.detected)
    values |= _calibration(truth, predicted.seen, finds.found)
    if np.isfinite(finds.threshold):
        values['score_threshold'] = finds.threshold
    return values | dict(num_frames=len(infos))


def _at_threshold(truth: TruthTable, detected: Bools) -> dict[str, float]:
    """Recall and flicker of what was found."""
    considered, lost = flicker(truth, detected)
    values = recalls(truth, detected) | dict(num_flicker=considered)
    return values | dict(flicker=lost / considered) if considered else values


def _calibration(truth: TruthTable, seen: Floats | None, found: Ints) -> dict[str, float]:
    """How well predictions that found a truth box know whether it is seen now; nothing where they do not say."""
    matched = found >= 0
    return {} if seen is None else visibility(seen[matched], truth.num_lidar_pts[found[matched]] > 0)


@METRICS.register_module()
class MemoryMetric(OrderedBoxMetric):
    """What `evaluate_memory` gives, as a metric of MMEngine; beside OrderedNuScenesMetric or alone.

    Metric names, with the default prefix: 'memory/mAP_seen', 'memory/recall_0pts_seen', 'memory/flicker', ...
    (docs/metrics.md). The same for any number of processes.

    Args:
        ann_file: info file of the split to be scored, whole.
        data_root: folder with the version's tables, for bicycle racks; without it there are none, and bicycles in racks
            count, other than in the official score.
        match_m: as `evaluate_memory`.
        seen_s: as `evaluate_memory`.
        long_s: as `evaluate_memory`.
        false_positives_per_frame: as `evaluate_memory`.
        range_m: as `evaluate_memory`.
        min_truth: as `evaluate_memory`.
        prefix: of the metric names.
        collect_device: where ranks exchange results: 'cpu' or 'gpu'; both exchange pickled objects.
        backend_args: of the info file's storage.
        hidden_boxes: ranks the boxes anew for these scores, 'keep', 'drop' or 'downweight'; None: as the detector did.
    """

    max_boxes = _MAX_BOXES

    def __init__(
        self,
        ann_file: str,
        data_root: str | None = None,
        match_m: float = 2.0,
        seen_s: float = 2.0,
        long_s: float = 6.0,
        false_positives_per_frame: float = 1.0,
        range_m: float | None = None,
        min_truth: int = 0,
        prefix: str = 'memory',
        collect_device: str = 'cpu',
        backend_args: dict | None = None,
        hidden_boxes: str | None = None,
    ) -> None:
        if hidden_boxes is not None:
            check_hidden_boxes(hidden_boxes, 'test_evaluator.hidden_boxes')
        if not long_s > seen_s:
            raise ValueError(f'test_evaluator.long_s must be above seen_s={seen_s:g} s, got {long_s:g}')
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ann_file, self.data_root, self.hidden_boxes = ann_file, data_root, hidden_boxes
        self.options: dict[str, Any] = dict(
            match_m=match_m, seen_s=seen_s, long_s=long_s, false_positives_per_frame=false_positives_per_frame, range_m=range_m,
            min_truth=min_truth)
        self.backend_args = backend_args

    def check_before(self, dataset_meta: Mapping[str, Any]) -> None:
        """Raises ValueError for classes that nuScenes does not score, and an info file without annotations."""
        OfficialFilter(dataset_meta['classes'], None, {})
        infos = load_infos(self.ann_file, self.backend_args, None)
        self._check_truth(infos)
        self.sample_tokens = [info['token'] for info in infos['data_list']]

    def _check_truth(self, infos: Mapping[str, Any]) -> None:
        if not has_truth(infos):
            raise ValueError(f'{self.ann_file} ({infos["metainfo"]["version"]}) has no truth to score by; take MemoryMetric '
                             'out of test_evaluator')

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results.

        Args:
            results: one per sample of the info file, in its order.
        """
        infos = load_infos(self.ann_file, self.backend_args, len(results))
        metainfo, data_list = infos['metainfo'], infos['data_list']
        self._check_truth(infos)
        racks = None
        if self.data_root is not None:
            tokens = [info['token'] for info in data_list]
            racks = load_bicycle_racks(self.data_root, metainfo['version'], tokens)
        predictions = [result[PREDICTIONS] for result in results]
        values = evaluate_memory(data_list, predictions, self.dataset_meta['classes'], metainfo['categories'],
                                 racks=racks, **self.options)
        MMLogger.get_current_instance().info(format_memory_table(values))
        return values


def format_memory_table(values: Mapping[str, float]) -> str:
    """Recall by points now (rows) and by whether the object was seen before (columns), with the boxes in each."""
    def cell(name: str) -> str:
        recall = f'{values[f"recall_{name}"]:.3f}' if f'recall_{name}' in values else '-'
        return f'{recall:>9}{values.get(f"num_{name}", 0):>8}'

    lines = [f'{"LiDAR points now":<18}' + ''.join(f'{title:>17}' for title in ('recall, boxes', 'seen before', 'not seen'))]
    for row in ('all', '0pts', '1-5pts', '6-20pts', 'over20pts'):
        names = ('all', 'seen', 'not_seen') if row == 'all' else (row, f'{row}_seen', f'{row}_not_seen')
        lines.append(f'{row:<18}' + ''.join(map(cell, names)))
    hidden = [name.removeprefix('num_') for name in values if name.startswith('num_0pts_seen_')]
    lines.append('without points, seen before:')
    lines += [f'  {name.removeprefix("0pts_seen_"):<16}{cell(name)}' for name in hidden if values[f'num_{name}']]
    lines += visibility_lines(values)
    flickers = f'{values["flicker"]:.4f}' if 'flicker' in values else '-'
    threshold = f'{values["score_threshold"]:.4f}' if 'score_threshold' in values else '-'
    lines.append(f'score threshold: {threshold}  flicker: {flickers} of {values["num_flicker"]}')
    lines.append(f'mAP_seen: {values["mAP_seen"]:.4f}  mAP of the same boxes without hidden ones: {values["mAP"]:.4f}')
    return 'memory score\n' + '\n'.join(lines)
