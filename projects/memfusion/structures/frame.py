"""Contract, no network. In: metainfo of packed frames. Out: FrameMeta (one frame), FrameBatch (a time step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.geometry.rigid import check_rigid

META_KEYS = (
    'sample_idx',
    'sample_token',
    'scene_token',
    'frame_index',
    'is_scene_start',
    'is_scene_end',
    'timestamp_s',
    'global_from_lidar',
    'bev_aug',
    'is_keyframe',
    'frame_valid',
)
"""Metainfo keys that every packed frame of a clip carries beside mmdet3d's own."""


@dataclass(frozen=True)
class FrameMeta:
    """Who a frame is, when and where it was taken.

    Attributes:
        sample_token: nuScenes sample token.
        scene_token: nuScenes scene token; memory is keyed by it.
        frame_index: position among the keyframes of the scene, from 0.
        is_scene_start: True for the first frame of a scene: memory is reset before it.
        is_scene_end: True for the last frame of a scene: memory is let go after it.
        timestamp_s: LiDAR stamp, float64 seconds.
        global_from_lidar: (4, 4) float64, raw LiDAR frame to global, metres.
        bev_aug: (4, 4) float64, raw LiDAR frame to augmented LiDAR frame (identity in testing, unless the loader moved
            the frame into the coordinates of the clip's last one).
        frame_valid: False for the padding before a scene's first frame.
        is_keyframe: True where there are labels; False for a sweep between keyframes.
    """

    sample_token: str
    scene_token: str
    frame_index: int
    is_scene_start: bool
    is_scene_end: bool
    timestamp_s: float
    global_from_lidar: np.ndarray
    bev_aug: np.ndarray
    frame_valid: bool
    is_keyframe: bool

    @classmethod
    def from_metainfo(cls, metainfo: Mapping[str, Any]) -> FrameMeta:
        """Reads a frame's metainfo; raises KeyError that names the missing key and who writes it."""
        names = cls.__dataclass_fields__
        missing = [name for name in names if name not in metainfo]
        if missing:
            raise KeyError(
                f'frame metainfo lacks {missing}: the frame was not made by NuScenesSequenceDataset and '
                'PackClipFrame (see configs/_base_/datasets/nus_sequence.py)')
        return cls(**{name: metainfo[name] for name in names})

    @property
    def global_from_bev(self) -> np.ndarray:
        """(4, 4) float64: augmented LiDAR frame (that of points, boxes and BEV features) to global."""
        return self.global_from_lidar @ np.linalg.inv(self.bev_aug)


@dataclass(frozen=True)
class FrameBatch:
    """One time step of a batch, B samples.

    Attributes:
        metas: B frames.
        valid: (B,) bool; False where the frame is padding.
        is_scene_start: (B,) bool; memory of these samples is empty before the step.
        time_s: (B,) float64, seconds.
        global_from_bev: (B, 4, 4) float64, augmented LiDAR frame to global.
        global_from_lidar: (B, 4, 4) float64, raw LiDAR frame to global.
    """

    metas: tuple[FrameMeta, ...]
    valid: Tensor
    is_scene_start: Tensor
    time_s: Tensor
    global_from_bev: Tensor
    global_from_lidar: Tensor

    @classmethod
    def from_metas(cls, metas: Sequence[FrameMeta], device: torch.device) -> FrameBatch:
        """Stacks B frames; poses and times stay float64. Raises ValueError, naming the frames, for a pose that is not rigid."""
        global_from_lidar = torch.from_numpy(np.stack([m.global_from_lidar for m in metas]))
        check_rigid(global_from_lidar, f'global_from_lidar of one of the frames {[m.sample_token for m in metas]}')
        return cls(
            metas=tuple(metas),
            valid=torch.tensor([m.frame_valid for m in metas], device=device),
            is_scene_start=torch.tensor([m.is_scene_start and m.frame_valid for m in metas], device=device),
            time_s=torch.tensor([m.timestamp_s for m in metas], dtype=torch.float64, device=device),
            global_from_bev=torch.from_numpy(np.stack([m.global_from_bev for m in metas])).to(device),
            global_from_lidar=global_from_lidar.to(device),
        )

    def with_valid(self, valid: Tensor) -> FrameBatch:
        """The same frames with other `valid` (B,) bool."""
        return replace(self, valid=valid, is_scene_start=self.is_scene_start & valid)
