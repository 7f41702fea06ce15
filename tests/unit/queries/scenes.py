"""Packed frames of small scenes for query detectors: cameras of several sizes, a few points, boxes, an ego that drives."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from projects.memfusion.structures import Calibration, CameraFrame

SIZES = ((32, 64), (32, 48), (24, 64), (32, 64), (28, 40))
"""Heights and widths of the images, in pixels."""


@dataclass(frozen=True)
class Frames:
    """How the frames of a scene are made.

    Attributes:
        cameras: how many, of the first SIZES.
        masked: positions of cameras that are not there.
        noise: another number shows other pixels in the masked cameras.
        lidar: whether there are points.
        boxes: how many.
        zoom: network pixels per raw pixel and a shift to the right, 1 and 0 are none: told to the rig, pixels stay.
        undone: whether the rig is told of the opposite afterwards.
        bev_aug: (4, 4) raw to augmented LiDAR frame; with `undone` its inverse comes on top.
    """

    cameras: int = 3
    masked: tuple[int, ...] = ()
    noise: int = 0
    lidar: bool = True
    boxes: int = 3
    zoom: tuple[float, float] = (1.0, 0.0)
    undone: bool = False
    bev_aug: tuple[float, float] = (0.0, 1.0)

    def of(self, scene: str, length: int, start: int = 0) -> list[dict[str, Any]]:
        """`length` frames of a scene, which begins with that at `start`; what it shows goes by its name."""
        return [self._frame(scene, index, index == start) for index in range(start, start + length)]

    @property
    def bev_from_lidar(self) -> np.ndarray:
        """(4, 4) float64, a turn and a scale."""
        turn, scale = self.bev_aug
        matrix = np.eye(4)
        matrix[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        matrix[:3, :3] *= scale
        return np.linalg.inv(matrix) @ matrix if self.undone else matrix

    def _frame(self, scene: str, index: int, starts: bool) -> dict[str, Any]:
        drawn = torch.Generator().manual_seed(zlib.crc32(f'{scene}:{index}'.encode()))
        sample = Det3DDataSample(metainfo=dict(
            sample_idx=index, sample_token=f'{scene}-{index}', scene_token=scene, frame_index=index, is_scene_start=starts,
            is_scene_end=False, timestamp_s=1.5e9 + 0.5 * index, global_from_lidar=pose_of(index), is_keyframe=True,
            bev_aug=self.bev_from_lidar, frame_valid=True, box_type_3d=LiDARInstance3DBoxes))
        boxes = torch.rand(self.boxes, 9, generator=drawn) * torch.tensor([30.0, 30, 1, 3, 1, 1, 6, 2, 2]) \
            + torch.tensor([-15.0, -15, -1.5, 2, 1, 1.5, 0, -1, -1])
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.randint(0, 10, (self.boxes,), generator=drawn))
        points = torch.rand(400, 5, generator=drawn) * torch.tensor([50.0, 50, 4, 255, 0.5]) - torch.tensor([25.0, 25, 3, 0, 0])
        images = []
        for n, size in enumerate(SIZES[:self.cameras]):
            seed = 1000 * self.noise + n if n in self.masked else n
            pixels = torch.Generator().manual_seed(zlib.crc32(f'{scene}:{index}:{seed}'.encode()))
            images.append(torch.randint(0, 256, (3, *size), generator=pixels, dtype=torch.uint8))
        frame = CameraFrame(tuple(images), self.rig(index))
        return dict(inputs=dict(points=points if self.lidar else points[:0], cameras=frame), data_samples=sample)

    def rig(self, index: int) -> Calibration:
        """Cameras all around, stamped a little before their frame."""
        info = {}
        for n, (height, width) in enumerate(SIZES[:self.cameras]):
            yaw = 2 * math.pi * n / self.cameras + 0.1
            pose = np.eye(4)
            pose[:3, :3] = [[math.sin(yaw), -math.cos(yaw), 0], [0, 0, -1], [math.cos(yaw), math.sin(yaw), 0]]
            pose[:3, 3] = [0.1 * n, 0.2, -0.3]
            info[f'CAM_{n}'] = dict(
                cam2img=[[28.0 + n, 0, width / 2], [0, 28.0 + n, height / 2], [0, 0, 1]], height=height, width=width,
                lidar2cam=pose, timestamp=1.5e9 + 0.5 * index - 0.02 * n)
        rig = Calibration.from_info(info, bev_aug=self.bev_from_lidar, t_lidar=1.5e9 + 0.5 * index)
        if self.zoom != (1.0, 0.0):
            scale, shift = self.zoom
            told = torch.eye(4, dtype=torch.float64)
            told[:3, :3] = torch.tensor([[scale, 0, shift], [0, scale, 0], [0, 0, 1]])
            for n, size in enumerate(SIZES[:self.cameras]):
                for step in (told, told.inverse()) if self.undone else (told,):
                    rig = rig.with_img_aug(n, step, size)
        there = torch.tensor([[n not in self.masked for n in range(self.cameras)]])
        return replace(rig, cam_valid=there)


def pose_of(index: int) -> np.ndarray:
    """(4, 4) raw LiDAR frame of the index to global: 2 m forward and 3 deg to the left a frame."""
    turn, pose = math.radians(3.0) * index, np.eye(4)
    pose[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    pose[:3, 3] = [500.0 + 2.0 * index, -300.0, 1.0]
    return pose


def build_small(config: Config) -> Any:
    """The config's detector on large cells, in eval mode; weights are reproducible and none is 0."""
    cfg = copy.deepcopy(config.model)
    cfg.grid.update(voxel_size=[1.6, 1.6, 8.0], out_size_factor=2)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(model.state_dict().items()):  # also BatchNorm's statistics and biases that begin with 0
        if value.dtype.is_floating_point:
            noise = torch.rand(value.shape, generator=generator) * 0.1
            value.add_(noise if 'var' in name else noise - 0.05)
    return model.eval()


def collated(model: Any, clips: Sequence[Sequence[dict[str, Any]]], training: bool = False) -> dict[str, Any]:
    """What the model takes of B clips of T frames, without the sensors that it does not have."""
    clips = copy.deepcopy([list(clip) for clip in clips])
    for frame in (frame for clip in clips for frame in clip):
        if not model.with_points:
            del frame['inputs']['points']
        if not model.with_img_backbone:
            del frame['inputs']['cameras']
    return model.data_preprocessor(pseudo_collate(clips), training)


class Watch:
    """What the head is given and what it answers, call by call."""

    def __init__(self, model: Any) -> None:
        self.given: list[Any] = []
        self.answers: list[Tensor] = []
        self._head = model.pts_bbox_head

    def __enter__(self) -> Watch:
        answer = self._head.forward

        def forward(features: Any, readout: Any, truth: Any) -> Any:
            outputs = answer(features, readout, truth)
            self.given.append((features, readout, truth))
            self.answers.append(torch.cat([outputs.logits[-1], outputs.codes[-1]], dim=-1).detach())
            return outputs

        self._head.forward = forward
        return self

    def __exit__(self, *error: object) -> None:
        del self._head.forward


@torch.no_grad()
def streamed(model: Any, *scenes: Sequence[dict[str, Any]]) -> list[Tensor]:
    """The head's last layer (B, Q, K + 10) of every time step, B scenes side by side, from an empty session."""
    model.session.clear()
    with Watch(model) as watch:
        for step in zip(*scenes):
            model(**collated(model, [[frame] for frame in step]), mode='predict')
    assert len(watch.answers) == min(map(len, scenes))
    return watch.answers
