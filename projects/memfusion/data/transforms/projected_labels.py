"""Data transform. In: 3-D boxes or LiDAR points with classes. Out: `img_labels` in raw pixels, for data without camera labels.

Both ignore the injected calibration error: labels are the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from torch import Tensor

from projects.geometry.projection import MIN_DEPTH_M, clip_segments, whole_window
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.structures.image_labels import IGNORED, ImageLabels, semantic_classes

from ..errors import BadFrameError, DataError
from ..point_files import PointFiles, ReadOptions
from .image_labels import LABELS_KEY, calibration_of

# Corner pairs of mmdet3d's boxes: bottom and top faces, then the uprights.
_EDGES = ((0, 3), (3, 7), (7, 4), (4, 0), (1, 2), (2, 6), (6, 5), (5, 1), (0, 1), (3, 2), (7, 6), (4, 5))
LIDARSEG_CLASSES: tuple[str | None, ...] = (
    None, None, 'pedestrian', 'pedestrian', 'pedestrian', None, 'pedestrian', None, None, 'barrier', None, None,
    'traffic_cone', None, 'bicycle', 'bus', 'bus', 'car', 'construction_vehicle', None, None, 'motorcycle', 'trailer', 'truck',
    'ground', 'ground', 'ground', 'ground', 'static', None, 'static', None,
)
"""What each of nuScenes-lidarseg's 32 categories is here; None is ignored, as in its 16-class challenge."""


def true_calibration(results: dict[str, Any], who: str) -> Calibration:
    """The frame's calibration to raw pixels, without injected error, from the frame in which points and boxes are now."""
    calibration = calibration_of(results, who)
    bev_aug = torch.as_tensor(results.get('bev_aug', np.eye(4)), dtype=torch.float32)[None]
    eye = torch.eye(4).expand_as(calibration.img_aug)
    return replace(calibration, img_aug=eye, img_hw=calibration.img_hw_raw, seen_px=whole_window(calibration.img_hw_raw),
                   calib_noise=eye, bev_aug=bev_aug)


def merge_labels(results: dict[str, Any], calibration: Calibration, labels: Sequence[ImageLabels], boxes: bool) -> None:
    """Writes boxes (or pixels) into `img_labels`, keeping the pixels (or boxes) that another transform wrote."""
    merged: list[ImageLabels | None] = []
    for index, (new, old) in enumerate(zip(labels, results.get(LABELS_KEY) or [None] * len(labels), strict=True)):
        if not calibration.cam_valid[0, index]:
            merged.append(None)
        elif old is None:
            merged.append(new)
        else:
            merged.append(replace(new, sem_seg=old.sem_seg) if boxes else replace(old, sem_seg=new.sem_seg))
    results[LABELS_KEY] = merged


@TRANSFORMS.register_module()
class ProjectImageBoxes(BaseTransform):
    """2-D boxes around the 3-D boxes as each camera sees them: whole objects, whether something hides them or not.

    A box's edges are cut at the camera's plane and projected; the 2-D box is that around the part of their convex hull inside
    the image (the idea of the devkit's export of 2-D annotations, which leaves out corners behind the camera instead). Under
    lens distortion hull edges are straight lines between projected corners.

    Stands after LoadMultiViewImages and LoadAnnotations3D and before transforms that drop boxes. Reads `gt_bboxes_3d` and
    `gt_labels_3d`, in testing those of `eval_ann_info`, in the frame that `bev_aug` says.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds boxes to `img_labels`."""
        calibration = true_calibration(results, type(self).__name__)
        source = results if 'gt_bboxes_3d' in results else results.get('eval_ann_info')
        if source is None:
            raise DataError('ProjectImageBoxes found no boxes: put LoadAnnotations3D before it in the pipeline')
        _require_all_boxes(source, results.get('ann_info'))
        classes = torch.as_tensor(np.asarray(source['gt_labels_3d']), dtype=torch.long)
        boxes = source['gt_bboxes_3d'][classes >= 0]
        classes = classes[classes >= 0]
        hulls_px, has_pixel, depth_m = _project_edges(calibration, boxes.corners, boxes.gravity_center)
        labels = []
        for index in range(len(calibration.cam_names)):
            hw = calibration.img_hw_raw[0, index].tolist()
            found = [_box_in_image(hulls_px[index, row][has_pixel[index, row]].numpy(), hw) for row in range(len(classes))]
            keep = torch.tensor([box is not None for box in found], dtype=torch.bool)
            kept = torch.tensor([box for box in found if box is not None], dtype=torch.float32).reshape(-1, 4)
            labels.append(ImageLabels(kept, classes[keep], depth_m[index][keep],
                                      lens_model=int(calibration.distortion_model[0, index])))
        merge_labels(results, calibration, labels, boxes=True)
        return results


def _require_all_boxes(loaded: Mapping[str, Any], annotated: Mapping[str, Any] | None) -> None:
    """DataError where boxes of known classes were dropped since they were loaded."""
    counts = [int((np.asarray(part['gt_labels_3d']) >= 0).sum()) for part in (loaded, annotated or loaded)]
    if counts[0] < counts[1]:
        raise DataError(f'ProjectImageBoxes must come before ObjectRangeFilter (or what else drops boxes) in the pipeline: '
                        f'{counts[1] - counts[0]} of {counts[1]} boxes are gone, but not from the images')


def _project_edges(calibration: Calibration, corners_m: Tensor, center_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ends of the edges of (M, 8, 3) corners in raw pixels (N, M, 24, 2), which have a pixel (N, M, 24), depth (N, M)."""
    cameras, count = len(calibration.cam_names), len(corners_m)
    cam_m = calibration.to_cam(corners_m.reshape(1, -1, 3))[0].reshape(cameras, count, 8, 3)
    first, second = zip(*_EDGES)
    # A bit farther than the nearest depth that has a pixel, so that rounding cannot take the cut ends away.
    start_m, end_m, keep = clip_segments(cam_m[:, :, list(first)], cam_m[:, :, list(second)], 1.1 * MIN_DEPTH_M)
    ends_m = torch.cat([start_m, end_m], dim=2)
    uv_px, _, has_pixel = calibration.project_cam(ends_m.flatten(1, 2)[None])
    has_pixel = has_pixel.reshape(ends_m.shape[:-1]) & keep.repeat(1, 1, 2)
    depth_m = calibration.to_cam(center_m[None])[0, ..., 2]
    return uv_px.reshape(*ends_m.shape[:-1], 2), has_pixel, depth_m


def _box_in_image(points_px: np.ndarray, hw: Sequence[int]) -> list[float] | None:
    """x1, y1, x2, y2 around the part of the points' hull inside the image; None where there is none."""
    if len(points_px) < 3:
        return None
    right, bottom = hw[1] - 0.5, hw[0] - 0.5
    image = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], dtype=np.float32)
    hull = cv2.convexHull(points_px.astype(np.float32))[:, 0]
    area, polygon = cv2.intersectConvexConvex(hull, image)
    if area <= 0:
        return None
    return [*polygon[:, 0].min(axis=0).tolist(), *polygon[:, 0].max(axis=0).tolist()]


@TRANSFORMS.register_module()
class ProjectLidarsegLabels(BaseTransform):
    """Sparse pixel classes from nuScenes-lidarseg: each LiDAR point labels the pixels around its own, the nearest point first.

    Pixels without a point are ignored. Points that the LiDAR sees and a camera does not (the two look from different places)
    label what hides them. Reads the point file itself, so it stands anywhere after LoadMultiViewImages.

    Args:
        classes: detection classes in the order of the labels.
        folder: where the label files are, e.g. `data/nuscenes/lidarseg/v1.0-trainval`; the info's
            `pts_semantic_mask_path` is a name in it.
        radius_px: how far a point's label reaches, in raw pixels: 1 labels 3 x 3, so that few are lost when the image is
            made smaller.
        load_dim: values per point in the point file.
        backend_args: MMEngine's file backend of the point file.
    """

    def __init__(self, classes: Sequence[str], folder: str, radius_px: int = 1, load_dim: int = 5,
                 backend_args: dict[str, Any] | None = None) -> None:
        if radius_px < 0:
            raise ValueError(f'radius_px must be 0 or more, got {radius_px}')
        self.folder, self.radius_px = Path(folder), radius_px
        own = semantic_classes(classes)
        self._ids = np.array([own.index(name) if name in own else IGNORED for name in LIDARSEG_CLASSES], dtype=np.uint8)
        self._options = ReadOptions(load_dim, 'error', backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds pixels to `img_labels`."""
        calibration = replace(true_calibration(results, type(self).__name__), bev_aug=torch.eye(4)[None])
        files = results.get('point_files') or PointFiles()
        points = files.points(results['lidar_points'], self._options)[0][:, :3]
        ids = self._read(results, len(points))
        known = ids != IGNORED
        uv_px, depth_m, valid = calibration.project(torch.from_numpy(points[known])[None])
        labels = []
        for index in range(len(calibration.cam_names)):
            seen = valid[0, index].numpy()
            pixels = np.rint(uv_px[0, index].numpy()[seen]).astype(np.int64)
            sem_seg = self._draw(pixels, depth_m[0, index].numpy()[seen], ids[known][seen],
                                 calibration.img_hw_raw[0, index].tolist())
            lens = int(calibration.distortion_model[0, index])
            labels.append(ImageLabels.empty(torch.from_numpy(sem_seg), lens))
        merge_labels(results, calibration, labels, boxes=False)
        return results

    def _read(self, results: dict[str, Any], num_points: int) -> np.ndarray:
        """(num_points,) uint8 own ids."""
        name = results.get('pts_semantic_mask_path')
        if name is None:
            raise DataError(f'the info of sample {results.get("token")} has no pts_semantic_mask_path: unpack '
                            'nuScenes-lidarseg into the data set and make the infos again with tools/create_data.py')
        path = self.folder / Path(name).name
        if not path.is_file():
            raise BadFrameError(str(path), 'does not exist', 'check ProjectLidarsegLabels.folder')
        categories = np.fromfile(path, dtype=np.uint8)
        if len(categories) != num_points or (len(categories) and categories.max() >= len(self._ids)):
            raise BadFrameError(str(path), f'has {len(categories)} labels up to {categories.max(initial=0)} for {num_points} '
                                f'points and {len(self._ids)} categories', 'copy it again')
        return self._ids[categories]

    def _draw(self, pixels: np.ndarray, depth_m: np.ndarray, ids: np.ndarray, hw: Sequence[int]) -> np.ndarray:
        """(h, w) uint8 with a square for each point; far points are drawn first."""
        radius = self.radius_px
        canvas = np.full((hw[0] + 2 * radius, hw[1] + 2 * radius), IGNORED, dtype=np.uint8)
        offsets = np.stack(np.meshgrid(*[np.arange(2 * radius + 1)] * 2, indexing='ij'), axis=-1).reshape(-1, 2)
        order = np.argsort(-depth_m, kind='stable')
        spots = pixels[order][:, None] + offsets  # numpy keeps the last of the values written to one place
        canvas[spots[..., 1], spots[..., 0]] = ids[order][:, None]
        return canvas[radius:canvas.shape[0] - radius, radius:canvas.shape[1] - radius].copy()
