"""Data transform. In: one finished frame. Out: `inputs` and a Det3DDataSample that knows its scene, time and pose."""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.structures import META_KEYS

ALIGNED_KEY = 'clip_aligned'
"""Metainfo of a clip's frames: whether points and boxes are in the coordinates of the clip's last frame."""


@TRANSFORMS.register_module()
class PackClipFrame(Pack3DDetInputs):
    """mmdet3d's Pack3DDetInputs plus the metainfo of `projects.memfusion.structures.META_KEYS` and `clip_aligned`."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(keys=keys)
        self.meta_keys: tuple[str, ...] = (*self.meta_keys, *META_KEYS, ALIGNED_KEY)


def pack_padding(metainfo: dict[str, Any], num_point_features: int, box_dim: int) -> dict[str, Any]:
    """A packed frame that holds nothing: what stands before a scene's first frame. `frame_valid` is False."""
    sample = Det3DDataSample(metainfo={**metainfo, 'frame_valid': False})
    boxes = LiDARInstance3DBoxes(torch.zeros(0, box_dim), box_dim=box_dim)
    sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=torch.zeros(0, dtype=torch.long))
    return {'inputs': {'points': torch.zeros(0, num_point_features)}, 'data_samples': sample}
