"""Heads, anchors of a multi-head. In: each class's sizes, heights and yaws. Out: anchors (n, 7) in the LiDAR frame.

Boxes here have their centre's z; mmdet3d's have the bottom's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from projects.common.settings import read_settings


@dataclass(frozen=True)
class ClassAnchors:
    """The anchors of one class: every size at every yaw and height in every cell.

    Args:
        sizes_m: (length, width, height) each.
        bottom_heights_m: z of the anchors' undersides.
        pos_iou_thr: an anchor that overlaps a box of the class this much is positive.
        neg_iou_thr: one that overlaps none this much is background; those in between are ignored.
        rotations_rad: yaws.
        align_center: False spreads the anchors' centres from border to border of the range, as published; True puts them into
            the cells' centres.

    Raises:
        ValueError: naming the setting.
    """

    sizes_m: Sequence[Sequence[float]]
    bottom_heights_m: Sequence[float]
    pos_iou_thr: float
    neg_iou_thr: float
    rotations_rad: Sequence[float] = (0.0, 1.57)
    align_center: bool = False

    def __post_init__(self) -> None:
        if not self.sizes_m or any(len(size) != 3 or min(size) <= 0 for size in self.sizes_m):
            raise ValueError(f'sizes_m needs (length, width, height) above 0 each, got {self.sizes_m}')
        if not self.bottom_heights_m or not self.rotations_rad:
            raise ValueError('bottom_heights_m and rotations_rad need at least one number each')
        if not 0 <= self.neg_iou_thr <= self.pos_iou_thr <= 1:
            raise ValueError(f'0 <= neg_iou_thr <= pos_iou_thr <= 1 is needed, got {self.neg_iou_thr} and {self.pos_iou_thr}')

    @property
    def per_cell(self) -> int:
        """Anchors in a cell."""
        return len(self.sizes_m) * len(self.bottom_heights_m) * len(self.rotations_rad)

    def spread(self, point_cloud_range: Sequence[float], bev_shape: tuple[int, int]) -> Tensor:
        """(per_cell * H * W, 7): size outermost, then yaw, height, y, x; x, y, z of the centre, dx, dy, dz, yaw."""
        x_min, y_min, _, x_max, y_max, _ = (float(v) for v in point_cloud_range)
        kind = 'AlignedAnchor3DRangeGenerator' if self.align_center else 'Anchor3DRangeGenerator'
        layers = []
        for height in self.bottom_heights_m:
            reach = [x_min, y_min, float(height), x_max, y_max, float(height)]
            generator = TASK_UTILS.build(dict(
                type=kind, ranges=[reach], sizes=[[float(v) for v in size] for size in self.sizes_m],
                rotations=[float(v) for v in self.rotations_rad], reshape_out=False))
            layers.append(generator.grid_anchors([tuple(bev_shape)], device='cpu')[0])  # (1, H, W, sizes, yaws, 7)
        anchors = torch.stack(layers, dim=-2)[0].permute(2, 3, 4, 0, 1, 5).reshape(-1, 7).contiguous()
        anchors[:, 2] += anchors[:, 5] / 2
        return anchors


def read_anchors(table: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> list[ClassAnchors]:
    """The anchors of every class, in the order of `class_names`.

    Raises:
        ValueError: naming the class and the setting, where classes and anchors do not pair, or one is wrong.
    """
    if set(table) != set(class_names):
        raise ValueError(f'AnchorHeadMulti: the tasks hold the classes {sorted(class_names)}, but anchors has entries for '
                         f'{sorted(table)}: give every class of the tasks its anchors, and no other')
    return [read_settings(ClassAnchors, table[name], f'AnchorHeadMulti.anchors[{name!r}]') for name in class_names]
