"""Doctor. In: one frame's points, annotated boxes. Out: how many box points fall into the 2-D box; how edges move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from projects.memfusion.structures.calibration import Calibration

from .lidar_edges import LidarEdges

_MIN_POINTS = 5
_DEPTH_M = 0.5  # a 2-D box is of the 3-D box whose centre has its depth
_SLACK_PX = 2.0
_AROUND_M = 0.3  # edges may lie this far outside their box, and half a ray


def points_in_2d_boxes(info: Mapping[str, Any], points: npt.NDArray[np.float32], calibration: Calibration) -> tuple[int, int]:
    """LiDAR points of boxes, inside their 2-D box and all of them.

    Args:
        info: with `instances`, and `cam_instances[camera]` (2-D boxes in raw pixels); without either there are none.
        points: (P, 3+) LiDAR frame.
        calibration: of one camera, B = N = 1.
    """
    camera = calibration.cam_names[0]
    seen = [found for found in info.get('cam_instances', {}).get(camera, ()) if 'bbox' in found and 'depth' in found]
    boxes = [box for box in info.get('instances', ()) if box.get('num_lidar_pts', 0) >= _MIN_POINTS]
    if not seen or not boxes:
        return 0, 0
    centers = torch.tensor([[box['bbox_3d'][:3] for box in boxes]], dtype=torch.float32)
    depth_m = calibration.to_cam(centers)[0, 0, :, 2].numpy()
    num_inside = num_all = 0
    for found in seen:
        matches = [index for index, box in enumerate(boxes) if box['bbox_label'] == found['bbox_label']
                   and _same_size(box['bbox_3d'], found) and abs(depth_m[index] - found['depth']) < _DEPTH_M]
        if len(matches) != 1:  # none with enough points, or twins
            continue
        inside_3d = _points_inside(points[:, :3], np.asarray(boxes[matches[0]]['bbox_3d'], dtype=np.float64))
        uv_px, _, valid = (value[0, 0].numpy() for value in calibration.project(torch.from_numpy(inside_3d)[None]))
        left, top, right, bottom = found['bbox']
        slack = _SLACK_PX * float(calibration.img_hw_raw[0, 0, 1]) / 800
        within = (uv_px > [left - slack, top - slack]).all(axis=1) & (uv_px < [right + slack, bottom + slack]).all(axis=1)
        num_inside += int((within & valid).sum())
        num_all += int(valid.sum())
    return num_inside, num_all


def move_with_boxes(edges: LidarEdges, info: Mapping[str, Any], step_deg: float) -> LidarEdges:
    """Gives edges on annotated boxes the velocity of their box.

    Args:
        info: with `instances`; without there are none.
        step_deg: between rays.
    """
    velocity = edges.velocity_m_s.copy()
    around_m = _AROUND_M + np.radians(step_deg) / 2 * np.linalg.norm(edges.points_m, axis=1)
    for box in info.get('instances', ()):
        flat = np.asarray(box.get('velocity', (0.0, 0.0)), dtype=np.float64)
        if np.isfinite(flat).all() and flat.any():  # NaN is unknown: it moves no edge
            velocity[_is_inside(edges.points_m, np.asarray(box['bbox_3d'], dtype=np.float64), around_m)] = [*flat, 0.0]
    return replace(edges, velocity_m_s=velocity)


def _same_size(box: Any, found: Mapping[str, Any]) -> bool:
    return 'bbox_3d' in found and np.allclose(sorted(box[3:6]), sorted(found['bbox_3d'][3:6]), atol=1e-3)


def _points_inside(points: npt.NDArray[np.float32], box: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Points in a (7,) box: gravity centre, length, width, height, yaw."""
    return np.asarray(points[_is_inside(points, box, 0.0)], dtype=np.float32)


def _is_inside(points: npt.NDArray[Any], box: npt.NDArray[np.float64], around_m: Any) -> npt.NDArray[np.bool_]:
    # Not mmdet3d's points_in_rbbox: it knows no margin of each point's own, and the doctor runs without mmcv's compiled ops.
    offset = points - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    turned = np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]])
    return np.asarray((np.abs(turned) < box[3:6, None] / 2 + around_m).all(axis=0))
