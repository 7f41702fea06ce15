"""Pictures. In: boxes as mmdet3d has them (bottom centre, LiDAR frame, metres). Out: numpy, and corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
"""Corner pairs of a box's twelve edges."""


@dataclass
class BoxSet:
    """N boxes to draw.

    Args:
        boxes: (N, 7+) x, y, z of the bottom centre, length, width, height in metres, yaw in radians
            (counter-clockwise, 0 along +x): mmdet3d's LiDARInstance3DBoxes, a tensor or an array.
        labels: (N,) class numbers, or None.
        scores: (N,) in 0..1, or None.
        seen: (N,) in 0..1, how sure it is that the box is seen now, or None.

    Raises:
        ValueError: where the shapes do not go together.
    """

    boxes: Any
    labels: Any = None
    scores: Any = None
    seen: Any = None

    def __post_init__(self) -> None:
        self.boxes = _array(self.boxes).astype(np.float64)
        if self.boxes.size == 0:
            self.boxes = self.boxes.reshape(0, 7)
        if self.boxes.ndim != 2 or self.boxes.shape[1] < 7:
            raise ValueError(f'boxes must be (N, 7 or more), got {self.boxes.shape}')
        self.labels = None if self.labels is None else _array(self.labels).astype(np.int64)
        self.scores = None if self.scores is None else _array(self.scores).astype(np.float64)
        self.seen = None if self.seen is None else _array(self.seen).astype(np.float64)
        for name in ('labels', 'scores', 'seen'):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.boxes),):
                raise ValueError(f'{name} must be ({len(self.boxes)},), one per box, got {values.shape}')

    @classmethod
    def from_instances(cls, instances: Any) -> BoxSet:
        """From mmdet3d's InstanceData (truth or predictions) or ann_info dict (gt_bboxes_3d, gt_labels_3d)."""
        if isinstance(instances, dict):
            return cls(instances['gt_bboxes_3d'], instances['gt_labels_3d'])
        return cls(instances.bboxes_3d, instances.labels_3d, instances.get('scores_3d'), instances.get('seen_3d'))

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, mask: np.ndarray) -> BoxSet:
        """The boxes where `mask` (N,) bool is True."""
        rest = (None if values is None else values[mask] for values in (self.labels, self.scores, self.seen))
        return BoxSet(self.boxes[mask], *rest)

    def above(self, score_thr: float) -> BoxSet:
        """The boxes that score at least `score_thr`; all of them where there are no scores."""
        return self if self.scores is None else self.keep(self.scores >= score_thr)

    @property
    def corners_m(self) -> np.ndarray:
        """(N, 8, 3): front left, back left, back right, front right of the bottom, then of the top."""
        length, width, height = self.boxes[:, 3], self.boxes[:, 4], self.boxes[:, 5]
        along = np.stack([length, -length, -length, length] * 2, axis=1) / 2
        across = np.stack([width, width, -width, -width] * 2, axis=1) / 2
        up = np.stack([0 * height] * 4 + [height] * 4, axis=1)
        return self._place(along, across, up)

    def heading_m(self, at_height: float = 0.0) -> np.ndarray:
        """(N, 2, 3): centre and middle of the front edge, at this share of the box's height."""
        length, height = self.boxes[:, 3], self.boxes[:, 5]
        along = np.stack([0 * length, length / 2], axis=1)
        up = np.stack([at_height * height] * 2, axis=1)
        return self._place(along, 0 * along, up)

    def _place(self, along: np.ndarray, across: np.ndarray, up: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(self.boxes[:, 6:7]), np.sin(self.boxes[:, 6:7])
        offset = np.stack([along * cos - across * sin, along * sin + across * cos, up], axis=-1)
        return self.boxes[:, None, :3] + offset


def _array(values: Any) -> np.ndarray:
    """Tensor, mmdet3d boxes or sequence -> numpy, on the CPU."""
    values = getattr(values, 'tensor', values)
    return np.asarray(values.detach().cpu() if hasattr(values, 'detach') else values)
