"""Data transform. In: a frame's points and true boxes, augmented alike. Out: how many of its own points each box holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ..box_points_check import Counts, count_in_boxes
from ..errors import DataError
from ..point_files import TIME_COLUMN
from .multiview_loading import sample_name

NUM_POINTS_KEY = 'gt_num_points'


def count_own_points(points: Any, boxes: Any, time_column: int | None = TIME_COLUMN) -> Counts:
    """(K,) points of the frame itself in boxes (K, 7+) with bottom centres; points of earlier sweeps do not count.

    Args:
        points: (P, D) in the boxes' frame, numpy.
        time_column: of the lag; None: all points are the frame's own.
    """
    own = points if time_column is None else points[points[:, time_column] == 0]
    return count_in_boxes(own, np.asarray(boxes), from_bottom=True)


@TRANSFORMS.register_module()
class CountBoxPoints(BaseTransform):
    """Adds `gt_num_points` (K,) int64 to the frame's boxes: what tells a head which of them are seen now. Last before packing,
    since the filters of boxes do not know it.

    Args:
        time_column: of the points' lag after LoadLidarSweeps; None where no sweeps were added.

    Raises:
        DataError: naming the sample, where there are no points or no such column.
    """

    def __init__(self, time_column: int | None = TIME_COLUMN) -> None:
        self.time_column = time_column

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """As the class says."""
        points = results.get('points')
        if points is None or (self.time_column is not None and points.shape[1] <= self.time_column):
            had = 'no points' if points is None else f'points of {points.shape[1]} values'
            raise DataError(f'sample {sample_name(results)}: CountBoxPoints(time_column={self.time_column}) found {had}: put '
                            'it after the loaders of points, and give time_column=None where no sweeps are added')
        boxes = results['gt_bboxes_3d'].tensor.numpy()
        results[NUM_POINTS_KEY] = count_own_points(points.tensor.numpy(), boxes, self.time_column)
        return results
