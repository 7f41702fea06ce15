"""Metric. In: 2-D boxes of each camera, network pixels. Out: COCO's AP over all cameras, and the error of their depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger

from projects.memfusion.structures.image_labels import ImageLabels

from .coco_scores import ImageBoxes, coco_scores
from .nuscenes_metric import OrderedMetric
from .sample_fields import describe, is_dropped, read_field, read_labels

PREDICTED_BOXES = 'pred_img_boxes'
_MIN_DEPTH_M = 0.1  # a box whose middle is nearer, or behind the camera, has no depth to be right about


@METRICS.register_module()
class ImageBBoxMetric(OrderedMetric):
    """2-D average precision by COCO's evaluator; every camera's image is one image. The same for any number of processes.

    Metric names, with the default prefix: 'image_bbox/mAP' (mean over IoU 0.5 to 0.95 and the classes that have truth),
    'image_bbox/AP50', 'image_bbox/AP75', 'image_bbox/AP_{class}', and of the truth that was found at IoU 0.5 (by a prediction
    of any score) 'image_bbox/depth_error_m' and 'image_bbox/depth_error_rel', the means of |d - d_true| and of that over
    d_true, where the true depth is above 0.1 m; 'image_bbox/num_truth', 'image_bbox/num_depth'. What is undefined is left out.

    Args:
        max_boxes: the best this many predictions of a class count in an image.
        prefix: of the metric names.
        collect_device: where ranks exchange results: 'cpu' or 'gpu'; both exchange pickled objects.
    """

    def __init__(self, max_boxes: int = 100, prefix: str = 'image_bbox', collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.max_boxes = max_boxes

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps truth and predictions of each sample.

        Args:
            data_batch: not used.
            data_samples: dicts with `gt_img_labels` (N ImageLabels), `pred_img_boxes` (N InstanceData with bboxes (n, 4) xyxy,
                scores (n,), labels (n,), depth_m (n,)) and `sample_idx`.

        Raises:
            ValueError: naming the sample, where they are missing or wrong.
        """
        num_classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            truth: list[ImageBoxes] = []
            predicted: list[ImageBoxes] = []
            if not is_dropped(sample):
                truth = [_truth(one) for one in read_labels(sample)]
                found = read_field(sample, PREDICTED_BOXES, 'the model needs a head for 2-D boxes, or take ImageBBoxMetric out')
                predicted = [_predictions(one, num_classes, describe(sample)) for one in found]
                if len(truth) != len(predicted):
                    raise ValueError(f'{describe(sample)} has labels of {len(truth)} cameras and predictions of '
                                     f'{len(predicted)}')
            self.results.append(dict(sample_idx=int(sample['sample_idx']), truth=truth, predicted=predicted))

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results.

        Args:
            results: one per sample of the data set, in its order.
        """
        truth = [one for result in results for one in result['truth']]
        predicted = [one for result in results for one in result['predicted']]
        num_truth = sum(len(one.labels) for one in truth)
        if not num_truth:
            MMLogger.get_current_instance().warning(f'{self.prefix}: no image has a 2-D box, so there is no score (are all '
                                                    'cameras masked?)')
            return dict(num_truth=0)
        classes = self.dataset_meta['classes']
        scores = coco_scores(truth, predicted, len(classes), self.max_boxes)
        present = ~np.isnan(scores.ap[0])
        values = dict(mAP=float(scores.ap[:, present].mean()), AP50=float(scores.ap[0, present].mean()),
                      AP75=float(scores.ap[5, present].mean()), num_truth=num_truth)
        values |= {f'AP_{classes[label]}': float(scores.ap[:, label].mean()) for label in np.flatnonzero(present)}
        depth_m = [np.concatenate([one.depth_m for one in images])[scores.found[:, column]]
                   for column, images in enumerate((truth, predicted))]
        values |= depth_errors(depth_m[0], depth_m[1])
        MMLogger.get_current_instance().info(_table(values, classes))
        return values


def depth_errors(true_m: np.ndarray, predicted_m: np.ndarray) -> dict[str, float]:
    """Mean absolute and relative error of (n,) depths; left out where no depth is known."""
    known = true_m > _MIN_DEPTH_M
    if not known.any():
        return dict(num_depth=0)
    error_m = np.abs(predicted_m - true_m)[known]
    return dict(num_depth=int(known.sum()), depth_error_m=float(error_m.mean()),
                depth_error_rel=float((error_m / true_m[known]).mean()))


def _truth(labels: ImageLabels) -> ImageBoxes:
    return ImageBoxes(labels.boxes_px.double().numpy(), labels.labels.numpy(), labels.depth_m.double().numpy())


def _predictions(found: Any, num_classes: int, sample: str) -> ImageBoxes:
    """One camera's predictions on the CPU, checked."""
    boxes, labels, depth_m, scores = (
        getattr(found, name).detach().cpu().numpy() for name in ('bboxes', 'labels', 'depth_m', 'scores'))
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError(f'{sample}: 2-D predictions hold NaN or infinite boxes or scores; mend the model')
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f'{sample}: labels of 2-D predictions must be 0 to {num_classes - 1}, got {labels.min()} to '
                         f'{labels.max()}; the model and dataset_meta.classes must agree')
    return ImageBoxes(boxes.astype(np.float64).reshape(-1, 4), labels.astype(np.int64), depth_m.astype(np.float64),
                      scores.astype(np.float64))


def _table(values: Mapping[str, float], classes: Sequence[str]) -> str:
    lines = [f'{name:<21}{values[f"AP_{name}"]:>7.3f}' for name in classes if f'AP_{name}' in values]
    depth = f'{values["depth_error_m"]:.2f} m ({values["depth_error_rel"]:.1%})' if values['num_depth'] else '-'
    lines.append(f'mAP: {values["mAP"]:.4f}  AP50: {values["AP50"]:.4f}  AP75: {values["AP75"]:.4f}  depth error: {depth}')
    return '2-D detection score\n' + '\n'.join(lines)
