"""Data transform. In: label files of the camera images. Out: `img_labels`, ImageLabels of each camera in raw pixels.

`labels_to_network` moves them to network pixels when a frame is packed.
"""

from __future__ import annotations

import json
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

from projects.geometry.distortion import MODELS
from projects.geometry.projection import apply_homography
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.structures.image_labels import IGNORED, ImageLabels, semantic_classes

from ..errors import BadFrameError, DataError
from ..image_files import Image

LABELS_KEY = 'img_labels'
_REMEDY = ('make the data set with `python tools/create_synthetic_nuscenes.py --camera-labels`; real nuScenes has no such '
           'labels: use ProjectImageBoxes and ProjectLidarsegLabels')


@TRANSFORMS.register_module()
class LoadImageLabels(BaseTransform):
    """Reads pixel classes and 2-D boxes that the synthetic generator writes with `--camera-labels`.

    Stands anywhere after LoadMultiViewImages (it needs `calibration` and the images' paths) and before packing; not together
    with an undistortion, because the labels are those of the images as they were written: that is an error.

    Args:
        classes: detection classes in the order of the labels. Boxes of others are left out, their pixels ignored.
        folder: where the labels are, with a folder per camera; None is `camera_labels` beside the images' `samples`.

    Raises:
        BadFrameError: from `transform`, naming a file that is missing or does not fit its image.
        DataError: naming a class that the labels do not know.
    """

    def __init__(self, classes: Sequence[str], folder: str | None = None) -> None:
        self.classes = tuple(classes)
        self.folder = folder
        self._ids: dict[Path, np.ndarray] = {}

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `img_labels`: one ImageLabels for each camera of `calibration`, None for a camera that is missing."""
        calibration = calibration_of(results, type(self).__name__)
        labels: list[ImageLabels | None] = []
        for index, name in enumerate(calibration.cam_names):
            valid = bool(calibration.cam_valid[0, index])
            labels.append(self._load(Path(results['images'][name]['img_path']), calibration, index) if valid else None)
        results[LABELS_KEY] = labels
        return results

    def _load(self, image: Path, calibration: Calibration, index: int) -> ImageLabels:
        """The labels of one image."""
        root = image.parents[2] / 'camera_labels' if self.folder is None else Path(self.folder)
        path = root / image.parent.name / f'{image.stem}.json'
        content = _read_json(path)
        lens, expected = content['lens'], MODELS[int(calibration.distortion_model[0, index])]
        if lens != expected:
            raise BadFrameError(str(path), f'labels a {lens} image, but {calibration.cam_names[index]} is {expected} by now',
                                'labels cannot be undistorted: leave undistortion out, or the labels')
        ids = cv2.imread(str(path.with_suffix('.png')), cv2.IMREAD_UNCHANGED)
        size = tuple(calibration.img_hw_raw[0, index].tolist())
        if ids is None or ids.dtype != np.uint8 or ids.shape != size:
            found = 'is missing or no PNG' if ids is None else f'is {ids.shape} {ids.dtype}'
            raise BadFrameError(str(path.with_suffix('.png')), f'{found}, its image is {size}', _REMEDY)
        boxes = [box for box in content['boxes'] if box['class'] in self.classes]
        return ImageLabels(
            boxes_px=torch.tensor([box['box_px'] for box in boxes], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([self.classes.index(box['class']) for box in boxes], dtype=torch.long),
            depth_m=torch.tensor([box['depth_m'] for box in boxes], dtype=torch.float32),
            sem_seg=torch.from_numpy(self._own_ids(root)[ids]), lens_model=MODELS.index(lens))

    def _own_ids(self, root: Path) -> np.ndarray:
        """(256,) uint8: the file's ids to ours; read once for each folder."""
        if root not in self._ids:
            path = root / 'classes.json'
            names = _read_json(path)['classes']
            unknown = [name for name in self.classes if name not in names]
            if unknown:
                raise DataError(f'{path} has no class {unknown[0]!r} of LoadImageLabels.classes; it has {names}')
            own = semantic_classes(self.classes)
            table = np.full(256, IGNORED, dtype=np.uint8)
            for position, name in enumerate(names):
                table[position] = own.index(name) if name in own else IGNORED
            self._ids[root] = table
        return self._ids[root]


def calibration_of(results: Mapping[str, Any], who: str) -> Calibration:
    """The frame's Calibration (B is 1); DataError where no images were loaded before, or the frame is packed already."""
    return _loaded(results, 'calibration', who)


def images_of(results: Mapping[str, Any], who: str) -> list[Image]:
    """The frame's images; DataError as in calibration_of."""
    return list(_loaded(results, 'img', who))


def _loaded(results: Mapping[str, Any], key: str, who: str) -> Any:
    if key in results:
        return results[key]
    if 'inputs' in results:
        raise DataError(f'{who} must come before PackClipFrame in the pipeline: the frame is packed already')
    what = dict(calibration='the calibration', img='the images')[key]
    raise DataError(f'{who} needs {what}: put LoadMultiViewImages before it in the pipeline')


def require_raw_images(results: Mapping[str, Any], who: str, cameras: Tensor) -> None:
    """DataError naming the camera unless the images of `cameras` (N,) bool have the pixels that were loaded."""
    calibration = calibration_of(results, who)
    changed = (calibration.img_aug[0] != torch.eye(4)).flatten(1).any(1) & calibration.cam_valid[0] & cameras
    for camera in changed.nonzero()[:1, 0].tolist():
        raise DataError(f'{who} must come right after LoadMultiViewImages in the pipeline, but the image of '
                        f'{calibration.cam_names[camera]} was resized, cropped, flipped or turned before')


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadFrameError(str(path), 'does not exist', _REMEDY) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadFrameError(str(path), 'is damaged', _REMEDY) from error


def labels_to_network(
    labels: Sequence[ImageLabels | None], calibration: Calibration, min_size_px: float = 2.0
) -> tuple[ImageLabels, ...]:
    """Labels in raw pixels to network pixels.

    Args:
        labels: one for each camera of `calibration`, in its order; None where it is missing.
        calibration: of the packed frame, B is 1; read are img_aug, img_hw, cam_valid and distortion_model.
        min_size_px: boxes narrower or lower than this after clipping, in network pixels, are dropped.

    Returns:
        N labels. Boxes are those around the moved corners, clipped to the network image. Semantic ids are those of the
        nearest raw pixel, (img_hw), IGNORED where the raw image does not reach. A camera that is not valid has no boxes, and
        only ignored pixels where any other camera has pixels.

    Raises:
        ValueError: naming the camera, where labels and calibration have different cameras or lenses.
    """
    names = calibration.cam_names
    if len(labels) != len(names):
        raise ValueError(f'{len(labels)} image labels for the cameras {list(names)}: give one for each, in their order')
    has_pixels = any(one is not None and one.sem_seg is not None for one in labels)
    moved = []
    for index, one in enumerate(labels):
        hw = tuple(calibration.img_hw[0, index].tolist())
        if one is None or not calibration.cam_valid[0, index]:
            moved.append(ImageLabels.empty(torch.full(hw, IGNORED, dtype=torch.uint8) if has_pixels else None))
            continue
        lens = int(calibration.distortion_model[0, index])
        if lens != one.lens_model:
            raise ValueError(f'camera {names[index]}: the labels are of a {MODELS[one.lens_model]} image, the image is '
                             f'{MODELS[lens]} by now; labels cannot be undistorted, leave the undistortion or them out')
        moved.append(_move(one, calibration.img_aug[0, index].double(), hw, min_size_px))
    return tuple(moved)


def _move(one: ImageLabels, img_aug: Tensor, hw: tuple[int, ...], min_size_px: float) -> ImageLabels:
    """One camera's labels by a (4, 4) float64 padded homography into an image of height and width `hw`."""
    corners = one.boxes_px.double()[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    corners = apply_homography(img_aug, corners)
    limit = torch.tensor([hw[1], hw[0]], dtype=torch.float64) - 0.5
    low, high = (torch.minimum(edge.clamp(min=-0.5), limit) for edge in (corners.amin(1), corners.amax(1)))
    keep = ((high - low) >= min_size_px).all(-1)
    sem_seg = one.sem_seg
    if sem_seg is not None:
        raw_from_net = np.linalg.inv(img_aug[:3, :3].numpy())
        sem_seg = torch.from_numpy(cv2.warpPerspective(
            sem_seg.numpy(), raw_from_net, (hw[1], hw[0]), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORED))
    return replace(one, boxes_px=torch.cat([low, high], dim=-1)[keep].float(), labels=one.labels[keep],
                   depth_m=one.depth_m[keep], sem_seg=sem_seg)
