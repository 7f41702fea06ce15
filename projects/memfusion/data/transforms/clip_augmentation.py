"""Data transform. In: one frame of a clip (points, boxes or neither, raw LiDAR frame). Out: it in the augmented LiDAR frame.

All frames of a clip get the same flip, rotation, scale and translation: the draw depends on `results['clip_seed']` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .clip_alignment import move_points
from .multiview_augmentation import check_range


@TRANSFORMS.register_module()
class ClipBEVAugmentation(BaseTransform):
    """Global augmentation of a clip, in mmdet3d's terms and order: flip, rotate, scale, translate.

    Args:
        rot_range: yaw range in radians, counter-clockwise.
        scale_ratio_range: range of the scale.
        translation_std: standard deviations along x, y, z in metres.
        flip_ratio_bev_horizontal: probability of mirroring y (y -> -y).
        flip_ratio_bev_vertical: probability of mirroring x (x -> -x).

    Reads `points` and `gt_bboxes_3d` (where there are any) and `clip_seed`; writes `bev_aug`, (4, 4) float64, raw LiDAR frame
    to augmented LiDAR frame. Velocities are flipped, rotated and scaled with the boxes.
    """

    def __init__(
        self,
        rot_range: tuple[float, float] = (-0.3925, 0.3925),
        scale_ratio_range: tuple[float, float] = (0.95, 1.05),
        translation_std: Sequence[float] = (0.0, 0.0, 0.0),
        flip_ratio_bev_horizontal: float = 0.5,
        flip_ratio_bev_vertical: float = 0.5,
    ) -> None:
        check_range('rot_range', rot_range)
        check_range('scale_ratio_range', scale_ratio_range)
        self.rot_range, self.scale_ratio_range = rot_range, scale_ratio_range
        self.translation_std = translation_std
        self.flip_ratio_bev_horizontal = flip_ratio_bev_horizontal
        self.flip_ratio_bev_vertical = flip_ratio_bev_vertical

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Applies the clip's draw to this frame."""
        rng = np.random.default_rng(results['clip_seed'])
        angle = rng.uniform(self.rot_range[0], self.rot_range[1])
        scale = rng.uniform(self.scale_ratio_range[0], self.scale_ratio_range[1])
        translation = rng.normal(scale=self.translation_std, size=3)
        flip_y = rng.random() < self.flip_ratio_bev_horizontal
        flip_x = rng.random() < self.flip_ratio_bev_vertical

        flip = np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0])
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        bev_aug = np.eye(4)
        bev_aug[:3, :3] = scale * rotation @ flip
        bev_aug[:3, 3] = translation

        if 'points' in results:
            move_points(results['points'].tensor, bev_aug)
        if 'gt_bboxes_3d' in results:
            boxes = results['gt_bboxes_3d']
            if flip_y:
                boxes.flip('horizontal')
            if flip_x:
                boxes.flip('vertical')
            boxes.rotate(float(angle))
            boxes.scale(float(scale))
            boxes.translate(boxes.tensor.new_tensor(translation))
        results['bev_aug'] = bev_aug @ results['bev_aug']
        return results
