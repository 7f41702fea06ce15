"""Data transform. In: one finished frame. Out: `inputs` and a Det3DDataSample that knows its scene, time and pose.

Cameras go in as `inputs['cameras']`, a CameraFrame whose calibration undoes the frame's `bev_aug`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.structures import META_KEYS, CameraFrame

from ..errors import DataError
from .bev_rasters import RASTER_KEY
from .box_points import NUM_POINTS_KEY
from .image_labels import LABELS_KEY, labels_to_network
from .multiview_loading import NUM_MASKED_KEY, sample_name

ALIGNED_KEY = 'clip_aligned'
"""Metainfo of a clip's frames: whether points and boxes are in the coordinates of the clip's last frame."""


@TRANSFORMS.register_module()
class PackClipFrame(Pack3DDetInputs):
    """mmdet3d's Pack3DDetInputs plus the metainfo of `projects.memfusion.structures.META_KEYS` and `clip_aligned`.

    Where images were loaded, adds `inputs['cameras']` and, from `img_labels`, the field `gt_img_labels`: a tuple of N
    ImageLabels in network pixels. The matrix of the LiDAR-side augmentation goes into the calibration here, when all of it
    is done, so its place in the pipeline does not matter. From `gt_num_points`, adds `gt_instances_3d.num_points`; from
    `raster`, `inputs['raster']`.

    Raises:
        DataError: naming the sample, where points were augmented by transforms that do not write `bev_aug`, there are images
            without calibration or the other way round, or `keys` has points and none were loaded.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(keys=keys)
        self.meta_keys: tuple[str, ...] = (*self.meta_keys, *META_KEYS, ALIGNED_KEY, NUM_MASKED_KEY)

    def pack_single_results(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one frame."""
        if 'points' in self.keys and 'points' not in results:  # mmdet3d's would leave them out and say nothing
            raise DataError(f"sample {sample_name(results)}: PackClipFrame has 'points' in its keys, but none were loaded: put "
                            'LoadLidarPoints into the pipeline and use_lidar=True into the modality of the data set, or, '
                            "without LiDAR, take 'points' out of the keys")
        packed = super().pack_single_results({key: value for key, value in results.items() if key != 'img'})
        if 'calibration' in results or 'img' in results:
            cameras = packed['inputs']['cameras'] = pack_cameras(results)
            if LABELS_KEY in results:
                packed['data_samples'].set_field(labels_to_network(results[LABELS_KEY], cameras.calibration), 'gt_img_labels')
        if RASTER_KEY in results:
            packed['inputs'][RASTER_KEY] = torch.from_numpy(results[RASTER_KEY])
        if NUM_POINTS_KEY in results:
            packed['data_samples'].gt_instances_3d.num_points = torch.from_numpy(results[NUM_POINTS_KEY])
        return packed


def pack_cameras(results: Mapping[str, Any]) -> CameraFrame:
    """`img` and `calibration` of a frame, with the frame's `bev_aug` (the identity where nothing augments the points)."""
    missing = [key for key in ('img', 'calibration') if key not in results]
    if missing:
        raise DataError(f'sample {sample_name(results)}: PackClipFrame finds no {missing[0]!r} beside '
                        f"{'img' if missing[0] == 'calibration' else 'calibration'!r}: load both with LoadMultiViewImages")
    if results.get('transformation_3d_flow'):
        raise DataError(f"sample {sample_name(results)}: the points were augmented by mmdet3d's transforms (flow "
                        f"{results['transformation_3d_flow']}), which leave no bev_aug: use ClipBEVAugmentation")
    bev_aug = torch.as_tensor(results.get('bev_aug', np.eye(4)), dtype=torch.float32)[None]
    images = tuple(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in results['img'])
    return CameraFrame(images, replace(results['calibration'], bev_aug=bev_aug))


def pack_padding(
    metainfo: dict[str, Any], num_point_features: int | None, box_dim: int, has_cameras: bool = False,
) -> dict[str, Any]:
    """A packed frame that holds nothing: what stands before a scene's first frame. `frame_valid` is False.

    Frames of one batch must have the same keys: no points without LiDAR (`num_point_features` is None), and with cameras
    `inputs['cameras']`, which is None.
    """
    sample = Det3DDataSample(metainfo={**metainfo, 'frame_valid': False})
    boxes = LiDARInstance3DBoxes(torch.zeros(0, box_dim), box_dim=box_dim)
    sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=torch.zeros(0, dtype=torch.long))
    inputs: dict[str, Any] = {} if num_point_features is None else {'points': torch.zeros(0, num_point_features)}
    return {'inputs': {**inputs, 'cameras': None} if has_cameras else inputs, 'data_samples': sample}
