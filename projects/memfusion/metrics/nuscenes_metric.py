"""Metric. In: each sample's boxes in its LiDAR frame. Out: the official score, equal for any number of processes."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.registry import METRICS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get, load
from mmengine.logging import MMLogger
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetrics

from projects.common.safe_pickle import DamagedFileError, UnsafeFileError, loads_pickle

PREDICTIONS = 'pred_instances_3d'
_EVAL_SETS = {'v1.0-mini': 'mini_val', 'v1.0-trainval': 'val'}
_ERROR_COLUMNS = dict(ATE='trans_err', ASE='scale_err', AOE='orient_err', AVE='vel_err', AAE='attr_err')


class OrderedMetric(BaseMetric):
    """Base: keeps each sample's best boxes, and scores those of all ranks in data-set order.

    Ties in score depend on the order. Ranks may have any number of samples, or none; a missing sample is an error.
    Subclasses give `compute_metrics(results)`, one result per sample of the data set, and `max_boxes`.
    """

    results: list[dict]
    max_boxes: int

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps each sample's best boxes on the CPU.

        Args:
            data_batch: not used.
            data_samples: dicts with `pred_instances_3d` (bboxes_3d (n, 9), scores_3d (n,), labels_3d (n,)) and
                `sample_idx`, the position in the info file's data_list.
        """
        for sample in data_samples:
            predicted = sample[PREDICTIONS]
            boxes = predicted['bboxes_3d']
            if not isinstance(boxes, LiDARInstance3DBoxes):
                raise ValueError(f'{type(self).__name__} takes boxes in the LiDAR frame, got {type(boxes).__name__}; '
                                 "use mmdet3d's NuScenesMetric for those")
            self.results.append({PREDICTIONS: keep_best(predicted, self.max_boxes), 'sample_idx': int(sample['sample_idx'])})

    def evaluate(self, size: int) -> dict[str, float]:
        """Scores the results of all ranks; every rank returns the same metrics or raises.

        Args:
            size: samples of the data set.

        Raises:
            ValueError: if samples are missing, repeated or unknown.
        """
        parts = all_gather_object(self.results)
        self.results = []  # not cleared: without other ranks, parts holds this very list
        answer: list[Any] = [None, None]
        failure: Exception | None = None
        if is_main_process():
            try:
                metrics = self.compute_metrics(order_results(parts, size))
                # Counts too become floats: MMEngine keeps whole numbers as numpy's and then writes null for them.
                answer[0] = {f'{self.prefix}/{name}': float(value) for name, value in metrics.items()}
            except Exception as error:  # told to the other ranks, which would wait for ever, and raised below
                failure, answer[1] = error, f'{type(error).__name__}: {error}'
        broadcast_object_list(answer)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise ValueError(f'scoring failed on rank 0: {answer[1]}')
        return answer[0]


@METRICS.register_module()
class OrderedNuScenesMetric(OrderedMetric, NuScenesMetric):
    """mmdet3d's NuScenesMetric for boxes in the LiDAR frame, exact and forgiving where the stock one is neither.

    - The version is the info file's, not the data-set class's.
    - The ranks' results are put into data-set order before scoring, because ties in score depend on the order; ranks
      may have any number of samples, or none. A missing sample is an error.
    - At most 500 boxes of a sample are kept, the best ones.
    - A run that predicts nothing scores 0 instead of raising.

    Metric names, with the default prefix: the stock ones ('NuScenes metric/pred_instances_3d_NuScenes/NDS', ...) and
    the short 'NuScenes metric/NDS' and 'NuScenes metric/mAP'. `CheckpointHook(save_best='NuScenes metric/NDS',
    rule='greater')` keeps the best checkpoint (MMEngine looks up the full name).

    Args:
        data_root: folder with the version's tables.
        ann_file: info file of the split to be scored.
        metric: as the stock one's; 'bbox'.
        modality: what the submission's meta says was used; default LiDAR only.
        prefix: of the metric names; default 'NuScenes metric'.
        format_only: write the submission and check it with the devkit's loader, do not score (there is no truth to
            score by in v1.0-test).
        jsonfile_prefix: folder to keep the submission in, `{jsonfile_prefix}/pred_instances_3d/results_nusc.json`;
            without it a temporary folder is used.
        eval_version: configuration of the evaluator.
        collect_device: where ranks exchange results: 'cpu' or 'gpu'; both exchange pickled objects.
        backend_args: of the info file's storage.

    Raises:
        ValueError: naming the key, if `format_only` comes without `jsonfile_prefix`.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        metric: str | list[str] = 'bbox',
        modality: dict | None = None,
        prefix: str | None = None,
        format_only: bool = False,
        jsonfile_prefix: str | None = None,
        eval_version: str = 'detection_cvpr_2019',
        collect_device: str = 'cpu',
        backend_args: dict | None = None,
    ) -> None:
        if format_only and not jsonfile_prefix:
            raise ValueError('test_evaluator.format_only=True needs test_evaluator.jsonfile_prefix=FOLDER: where the '
                             'submission is to be written')
        modality = modality or dict(use_camera=False, use_lidar=True)
        used = {name: bool(modality.get(name, False))
                for name in ('use_camera', 'use_lidar', 'use_radar', 'use_map', 'use_external')}
        super().__init__(data_root, ann_file, metric, used, prefix, format_only, jsonfile_prefix, eval_version,
                         collect_device, backend_args)
        self.max_boxes = self.eval_detection_configs.max_boxes_per_sample

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results, or only writes and checks the submission.

        Args:
            results: one per sample of the info file, in its order.
        """
        logger = MMLogger.get_current_instance()
        infos = load_infos(self.ann_file, self.backend_args, len(results))
        self.version, self.data_infos = infos['metainfo']['version'], infos['data_list']
        if not self.format_only and self.version not in _EVAL_SETS:
            raise ValueError(f'{self.ann_file} is of {self.version}, which has no truth to score by; set '
                             'test_evaluator.format_only=True and test_evaluator.jsonfile_prefix=FOLDER')
        with contextlib.redirect_stdout(io.StringIO()):  # the progress bar is still shown, its prints are not
            paths, temporary = self.format_results(results, self.dataset_meta['classes'], self.jsonfile_prefix)
        path = paths[PREDICTIONS]
        try:
            submission, _ = load_prediction(path, self.eval_detection_configs.max_boxes_per_sample, DetectionBox)
            if self.format_only:
                logger.info(f'submission of {len(submission.all)} boxes in {len(results)} samples: {path}')
                return {}
            if not submission.all:
                logger.warning('nothing was predicted within the evaluation range, in any of the '
                               f'{len(submission.sample_tokens)} samples: everything scores 0')
                summary = self._summary_of_nothing()
            else:
                summary = self._official_summary(path)
        finally:
            if temporary is not None:
                temporary.cleanup()
        logger.info(format_table(summary))
        return self._name_metrics(summary)

    def _official_summary(self, path: str) -> dict[str, Any]:
        """metrics_summary.json of the official evaluator."""
        from nuscenes import NuScenes
        from nuscenes.eval.detection.evaluate import NuScenesEval
        folder = Path(path).parent
        nusc = NuScenes(version=self.version, dataroot=self.data_root, verbose=False)
        evaluation = NuScenesEval(nusc, config=self.eval_detection_configs, result_path=path, verbose=False,
                                  eval_set=_EVAL_SETS[self.version], output_dir=str(folder))
        with contextlib.redirect_stdout(io.StringIO()):  # its table comes through the logger instead
            evaluation.main(render_curves=False)
        return json.loads((folder / 'metrics_summary.json').read_text())

    def _summary_of_nothing(self) -> dict[str, Any]:
        """What the evaluator gives where nothing matches: AP 0, errors 1 (nan where a class has none), NDS 0."""
        config = self.eval_detection_configs
        metrics = DetectionMetrics(config)
        undefined = {'traffic_cone': ('attr_err', 'vel_err', 'orient_err'), 'barrier': ('attr_err', 'vel_err')}
        for name in config.class_names:
            for distance_m in config.dist_ths:
                metrics.add_label_ap(name, distance_m, 0.0)
            for error in TP_METRICS:
                metrics.add_label_tp(name, error, np.nan if error in undefined.get(name, ()) else 1.0)
        return json.loads(json.dumps(metrics.serialize()))  # keys become strings, as in the evaluator's file

    def _name_metrics(self, summary: dict[str, Any]) -> dict[str, float]:
        """The stock metric's names and rounding, and the short names."""
        prefix = f'{PREDICTIONS}_NuScenes'
        named: dict[str, float] = {}
        for name in self.dataset_meta['classes']:
            for distance_m, value in summary['label_aps'][name].items():
                named[f'{prefix}/{name}_AP_dist_{distance_m}'] = round(value, 4)
            for error, value in summary['label_tp_errors'][name].items():
                named[f'{prefix}/{name}_{error}'] = round(value, 4)
        for error, value in summary['tp_errors'].items():
            named[f'{prefix}/{self.ErrNameMapping[error]}'] = round(value, 4)
        named[f'{prefix}/NDS'] = named['NDS'] = summary['nd_score']
        named[f'{prefix}/mAP'] = named['mAP'] = summary['mean_ap']
        return named


def keep_best(predicted: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """`bboxes_3d`, `scores_3d` and `labels_3d` on the CPU, the `limit` best; of equal scores the first."""
    boxes, scores, labels = (predicted[name].to('cpu') for name in ('bboxes_3d', 'scores_3d', 'labels_3d'))
    if len(scores) > limit:
        best = torch.argsort(scores, descending=True, stable=True)[:limit]
        boxes, scores, labels = boxes[best], scores[best], labels[best]
    return dict(bboxes_3d=boxes, scores_3d=scores, labels_3d=labels)


def order_results(parts: list[list[dict]], size: int) -> list[dict]:
    """The ranks' results as one list in data-set order.

    Args:
        parts: each rank's results; a rank may be empty.
        size: samples of the data set; `sample_idx` runs from 0 to size - 1.

    Raises:
        ValueError: if samples are missing or unknown, or more are repeated than a sampler adds to fill up the ranks.
    """
    found: dict[int, dict] = {}
    repeated: list[int] = []
    longest = max((len(part) for part in parts), default=0)
    # Row by row: samples that a sampler repeats to fill up come in the last row, after the ones they repeat.
    for row in range(longest):
        for part in parts:
            if row < len(part):
                index = part[row]['sample_idx']
                repeated += [index] if index in found else []
                found.setdefault(index, part[row])
    missing = sorted(set(range(size)) - found.keys())
    unknown = sorted(found.keys() - set(range(size)))
    if missing or unknown:
        what = (f'{len(missing)} of {size} samples were not predicted (first: sample_idx {missing[0]})' if missing else
                f'sample_idx {unknown[0]} was predicted, but the data set has {size} samples')
        raise ValueError(f'{what}; the sampler must visit every sample, and the model return its sample_idx')
    if len(repeated) >= len(parts):
        raise ValueError(f'{len(repeated)} samples were predicted twice (first: sample_idx {repeated[0]}); the '
                         'sampler must visit every sample once')
    return [found[index] for index in range(size)]


def format_table(summary: dict[str, Any]) -> str:
    """The official table: per class AP and errors, then the means and NDS."""
    lines = [f'{"class":<21}{"AP":>7}' + ''.join(f'{column:>7}' for column in _ERROR_COLUMNS)]
    for name, ap in summary['mean_dist_aps'].items():
        errors = ''.join(f'{summary["label_tp_errors"][name][key]:>7.3f}' for key in _ERROR_COLUMNS.values())
        lines.append(f'{name:<21}{ap:>7.3f}{errors}')
    means = ''.join(f'{summary["tp_errors"][key]:>7.3f}' for key in _ERROR_COLUMNS.values())
    lines.append(f'{"mean":<21}{summary["mean_ap"]:>7.3f}{means}')
    lines.append(f'mAP: {summary["mean_ap"]:.4f}  NDS: {summary["nd_score"]:.4f}')
    return 'nuScenes detection score\n' + '\n'.join(lines)


def load_infos(ann_file: str, backend_args: dict | None, size: int) -> dict:
    """The content of the info file of the split to be scored.

    Args:
        ann_file: its path.
        backend_args: of its storage.
        size: samples that were predicted.

    Raises:
        ValueError: naming a file that cannot be used, or has another number of samples.
    """
    remedy = 'make it again with `python tools/create_data.py nuscenes --root-path DIR --version VERSION`'
    try:
        is_pickle = str(ann_file).endswith(('.pkl', '.pickle'))
        infos = (loads_pickle(get(ann_file, backend_args), ann_file) if is_pickle else
                 load(ann_file, backend_args=backend_args))  # JSON or YAML
    except UnsafeFileError as error:
        raise ValueError(f'test_evaluator.ann_file={error}') from error
    except DamagedFileError as error:
        raise ValueError(
            f'test_evaluator.ann_file={ann_file} is not a readable info file ({error.reason}); {remedy}') from error
    if not isinstance(infos, dict) or not {'data_list', 'metainfo'} <= infos.keys():
        raise ValueError(f'test_evaluator.ann_file={ann_file} is not an mmdet3d v1.1 info file; {remedy}')
    if size != len(infos['data_list']):
        raise ValueError(f'{ann_file} has {len(infos["data_list"])} samples and {size} were predicted; '
                         "the evaluator's ann_file must be the data set's, and the data set whole (no `indices`)")
    return infos
