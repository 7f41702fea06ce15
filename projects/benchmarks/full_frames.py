"""Benchmark. In: nothing but sizes. Out: frames of the published size, points and six images, as loading gives them; no files.

Weights are not fetched and the content is drawn: it decides nothing that costs time but how many pillars hold points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config

from projects.memfusion.runtime.launch import prepare_config
from projects.memfusion.structures import Calibration, CameraFrame

from .fusion import car_ring

POINTS = 120_000
"""About what the far range holds of ten sweeps."""
RANGE_M = 51.0


def full_config(path: str) -> Config:
    """A config of full size that fetches no weights."""
    cfg = prepare_config(path)
    if cfg.model.get('img_backbone'):
        cfg.model.img_backbone.init_cfg = None
    return cfg


def full_frame(cameras: int = 6, points: int = POINTS, seed: int = 0) -> Any:
    """A clip of one frame, not collated: drawn points, denser near the car, and images of 256 x 704 px all around."""
    draw = torch.Generator().manual_seed(seed)
    far, angle, height = torch.rand(3, points, generator=draw)
    radius, angle = RANGE_M * far.square(), 2 * torch.pi * angle
    cloud = torch.stack([radius * angle.cos(), radius * angle.sin(), 3 * height - 2.5, 255 * far, torch.zeros(points)], dim=1)
    rig: Calibration = car_ring(cameras)
    images = tuple(torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8) for size in rig.img_hw[0].tolist())
    sample = Det3DDataSample(metainfo=dict(
        sample_idx=0, sample_token='0', scene_token='scene', frame_index=0, is_scene_start=True, is_scene_end=False,
        timestamp_s=1.0, global_from_lidar=np.eye(4), bev_aug=np.eye(4), is_keyframe=True, frame_valid=True, clip_aligned=False,
        box_type_3d=LiDARInstance3DBoxes))
    return [dict(inputs=dict(points=cloud, cameras=CameraFrame(images, rig)), data_samples=sample)]
