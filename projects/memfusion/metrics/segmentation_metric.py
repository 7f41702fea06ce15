"""Metrics. In: classes of camera pixels, or probabilities of BEV cells. Out: IoU of each class and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.evaluation.functional.seg_eval import fast_hist
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger
from torch import Tensor

from projects.geometry import BEVGrid, rasterize_boxes
from projects.memfusion.structures.image_labels import IGNORED, semantic_classes

from .box_tables import Floats, Ints
from .nuscenes_metric import OrderedMetric
from .sample_fields import describe, is_dropped, read_field, read_labels


class IoUMetric(OrderedMetric):
    """Base: sums each sample's counts and gives 'IoU_{name}' and 'mIoU'. The same for any number of processes.

    Subclasses keep, in `process`, `counts` (K, 3) of each sample: cells or pixels of both, of the prediction, of the truth.
    Where nothing at all is labelled there is no score, and a warning with their `remedy`: where their labels come from.
    """

    remedy: str

    def names(self) -> Sequence[str]:
        """K names."""
        raise NotImplementedError

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results.

        Args:
            results: one per sample of the data set, in its order.
        """
        counts = np.stack([result['counts'] for result in results]).sum(axis=0)
        if not counts[:, 2].any():
            MMLogger.get_current_instance().warning(f'{self.prefix}: nothing is labelled, so there is no score ({self.remedy})')
            return {}
        iou = intersection_over_union(counts)
        values = {f'IoU_{name}': float(value) for name, value in zip(self.names(), iou, strict=True) if not np.isnan(value)}
        values['mIoU'] = float(np.nanmean(iou))
        lines = [f'{name.removeprefix("IoU_"):<21}{value:>7.3f}' for name, value in values.items()]
        MMLogger.get_current_instance().info(f'{self.prefix} score\n' + '\n'.join(lines))
        return values


def intersection_over_union(counts: Ints) -> Floats:
    """(K, 3) counts of both, prediction, truth -> (K,) IoU, NaN where a class is in neither."""
    both, predicted, true = counts.T
    union = predicted + true - both
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


@METRICS.register_module()
class ImageSegMetric(IoUMetric):
    """IoU of the semantic classes over the labelled pixels of all cameras, at network size.

    Metric names, with the default prefix: 'image_seg/mIoU', 'image_seg/IoU_{class}' for the classes of the data set and
    'ground', 'static', 'sky'; a class that is neither in truth nor predicted is left out.

    Args:
        prefix: of the metric names.
        collect_device: where ranks exchange results: 'cpu' or 'gpu'; both exchange pickled objects.
    """

    remedy = 'are all cameras masked? pixel labels come from LoadImageLabels or ProjectLidarsegLabels in the test pipeline'

    def __init__(self, prefix: str = 'image_seg', collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def names(self) -> Sequence[str]:
        """The semantic classes."""
        return semantic_classes(self.dataset_meta['classes'])

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts each sample's pixels.

        Args:
            data_batch: not used.
            data_samples: dicts with `gt_img_labels` (N ImageLabels; one without sem_seg counts nothing), `pred_img_sem_seg`
                (N, H, W) uint8, at least as large as each camera's truth, which is its upper left part, and `sample_idx`.

        Raises:
            ValueError: naming the sample, where they are missing or wrong.
        """
        for sample in data_samples:
            counts = np.zeros((len(self.names()), 3), dtype=np.int64)
            if not is_dropped(sample):
                predicted = read_field(sample, 'pred_img_sem_seg', 'the model needs a head for semantic segmentation, or take '
                                       'ImageSegMetric out').cpu().numpy()
                for camera, labels in enumerate(read_labels(sample)):
                    if labels.sem_seg is not None:  # a masked camera has no pixels to be right about
                        counts += count_pixels(predicted[camera], labels.sem_seg.numpy(), len(counts), describe(sample))
            self.results.append(dict(sample_idx=int(sample['sample_idx']), counts=counts))


def count_pixels(predicted: np.ndarray, truth: np.ndarray, num_classes: int, sample: str) -> Ints:
    """(num_classes, 3) labelled pixels of both, of the prediction and of the truth; a predicted 255 is a class of its own."""
    height, width = truth.shape
    predicted = predicted[:height, :width]
    wrong = (predicted >= num_classes) & (predicted != IGNORED)
    if predicted.shape != truth.shape or wrong.any():
        what = f'is {predicted.shape}, smaller than the truth {truth.shape}' if predicted.shape != truth.shape else (
            f'holds class {predicted[wrong][0]}, there are {num_classes}')
        raise ValueError(f'{sample}: pred_img_sem_seg {what}')
    nothing = num_classes
    hist = fast_hist(np.where(predicted == IGNORED, nothing, predicted).astype(np.int64).ravel(),
                     truth.astype(np.int64).ravel(), num_classes + 1)  # it leaves out truth beyond its classes: IGNORED
    return np.stack([hist.diagonal(), hist.sum(axis=0), hist.sum(axis=1)], axis=1)[:num_classes]


@METRICS.register_module()
class BEVSegMetric(IoUMetric):
    """IoU of BEV cells, for groups of classes; a cell is predicted where its probability is 0.5 or more.

    The truth is the ground area of the boxes of `eval_ann_info` (those that the data set keeps for scoring), drawn by
    geometry.rasterize_boxes. The threshold is fixed, other than in works that report the best one.

    Metric names, with the default prefix: 'bev_seg/mIoU', 'bev_seg/IoU_{group}'; a group that is neither in truth nor
    predicted is left out.

    Args:
        groups: the K channels of the prediction, name -> names of the classes in it, as in BEVSegHead.
        point_cloud_range: what the BEV covers, metres.
        prefix: of the metric names.
        field: of the samples, where the head's predictions are: its `field`.
        collect_device: where ranks exchange results: 'cpu' or 'gpu'; both exchange pickled objects.
    """

    remedy = 'the data set has no boxes'

    def __init__(self, groups: Mapping[str, Sequence[str]], point_cloud_range: Sequence[float], prefix: str = 'bev_seg',
                 field: str = 'pred_bev_seg', collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.field = field
        self.groups = {name: tuple(members) for name, members in groups.items()}
        self.point_cloud_range = tuple(float(value) for value in point_cloud_range)

    def names(self) -> Sequence[str]:
        """The groups."""
        return tuple(self.groups)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Counts each sample's cells.

        Args:
            data_batch: not used.
            data_samples: dicts with `field` (K, H, W) probabilities, `eval_ann_info` (gt_bboxes_3d, gt_labels_3d, in
                the frame of the prediction) and `sample_idx`.

        Raises:
            ValueError: naming the sample, where they are missing or wrong.
        """
        for sample in data_samples:
            counts = np.zeros((len(self.groups), 3), dtype=np.int64)
            if not is_dropped(sample):
                predicted = read_field(sample, self.field, f'the model needs a BEVSegHead with field={self.field!r}, or take '
                                       'BEVSegMetric out').cpu()
                if predicted.dim() != 3 or len(predicted) != len(self.groups):
                    raise ValueError(f'{describe(sample)}: {self.field} is {tuple(predicted.shape)}, BEVSegMetric.groups are '
                                     f'{list(self.groups)}: model and metric need the same groups')
                truth = self._truth(read_field(sample, 'eval_ann_info', 'the data set must be in test_mode'), predicted)
                found = predicted >= 0.5
                counts = torch.stack([one.flatten(1).sum(1) for one in (found & truth, found, truth)], dim=1).numpy()
            self.results.append(dict(sample_idx=int(sample['sample_idx']), counts=counts))

    def _truth(self, annotations: Mapping[str, Any], like: Tensor) -> Tensor:
        """(K, H, W) bool, the boxes of each group in `like`'s cells."""
        grid = BEVGrid.of_shape(self.point_cloud_range, like.shape[1:])
        classes = list(self.dataset_meta['classes'])
        labels = torch.as_tensor(np.asarray(annotations['gt_labels_3d']))
        boxes = annotations['gt_bboxes_3d'].tensor.cpu()
        masks = []
        for name, members in self.groups.items():
            unknown = [member for member in members if member not in classes]
            if unknown:
                raise ValueError(f'BEVSegMetric.groups[{name!r}]: no class {unknown[0]!r}; classes are {classes}')
            chosen = torch.isin(labels, torch.tensor([classes.index(member) for member in members]))
            masks.append(rasterize_boxes(boxes[chosen][:, :7], grid))
        return torch.stack(masks)
