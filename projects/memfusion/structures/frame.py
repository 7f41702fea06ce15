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
        """Reads a frame's metainfo; raises KeyError that names the missing key and who writes it, ValueError for no pose."""
        names = cls.__dataclass_fields__
        missing = [name for name in names if name not in metainfo]
        if missing:
            raise KeyError(
                f'frame metainfo lacks {missing}: the frame was not made by NuScenesSequenceDataset and '
                'PackClipFrame (see configs/_base_/datasets/nus_sequence.py)')
        if np.shape(metainfo['global_from_lidar']) != (4, 4):
            raise ValueError(f'frame {metainfo["sample_token"]} has no pose: its global_from_lidar must be a (4, 4) matrix, '
                             f'got {metainfo["global_from_lidar"]!r}; what looks at earlier frames needs one for every frame')
        return cls(**{name: metainfo[name] for name in names})

    @property
    def global_from_bev(self) -> np.ndarray:
        """(4, 4) float64: augmented LiDAR frame (that of points, boxes and BEV features) to global."""
        return self.global_from_lidar @ np.linalg.inv(self.bev_aug)


@dataclass(frozen=True)
class FrameBatch:
    """One time step of a batch, B samples. What the host knows of it stays there: nobody asks a device for it.

    Attributes:
        metas: B frames.
        there: B bools on the host; False where the frame is padding.
        valid: (B,) bool, `there` on the device.
        time_s: (B,) float64, seconds.
        global_from_bev: (B, 4, 4) float64, augmented LiDAR frame to global.
        bev_from_global: (B, 4, 4) float64, its inverse.
        global_from_lidar: (B, 4, 4) float64, raw LiDAR frame to global.
    """

    metas: tuple[FrameMeta, ...]
    there: tuple[bool, ...]
    valid: Tensor
    time_s: Tensor
    global_from_bev: Tensor
    bev_from_global: Tensor
    global_from_lidar: Tensor

    @property
    def starts(self) -> tuple[bool, ...]:
        """B bools on the host: memory of these samples is empty before the step."""
        return tuple(meta.is_scene_start and there for meta, there in zip(self.metas, self.there))

    def with_there(self, there: Sequence[bool]) -> FrameBatch:
        """The same frames, other ones of them padding."""
        if tuple(there) == self.there:
            return self
        return replace(self, there=tuple(there), valid=torch.tensor(list(there)).to(self.valid.device, non_blocking=True))

    @classmethod
    def from_metas(cls, metas: Sequence[FrameMeta], device: torch.device) -> FrameBatch:
        """Stacks B frames; poses and times stay float64. Raises ValueError, naming the frames, for a pose that is not rigid."""
        return cls.of_steps([metas], device)[0]

    @classmethod
    def of_steps(cls, steps: Sequence[Sequence[FrameMeta]], device: torch.device,
                 there: Sequence[Sequence[bool]] | None = None) -> list[FrameBatch]:
        """T time steps of B frames, in one copy to the device; as from_metas.

        Args:
            there: T x B, where the metas' `frame_valid` is not what counts.
        """
        poses = []
        there = [[bool(meta.frame_valid) for meta in metas] for metas in steps] if there is None else there
        for metas in steps:
            global_from_lidar = np.stack([meta.global_from_lidar for meta in metas])
            check_rigid(global_from_lidar, f'global_from_lidar of one of the frames {[meta.sample_token for meta in metas]}')
            global_from_bev = np.stack([meta.global_from_bev for meta in metas])
            poses.append(np.stack([global_from_bev, np.linalg.inv(global_from_bev), global_from_lidar], axis=1).reshape(-1, 48))
        scalars = np.array([[[ok, meta.timestamp_s] for meta, ok in zip(metas, oks)] for metas, oks in zip(steps, there)])
        packed = torch.from_numpy(np.concatenate([scalars, np.stack(poses)], axis=2))
        packed = packed.pin_memory() if device.type == 'cuda' else packed
        batches = []
        for metas, oks, row in zip(steps, there, packed.to(device, non_blocking=True).unbind(0)):
            matrices = row[:, 2:].view(-1, 3, 4, 4).unbind(1)
            batches.append(cls(
                metas=tuple(metas), there=tuple(oks), valid=row[:, 0] > 0, time_s=row[:, 1],
                global_from_bev=matrices[0], bev_from_global=matrices[1], global_from_lidar=matrices[2]))
        return batches
