"""Geometry, frame sampling. In: world points, depth and poses, point clouds, or poses alone. Out: which voxels frames see.

Each class here is a `Visible`. World points and depth lay their grid over the frames they are asked for, as Spatial-MLLM
does; point clouds and frustums have a fixed voxel size and remember what a frame sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .video import check_poses
from .voxel_sets import VoxelSets, distinct

MIN_CONFIDENCE = 0.1
CELLS_OF_SHORTEST_SIDE = 20


@dataclass(frozen=True)
class VoxelGrid:
    """The grid that is laid over the points of some frames, and which of them count.

    Attributes:
        threshold: a point counts whose confidence is this or more, and over MIN_CONFIDENCE.
        bounds_m: (2, 3) lowest and highest coordinates of the points that count.
        voxel_m: side of a voxel.
    """

    threshold: float
    bounds_m: np.ndarray
    voxel_m: float


def voxelise(points_m: Sequence[np.ndarray] | np.ndarray, confidence: np.ndarray | None, voxel_m: float | None = None,
             name: str = 'points') -> tuple[VoxelSets, VoxelGrid]:
    """What M frames see, by the rules of Spatial-MLLM (Wu et al., 2025): points of at least the median confidence, over 0.1.

    Args:
        points_m: M arrays (..., 3) of world points, looked at one by one, twice; where there is no point, NaN.
        confidence: (M, ...), or None: every point counts.
        voxel_m: side of a voxel; None is a 20th of the shortest side of the points' box. The farthest point of that side may
            lie in a 21st voxel, as published.

    Raises:
        ValueError: shapes that do not belong together, confidence that is not finite, no point that counts, or points in a
            plane where the voxel's size is to be made of them.
    """
    shape = (len(points_m), *points_m[0].shape)
    if len(shape) < 3 or shape[-1] != 3 or (confidence is not None and confidence.shape != shape[:-1]):
        raise ValueError(f'{name}: world points must be (frames, ..., 3) with confidence (frames, ...), got {shape} and '
                         f'{None if confidence is None else confidence.shape}')
    threshold = -math.inf
    if confidence is not None:
        if not np.isfinite(confidence).all():
            raise ValueError(f'{name}: the confidence is not finite in {int((~np.isfinite(confidence)).sum())} places')
        threshold = float(np.median(confidence.astype(np.float64)))

    def counting(frame: int) -> np.ndarray:  # in the numbers of the points, as published; float16 is too coarse
        own = points_m[frame] if points_m[frame].dtype in (np.float32, np.float64) else points_m[frame].astype(np.float64)
        kept = np.isfinite(own).all(axis=-1)
        if confidence is not None:
            kept &= (confidence[frame] >= threshold) & (confidence[frame] > MIN_CONFIDENCE)
        return own[kept]

    boxes = [(own.min(axis=0), own.max(axis=0)) for own in map(counting, range(len(points_m))) if len(own)]
    if not boxes:
        raise ValueError(f'{name}: no point counts in {len(points_m)} frames: none is finite with a confidence over '
                         f'{MIN_CONFIDENCE}')
    low, high = np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)
    side = (high - low).min() / low.dtype.type(CELLS_OF_SHORTEST_SIDE) if voxel_m is None else low.dtype.type(voxel_m)
    if not side > 0:
        raise ValueError(f'{name}: the points lie in a plane (box from {low.tolist()} to {high.tolist()}): set voxel_m')
    keys = [distinct(np.floor((counting(frame) - low) / side).astype(np.int64)) for frame in range(len(points_m))]
    return (VoxelSets.of_keys(keys, low.astype(np.float64), float(side)),
            VoxelGrid(threshold, np.stack([low, high]), float(side)))


@dataclass(frozen=True)
class WorldPoints:
    """World points of every frame, e.g. of a geometry network; arguments as of `voxelise`, with T for M."""

    points_m: np.ndarray
    confidence: np.ndarray | None = None
    voxel_m: float | None = None
    name: str = 'points'

    def __post_init__(self) -> None:
        _check_confidence(self.confidence, self.points_m.shape[:-1], self.name)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.points_m)

    def __call__(self, frames: np.ndarray) -> VoxelSets:
        """See Visible."""
        confidence = None if self.confidence is None else self.confidence[frames]
        return voxelise(self.points_m[frames], confidence, self.voxel_m, self.name)[0]


@dataclass(frozen=True)
class DepthMaps:
    """Depth images with poses.

    Attributes:
        depth_m: (T, h, w) along the optical axis; 0, NaN or infinite where there is none.
        intrinsics: (3, 3) or (T, 3, 3) of the depth image's own pixels, integers at centres.
        world_from_cam: (T, 4, 4), cameras look along z, x right, y down.
        confidence: (T, h, w), or None.
        voxel_m: as of `voxelise`.
    """

    depth_m: np.ndarray
    intrinsics: np.ndarray
    world_from_cam: np.ndarray
    confidence: np.ndarray | None = None
    voxel_m: float | None = None
    name: str = 'depth'

    def __post_init__(self) -> None:
        if self.depth_m.ndim != 3:
            raise ValueError(f'{self.name}: depth must be (frames, height, width), got {self.depth_m.shape}')
        check_poses(self.world_from_cam, len(self.depth_m), self.name)
        check_intrinsics(self.intrinsics, len(self.depth_m), self.name)
        _check_confidence(self.confidence, self.depth_m.shape, self.name)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.depth_m)

    def __call__(self, frames: np.ndarray) -> VoxelSets:
        """See Visible."""
        confidence = None if self.confidence is None else self.confidence[frames]
        return voxelise(_PointsOfDepth(self, frames), confidence, self.voxel_m, self.name)[0]

    def points(self, frames: np.ndarray) -> np.ndarray:
        """(M, h, w, 3) float64 world points; NaN where there is no depth."""
        depth = self.depth_m[frames].astype(np.float64)
        depth = np.where((depth > 0) & (depth < np.inf), depth, np.nan)
        v, u = np.mgrid[:depth.shape[1], :depth.shape[2]].astype(np.float64)
        pixels = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3)
        cam_from_img = np.linalg.inv(np.broadcast_to(self.intrinsics, (len(self.depth_m), 3, 3))[frames].astype(np.float64))
        rays = (pixels @ cam_from_img.swapaxes(1, 2)).reshape(*depth.shape, 3)
        return move(self.world_from_cam[frames], rays * depth[..., None])


class _PointsOfDepth(Sequence[np.ndarray]):
    """The world points of some frames of depth, made when they are looked at: those of a long video would not fit."""

    def __init__(self, depth: DepthMaps, frames: np.ndarray) -> None:
        self.depth, self.frames = depth, frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, row: Any) -> Any:
        return self.depth.points(self.frames[row:row + 1])[0]


@dataclass(frozen=True)
class FixedGrid:
    """Base: a voxel's size is given, so that what a frame sees does not depend on the others, and is worked out once.

    Attributes:
        num_frames: T.
        voxel_m: side of a voxel; the grid's origin is the world's.
    """

    num_frames: int
    voxel_m: float
    _known: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.voxel_m > 0:
            raise ValueError(f'voxel_m must be positive, got {self.voxel_m}')

    def __call__(self, frames: np.ndarray) -> VoxelSets:
        """See Visible."""
        for frame in map(int, frames):
            if frame not in self._known:
                keys = np.floor(self.points(frame) / self.voxel_m).astype(np.int64)
                self._known[frame] = distinct(keys).astype(np.int32)
        return VoxelSets.of_keys([self._known[int(frame)] for frame in frames], np.zeros(3), self.voxel_m)

    def points(self, frame: int) -> np.ndarray:
        """(P, 3) world points that this frame sees."""
        raise NotImplementedError


@dataclass(frozen=True)
class PointClouds(FixedGrid):
    """Point clouds that are read when they are asked for, e.g. of a LiDAR.

    Attributes:
        load: frame number -> (P, 3) points in the world frame, metres.
    """

    load: Callable[[int], np.ndarray]

    def points(self, frame: int) -> np.ndarray:
        """What `load` gives."""
        points = np.asarray(self.load(frame), dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f'the point cloud of frame {frame} must be (P, 3) finite world points, got shape {points.shape}')
        return points


@dataclass(frozen=True)
class Frustums(FixedGrid):
    """View frustums: what lies before a camera up to `range_m`, whether hidden or not. It needs poses and no depth.

    Attributes:
        world_from_cam: (T, 4, 4), cameras look along z, x right, y down.
        intrinsics: (3, 3) or (T, 3, 3).
        image_hw: height and width in the pixels of the intrinsics.
        range_m: along the optical axis.
    """

    world_from_cam: np.ndarray
    intrinsics: np.ndarray
    image_hw: tuple[int, int]
    range_m: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_poses(self.world_from_cam, self.num_frames, 'frustums')
        check_intrinsics(self.intrinsics, self.num_frames, 'frustums')
        if not self.range_m > 0:
            raise ValueError(f'range_m must be positive, got {self.range_m}')

    def points(self, frame: int) -> np.ndarray:
        """Points no farther apart than half a voxel, in the middle of the steps that share out depth, width and height."""
        intrinsics = np.broadcast_to(self.intrinsics, (self.num_frames, 3, 3))[frame]
        height, width = self.image_hw
        focal = float(min(intrinsics[0, 0], intrinsics[1, 1]))

        def steps(length_m: float) -> np.ndarray:
            number = max(1, math.ceil(2 * length_m / self.voxel_m))
            return (np.arange(number) + 0.5) / number

        u, v = (size * steps(size / focal * self.range_m) - 0.5 for size in (width, height))
        pixels = np.stack(np.broadcast_arrays(u[None, :], v[:, None], 1.0), axis=-1).reshape(-1, 3)
        rays = pixels @ np.linalg.inv(intrinsics.astype(np.float64)).T
        depth = self.range_m * steps(self.range_m)
        return move(self.world_from_cam[frame], (rays[:, None] * depth[None, :, None]).reshape(-1, 3))


def _check_confidence(confidence: np.ndarray | None, shape: tuple[int, ...], name: str) -> None:
    if confidence is not None and confidence.shape != shape:
        raise ValueError(f'{name}: confidence must be {shape}, got {confidence.shape}')


def move(dst_from_src: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """(..., 4, 4) poses and (..., *, 3) points -> the points in the destination frame, float64."""
    pose = dst_from_src.astype(np.float64)
    flat = points_m.reshape(*pose.shape[:-2], -1, 3)
    return (flat @ pose[..., :3, :3].swapaxes(-1, -2) + pose[..., None, :3, 3]).reshape(points_m.shape)


def check_intrinsics(intrinsics: np.ndarray, num_frames: int, name: str) -> None:
    """Raises ValueError unless it is (3, 3) or (num_frames, 3, 3), finite, with positive focal lengths and a last row 0 0 1."""
    if intrinsics.shape not in ((3, 3), (num_frames, 3, 3)):
        raise ValueError(f'{name}: intrinsics must be (3, 3) or ({num_frames}, 3, 3), got {intrinsics.shape}')
    if not (np.isfinite(intrinsics).all() and (intrinsics[..., (0, 1), (0, 1)] > 0).all()
            and (intrinsics[..., 2, :] == [0, 0, 1]).all()):
        raise ValueError(f'{name}: intrinsics must be finite with positive focal lengths and last row 0 0 1, got '
                         f'{intrinsics.reshape(-1, 3, 3)[0].tolist()}')
