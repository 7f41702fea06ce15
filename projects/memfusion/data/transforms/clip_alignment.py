"""Data transform. In: points and boxes of a clip's frame, own LiDAR frame. Out: the same in the last frame's LiDAR frame.

Inert for frames whose data set does not ask for it (no `clip_end_from_lidar` in the results).
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes
from torch import Tensor

from ..poses import Pose


def move_points(points: Tensor, dst_from_src: Pose) -> None:
    """Moves the x, y, z of (N, 3 + features) float32 points, in place; the matrix may mirror and scale."""
    matrix = torch.from_numpy(dst_from_src).to(points.dtype)
    moved = torch.mm(points[:, :3], matrix[:3, :3].T)
    torch.add(moved, matrix[:3, 3], out=points[:, :3])


def move_boxes(boxes: LiDARInstance3DBoxes, dst_from_src: Pose) -> None:
    """Moves upright boxes and their velocities by a rigid matrix, in place.

    The centre goes through the whole matrix. Boxes and velocities stay level in the new frame: what a slope between the two
    frames would tilt them by is dropped, as nuScenes' own annotations in LiDAR frames drop it.
    """
    tensor = boxes.tensor
    half_height = tensor[:, 5].double() / 2
    rotation = torch.from_numpy(dst_from_src[:3, :3])
    center = boxes.gravity_center.double() @ rotation.T + torch.from_numpy(dst_from_src[:3, 3])
    center[:, 2] -= half_height  # mmdet3d keeps the middle of the bottom face
    tensor[:, :3] = center.to(tensor.dtype)
    yaw = tensor[:, 6].double()
    heading = torch.stack([yaw.cos(), yaw.sin()], dim=1) @ rotation[:2, :2].T
    tensor[:, 6] = torch.atan2(heading[:, 1], heading[:, 0]).to(tensor.dtype)
    if tensor.shape[1] >= 9:
        tensor[:, 7:9] = (tensor[:, 7:9].double() @ rotation[:2, :2].T).to(tensor.dtype)


@TRANSFORMS.register_module()
class AlignToClipEnd(BaseTransform):
    """Moves a frame into the LiDAR coordinates of the clip's last frame, where the data set says `align='loader'`.

    Stands after the loaders and before augmentation and range filters. Reads `clip_end_from_lidar` (4, 4) float64, rigid;
    moves `points`, `gt_bboxes_3d` and the boxes of `eval_ann_info`, where there are any; multiplies `bev_aug` (raw LiDAR frame
    to the frame of points and boxes) from the left. `global_from_lidar` stays the frame's own.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Moves one frame."""
        clip_end_from_lidar = results.get('clip_end_from_lidar')
        if clip_end_from_lidar is None:
            return results
        if 'points' in results:
            move_points(results['points'].tensor, clip_end_from_lidar)
        if 'gt_bboxes_3d' in results:
            move_boxes(results['gt_bboxes_3d'], clip_end_from_lidar)
        if 'eval_ann_info' in results:
            move_boxes(results['eval_ann_info']['gt_bboxes_3d'], clip_end_from_lidar)
        results['bev_aug'] = clip_end_from_lidar @ results['bev_aug']
        return results
