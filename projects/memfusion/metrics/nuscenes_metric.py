"""Metric. In: each sample's boxes in its LiDAR frame. Out: the official score, equal for any number of processes."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.registry import METRICS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get, load
from mmengine.logging import MMLogger
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import load_prediction
from nuscenes.eval.detection.constants import TP_METRICS
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics

from projects.common.safe_pickle import DamagedFileError, UnsafeFileError, loads_pickle
from projects.memfusion.structures.box_scores import check_hidden_boxes, rated

from .box_results import PREDICTIONS, add_box_scores, keep_best
from .official_eval import InfoFileEval, describe_set, name_lidars, of_classes
from .prediction_checks import check_predictions
from .sample_fields import describe
from .truth_checks import check_truth

_ERROR_COLUMNS = dict(ATE='trans_err', ASE='scale_err', AOE='orient_err', AVE='vel_err', AAE='attr_err')


class OrderedMetric(BaseMetric):
    """Base: scores the results of all ranks in data-set order, whatever they are of.

    Ties in score depend on the order. Ranks may have any number of samples, or none; a missing sample is an error.
    Subclasses give `process`, which keeps a dict with `sample_idx` of every sample, and `compute_metrics(results)`, which
    gets one of them per sample of the data set.
    """

    results: list[dict]

    @property
    def dataset_meta(self) -> Any:  # a dict once MMEngine has set it, None before
        """Of the data set; MMEngine sets it before the first batch."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any]) -> None:
        self._dataset_meta = dataset_meta
        self.check_before(dataset_meta)

    def check_before(self, dataset_meta: Mapping[str, Any]) -> None:
        """Raises ValueError for what can be known to prevent a score before anything is predicted."""

    def order(self, parts: list[list[dict]], size: int) -> list[dict]:
        """The ranks' results in data-set order; see `order_results`."""
        return order_results(parts, size)

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
                metrics = self.compute_metrics(self.order(parts, size))
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


class OrderedBoxMetric(OrderedMetric):
    """Base: keeps each sample's best 3-D boxes; subclasses give `max_boxes`."""

    max_boxes: int
    with_velocity = False
    """Whether predicted boxes must have a velocity."""
    sample_tokens: Sequence[str] | None = None
    """Of the samples of the evaluator's own info file, where it has one."""
    hidden_boxes: str | None = None
    """How boxes that are hidden now are ranked, one of HIDDEN_BOXES; None: as they were predicted."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps each sample's best boxes on the CPU.

        Args:
            data_batch: not used.
            data_samples: dicts with `pred_instances_3d` (bboxes_3d (n, 9), scores_3d (n,), labels_3d (n,)) and
                `sample_idx`, the position in the info file's data_list.

        Raises:
            ValueError: naming the sample and the field, for boxes that cannot be scored.
        """
        classes = (self.dataset_meta or {}).get('classes')
        for sample in data_samples:
            predicted = sample[PREDICTIONS]
            boxes = predicted['bboxes_3d']
            if not isinstance(boxes, LiDARInstance3DBoxes):
                raise ValueError(f'{type(self).__name__} takes boxes in the LiDAR frame, got {type(boxes).__name__}; '
                                 "use mmdet3d's NuScenesMetric for those")
            self._check_sample(sample)
            kept = keep_best(rated(predicted, self.hidden_boxes, describe(sample)), self.max_boxes)
            check_predictions(kept, describe(sample), classes, with_velocity=self.with_velocity)
            self.results.append({PREDICTIONS: kept, 'sample_idx': int(sample['sample_idx'])})

    def _check_sample(self, sample: Mapping[str, Any]) -> None:
        """The data set's sample must be the one at its place in the evaluator's info file."""
        index, token, tokens = int(sample['sample_idx']), sample.get('sample_token'), self.sample_tokens
        if tokens is not None and token is not None and (index >= len(tokens) or tokens[index] != token):
            raise ValueError(f'sample {token} of the data set is not sample {index} of the info file of {type(self).__name__}: '
                             "ann_file of the evaluator must be the data set's, and the data set whole (no `indices`)")


@METRICS.register_module()
class OrderedNuScenesMetric(OrderedBoxMetric, NuScenesMetric):
    """mmdet3d's NuScenesMetric for boxes in the LiDAR frame, exact and forgiving where the stock one is neither.

    - Version and samples are the info file's: exactly its scenes and keyframes are scored, whatever they are called. What is
      not the whole official val set is said to be something else.
    - With some of the ten classes, AP, errors and NDS are means over these, and the log says so.
    - Boxes that the devkit cannot score (NaN, infinite, without extent or velocity) are an error in the batch that has them,
      an info file without annotations before the first one.
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
        hidden_boxes: ranks the boxes anew for this score, 'keep', 'drop' or 'downweight' (docs/metrics.md); None: as the
            detector ranked them. The submission then holds `exists_score` and `seen_score` beside the devkit's fields, and
            so it does wherever the detector tells them apart.

    Raises:
        ValueError: naming the key, if `format_only` comes without `jsonfile_prefix`, or for an unknown `hidden_boxes`.
    """

    with_velocity = True

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
        hidden_boxes: str | None = None,
    ) -> None:
        if hidden_boxes is not None:
            check_hidden_boxes(hidden_boxes, 'test_evaluator.hidden_boxes')
        if format_only and not jsonfile_prefix:
            raise ValueError('test_evaluator.format_only=True needs test_evaluator.jsonfile_prefix=FOLDER: where the '
                             'submission is to be written')
        modality = modality or dict(use_camera=False, use_lidar=True)
        used = {name: bool(modality.get(name, False))
                for name in ('use_camera', 'use_lidar', 'use_radar', 'use_map', 'use_external')}
        super().__init__(data_root, ann_file, metric, used, prefix, format_only, jsonfile_prefix, eval_version,
                         collect_device, backend_args)
        self.max_boxes, self.hidden_boxes = self.eval_detection_configs.max_boxes_per_sample, hidden_boxes

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results, or only writes and checks the submission.

        Args:
            results: one per sample of the info file, in its order.
        """
        logger = MMLogger.get_current_instance()
        infos = load_infos(self.ann_file, self.backend_args, len(results))
        self.version, self.data_infos = infos['metainfo']['version'], infos['data_list']
        if not self.format_only:
            check_truth(infos, self.ann_file)
        warn_of_unknown_velocities(results, self.data_infos)
        with contextlib.redirect_stdout(io.StringIO()):  # the progress bar is still shown, its prints are not
            paths, temporary = self.format_results(results, self.dataset_meta['classes'], self.jsonfile_prefix)
        path = paths[PREDICTIONS]
        add_box_scores(path, results, self.data_infos, self.dataset_meta['classes'])
        try:
            submission, _ = load_prediction(path, self.eval_detection_configs.max_boxes_per_sample, DetectionBox)
            if self.format_only:
                logger.info(f'submission of {len(submission.all)} boxes in {len(results)} samples: {path}')
                return {}
            nusc = NuScenes(version=self.version, dataroot=self.data_root, verbose=False)
            name_lidars(nusc, self.data_infos)
            what = describe_set(nusc, [info['token'] for info in self.data_infos])
            if what is not None:
                logger.warning(f'{self.ann_file} is {what}; its score cannot be compared with those of the whole official set')
            if not submission.all:
                logger.warning('nothing was predicted within the evaluation range, in any of the '
                               f'{len(submission.sample_tokens)} samples: everything scores 0')
                summary = self._summary_of_nothing()
            else:
                summary = self._official_summary(path, nusc)
        finally:
            if temporary is not None:
                temporary.cleanup()
        logger.info(format_table(summary, len(self.eval_detection_configs.class_range)))
        return self._name_metrics(summary)

    def check_before(self, dataset_meta: Mapping[str, Any]) -> None:
        """Raises ValueError for classes that nuScenes does not score, and an info file without annotations."""
        of_classes(self.eval_detection_configs, dataset_meta['classes'])
        infos = load_infos(self.ann_file, self.backend_args, None)
        if not self.format_only:
            check_truth(infos, self.ann_file)
        self.sample_tokens = [info['token'] for info in infos['data_list']]

    def _official_summary(self, path: str, nusc: NuScenes) -> dict[str, Any]:
        """metrics_summary.json of the official evaluator."""
        folder = Path(path).parent
        evaluation = InfoFileEval(nusc, self._config(), path, [info['token'] for info in self.data_infos], folder)
        # Its table comes through the logger instead; an error that no class has is its mean over nothing.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Mean of empty slice')
            evaluation.main(render_curves=False)
        return json.loads((folder / 'metrics_summary.json').read_text())

    def _summary_of_nothing(self) -> dict[str, Any]:
        """What the evaluator gives where nothing matches: AP 0, errors 1 (nan where a class has none), NDS 0."""
        config = self._config()
        metrics = DetectionMetrics(config)
        undefined = {'traffic_cone': ('attr_err', 'vel_err', 'orient_err'), 'barrier': ('attr_err', 'vel_err')}
        for name in config.class_names:
            for distance_m in config.dist_ths:
                metrics.add_label_ap(name, distance_m, 0.0)
            for error in TP_METRICS:
                metrics.add_label_tp(name, error, np.nan if error in undefined.get(name, ()) else 1.0)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='Mean of empty slice')
            return json.loads(json.dumps(metrics.serialize()))  # keys become strings, as in the evaluator's file

    def _config(self) -> DetectionConfig:
        return of_classes(self.eval_detection_configs, self.dataset_meta['classes'])

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


def warn_of_unknown_velocities(results: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]]) -> None:
    """The evaluator takes NaN for "not known" and leaves such boxes out of the velocity error: not to be overlooked."""
    unknown = [(info['token'], int(result[PREDICTIONS]['bboxes_3d'].tensor[:, 7:9].isnan().any(dim=1).sum()))
               for info, result in zip(infos, results)]
    total, first = sum(count for _, count in unknown), next((token for token, count in unknown if count), None)
    if total:
        MMLogger.get_current_instance().warning(
            f'the velocity of {total} predicted boxes is NaN (first: sample {first}): the evaluator leaves them out of AVE')


def format_table(summary: dict[str, Any], num_official: int = 10) -> str:
    """The official table: per class AP and errors, then the means and NDS, and over which classes where not over all."""
    lines = [f'{"class":<21}{"AP":>7}' + ''.join(f'{column:>7}' for column in _ERROR_COLUMNS)]
    for name, ap in summary['mean_dist_aps'].items():
        errors = ''.join(f'{summary["label_tp_errors"][name][key]:>7.3f}' for key in _ERROR_COLUMNS.values())
        lines.append(f'{name:<21}{ap:>7.3f}{errors}')
    means = ''.join(f'{summary["tp_errors"][key]:>7.3f}' for key in _ERROR_COLUMNS.values())
    lines.append(f'{"mean":<21}{summary["mean_ap"]:>7.3f}{means}')
    lines.append(f'mAP: {summary["mean_ap"]:.4f}  NDS: {summary["nd_score"]:.4f}')
    classes = list(summary['mean_dist_aps'])
    if len(classes) < num_official:
        undefined = [column for column, key in _ERROR_COLUMNS.items() if np.isnan(summary['tp_errors'][key])]
        lines.append(f'mAP, mean errors and NDS are over {len(classes)} of {num_official} classes ({", ".join(classes)}): not '
                     'comparable with scores over all')
        if undefined:
            lines.append(f'm{" and m".join(undefined)}: undefined for these classes, so they add nothing to NDS')
    return 'nuScenes detection score\n' + '\n'.join(lines)


def load_infos(ann_file: str, backend_args: dict | None, size: int | None) -> dict:
    """The content of the info file of the split to be scored.

    Args:
        ann_file: its path.
        backend_args: of its storage.
        size: samples that were predicted; None is not known yet.

    Raises:
        ValueError: naming a file that cannot be used, or has another number of samples.
    """
    remedy = 'make it again with `python tools/create_data.py nuscenes --root-path DIR --version VERSION`'
    try:
        infos = (load(ann_file, backend_args=backend_args) if str(ann_file).endswith('.json') else
                 loads_pickle(get(ann_file, backend_args), ann_file))
    except UnsafeFileError as error:
        raise ValueError(f'test_evaluator.ann_file={error}') from error
    except DamagedFileError as error:
        raise ValueError(
            f'test_evaluator.ann_file={ann_file} is not a readable info file ({error.reason}); {remedy}') from error
    except ValueError as error:
        raise ValueError(f'test_evaluator.ann_file={ann_file} is not a readable info file ({error}); {remedy}') from error
    if not isinstance(infos, dict) or not {'data_list', 'metainfo'} <= infos.keys():
        raise ValueError(f'test_evaluator.ann_file={ann_file} is not an mmdet3d v1.1 info file; {remedy}')
    if size is not None and size != len(infos['data_list']):
        raise ValueError(f'{ann_file} has {len(infos["data_list"])} samples and {size} were predicted; '
                         "the evaluator's ann_file must be the data set's, and the data set whole (no `indices`)")
    return infos
