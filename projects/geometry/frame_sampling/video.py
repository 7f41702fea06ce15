"""Geometry, frame sampling. What a sampler is told of a video: frames, stamps, poses, and who can say what a frame sees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from projects.geometry.rigid import check_rigid

from .voxel_sets import VoxelSets

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


class Visible(Protocol):
    """Says which voxels frames see; it is asked for the frames that a sampler considers, and no others."""

    def __call__(self, frames: np.ndarray) -> VoxelSets:
        """(M,) ascending frame numbers -> the sets of these frames, in this order, on one grid."""


@dataclass(frozen=True)
class Video:
    """A video, or the frames of a scene. No pixels: what is chosen is decoded afterwards.

    Attributes:
        num_frames: T.
        name: for errors.
        stamps_s: (T,) float64 seconds, or None.
        world_from_cam: (T, 4, 4) float64 poses of the camera (or of the LiDAR, or the vehicle), metres, or None.
        visible: which voxels frames see, or None.

    Raises:
        ValueError: no frames, shapes that do not belong together, stamps that do not rise, or a pose that is not rigid.
    """

    num_frames: int
    name: str = 'video'
    stamps_s: np.ndarray | None = None
    world_from_cam: np.ndarray | None = None
    visible: Visible | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f'{self.name} has no frames')
        if self.stamps_s is not None and (np.shape(self.stamps_s) != (self.num_frames,)
                                          or not (np.diff(self.stamps_s) > 0).all()):
            raise ValueError(f'{self.name}: stamps must be {self.num_frames} rising numbers, got shape '
                             f'{np.shape(self.stamps_s)}')
        if self.world_from_cam is not None:
            check_poses(self.world_from_cam, self.num_frames, self.name)
        rows = getattr(self.visible, 'num_frames', self.num_frames)
        if rows != self.num_frames:
            raise ValueError(f'{self.name} has {self.num_frames} frames, but what they see is known of {rows}')

    def needed_poses(self, why: str) -> np.ndarray:
        """(T, 4, 4); ValueError where there are none."""
        if self.world_from_cam is None:
            raise ValueError(f'{self.name}: {why} needs a pose for every frame, and there is none: give world_from_cam')
        return self.world_from_cam

    def needed_sets(self, frames: np.ndarray, why: str) -> VoxelSets:
        """What these frames see; ValueError where nobody can say."""
        if self.visible is None:
            raise ValueError(f'{self.name}: {why} needs to know what a frame sees: give world points, depth with poses, LiDAR '
                             'with poses, or poses and intrinsics')
        return self.visible(frames)


def check_poses(world_from_cam: np.ndarray, num_frames: int, name: str) -> None:
    """Raises ValueError unless it is (num_frames, 4, 4) rigid transforms; names the first frame that has none."""
    if np.shape(world_from_cam) != (num_frames, 4, 4):
        raise ValueError(f'{name}: world_from_cam must be ({num_frames}, 4, 4), one pose for each frame, got '
                         f'{np.shape(world_from_cam)}')
    try:
        check_rigid(world_from_cam, f'{name}: world_from_cam')
    except ValueError:
        for frame, pose in enumerate(world_from_cam):
            check_rigid(pose, f'{name}: world_from_cam of frame {frame}')
        raise


def by_number(name: str) -> list[tuple[int, int, str]]:
    """A sort key of frame files in which runs of digits count as numbers: frame_10000 comes after frame_9999."""
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in re.split(r'(\d+)', name) if part]


def frame_paths(folder: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names; hidden files, which some systems leave beside them
    (._frame_1.png), are no frames.

    Raises:
        ValueError: naming the folder, where it holds no image.
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != '.']
    if not paths:
        raise ValueError(f'{folder} holds no frames: no file in it ends with one of {", ".join(IMAGE_SUFFIXES)}')
    return sorted(paths, key=lambda path: (by_number(path.name), path.name))


def is_cut_off(said: int, decoded: int) -> bool:
    """Whether far fewer frames of a video can be decoded than its header says; headers are often a few off."""
    return decoded < 0.99 * said - 3
