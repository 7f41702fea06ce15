"""Spatial: readers. In: the npz file beside a video. Out: poses, intrinsics, depth, world points, tokens, checked.

The file goes by the video's name: SCENE.npz beside SCENE.mp4 or the folder SCENE. docs/spatial_mllm.md has the format; that of
docs/frame_sampling.md is part of it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from projects.geometry.frame_sampling import DepthMaps, Frustums, Video, Visible, WorldPoints
from projects.geometry.frame_sampling.video import check_poses
from projects.geometry.homography import resize_homography

_SHAPES = dict(world_from_cam='R44', depth='Rhw', world_points='Rhw3', conf='Rhw', tokens='Rpc', stamps_s='R', frames='R')
"""Arrays with R rows; other letters stand for any size."""
_ROWS = tuple(_SHAPES)
ARRAYS = (*_ROWS, 'intrinsics', 'image_hw')
_RANGE_M = 4.0
"""How far a frustum reaches where nothing else tells what a frame sees."""


@dataclass(frozen=True)
class VideoGeometry:
    """What is known of R frames of a video.

    Attributes:
        name: the file, for errors.
        frames: (R,) which frames of the video these are, rising.
        world_from_cam: (R, 4, 4) float64, OpenCV's axes.
        intrinsics: (R, 3, 3) float64 in pixels of `image_hw`, integers at centres.
        image_hw: height and width that the intrinsics are of.
        depth: (R, h, w) along z; world_points: (R, h, w, 3) and conf (R, h, w) of a geometry network, in its own unit.
        tokens: (R, patches, channels) of a geometry network.
        stamps_s: (R,) seconds.
    """

    name: str
    frames: np.ndarray
    world_from_cam: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    image_hw: tuple[int, int] | None = None
    depth: np.ndarray | None = None
    world_points: np.ndarray | None = None
    conf: np.ndarray | None = None
    tokens: np.ndarray | None = None
    stamps_s: np.ndarray | None = None

    @property
    def cam_from_world(self) -> np.ndarray:
        """(R, 4, 4); ValueError where there are no poses."""
        if self.world_from_cam is None:
            raise ValueError(f'{self.name} holds no poses (world_from_cam)')
        return np.linalg.inv(self.world_from_cam)

    def take(self, indices: Sequence[int] | np.ndarray) -> VideoGeometry:
        """Of frames of the video, in the order given.

        Raises:
            ValueError: naming the frames of which nothing is known.
        """
        wanted = np.asarray(indices, dtype=int)
        unknown = np.setdiff1d(wanted, self.frames)
        if unknown.size:
            raise ValueError(f'{self.name} says nothing of the frames {unknown[:5].tolist()} ({unknown.size} of {wanted.size})')
        rows = np.searchsorted(self.frames, wanted)
        arrays: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def video(self) -> Video:
        """What samplers are told: these R frames; what one sees comes from world points, depth or view frustums."""
        return Video(len(self.frames), self.name, self.stamps_s, self.world_from_cam, self._visible())

    def _visible(self) -> Visible | None:
        if self.world_points is not None:
            return WorldPoints(self.world_points, self.conf, name=self.name)
        if self.world_from_cam is None or self.intrinsics is None:
            return None
        if self.depth is not None:
            return DepthMaps(self.depth, self._depth_intrinsics(self.depth.shape[1:]), self.world_from_cam, name=self.name)
        if self.image_hw is None:
            return None
        return Frustums(len(self.frames), _RANGE_M / 20, self.world_from_cam, self.intrinsics, self.image_hw, _RANGE_M)

    def _depth_intrinsics(self, depth_hw: Sequence[int]) -> np.ndarray:
        """K of the depth maps' own pixels, which may be fewer than the images have."""
        assert self.intrinsics is not None
        if self.image_hw is None:
            return self.intrinsics
        return resize_homography(self.image_hw, (depth_hw[0], depth_hw[1])).numpy()[:3, :3] @ self.intrinsics


def geometry_beside(video: Path) -> Path:
    """Where a video's geometry file lies, if it has one."""
    return video.with_name(f'{video.name if video.is_dir() else video.stem}.npz')


def read_geometry(path: str | Path, num_frames: int, needed: Sequence[str] = (),
                  wanted: Sequence[str] = ARRAYS) -> VideoGeometry:
    """Reads and checks a geometry file.

    Args:
        path: the npz file.
        num_frames: of the video that it goes with.
        needed: arrays that must be there, e.g. ('world_from_cam', 'intrinsics').
        wanted: arrays that are read; others stay on the disk.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming it: no npz, arrays missing or unknown, another number of poses than of frames, shapes that do not
            belong together.
    """
    path = Path(path)
    arrays = _arrays(path, {*needed, *wanted, 'frames', 'image_hw'})
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ValueError(f'{path}: {", ".join(missing)} missing; it holds {sorted(arrays)}')
    rows = _rows(path, arrays, num_frames)
    frames = arrays.get('frames', np.arange(rows))
    if 'frames' not in arrays and rows != num_frames:
        raise ValueError(f'{path}: {rows} poses or other rows for a video of {num_frames} frames; `frames` must say which '
                         'frames of the video they are')
    rising = frames.ndim == 1 and frames.dtype.kind in 'iu' and (np.diff(frames, prepend=-1) > 0).all()
    if not rising or not len(frames) or frames[-1] >= num_frames:
        raise ValueError(f'{path}: frames must be rising whole numbers below {num_frames}, got {frames[:5].tolist()}')
    if 'world_from_cam' in arrays:
        check_poses(arrays['world_from_cam'], rows, str(path))
    image_hw = _image_hw(path, arrays)
    return VideoGeometry(
        str(path), frames, _double(arrays.get('world_from_cam')), _intrinsics(path, arrays, rows, image_hw), image_hw,
        *(arrays.get(name) for name in ('depth', 'world_points', 'conf', 'tokens', 'stamps_s')))


def check_image_size(geometry: VideoGeometry, image_hw: tuple[int, int]) -> None:
    """Whether intrinsics are of images of that size; raises ValueError naming the file and both sizes where not."""
    if geometry.intrinsics is not None and geometry.image_hw is not None and geometry.image_hw != image_hw:
        raise ValueError(f'{geometry.name}: intrinsics are of images of {geometry.image_hw[0]} x {geometry.image_hw[1]} '
                         f'(height x width), the frames are {image_hw[0]} x {image_hw[1]}: scale the intrinsics and image_hw')


def _arrays(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            unknown = sorted(set(archive.files) - set(ARRAYS))
            if not unknown:
                return {name: archive[name] for name in archive.files if name in wanted}
    except (ValueError, zipfile.BadZipFile, zlib.error, AttributeError, EOFError) as error:  # npy, text, cut off, pickles
        raise ValueError(f'{path} is not an npz file of plain arrays ({error}): was it cut off?') from error
    raise ValueError(f'{path}: unknown arrays {unknown}. Known: {", ".join(ARRAYS)}')


def _rows(path: Path, arrays: dict[str, np.ndarray], num_frames: int) -> int:
    """How many rows all arrays have; ValueError naming those that are of another shape or hold no numbers."""
    found = {name: arrays[name] for name in _ROWS if name in arrays}
    for name, array in arrays.items():
        if array.dtype.kind not in 'fiu':
            raise ValueError(f'{path}: {name} must hold real numbers, got {array.dtype}')
    for name, array in found.items():
        wanted = _SHAPES[name]
        if array.ndim != len(wanted) or any(side.isdigit() and int(side) != size for side, size in zip(wanted, array.shape)):
            raise ValueError(f'{path}: {name} must have the shape ({", ".join(wanted)}), got {array.shape}')
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'{path}: arrays must have one row for each frame, got {counts}')
    return next(iter(counts.values()), num_frames)


def _image_hw(path: Path, arrays: dict[str, np.ndarray]) -> tuple[int, int] | None:
    if 'image_hw' not in arrays:
        return None
    if arrays['image_hw'].shape != (2,):
        raise ValueError(f'{path}: image_hw must be height and width, got {arrays["image_hw"].tolist()}')
    return int(arrays['image_hw'][0]), int(arrays['image_hw'][1])


def _intrinsics(path: Path, arrays: dict[str, np.ndarray], rows: int, image_hw: tuple[int, int] | None) -> np.ndarray | None:
    given = arrays.get('intrinsics')
    if given is None:
        return None
    if given.shape not in ((3, 3), (rows, 3, 3)):
        raise ValueError(f'{path}: intrinsics must be (3, 3) or ({rows}, 3, 3), got {given.shape}')
    if image_hw is None:
        raise ValueError(f'{path}: intrinsics without image_hw: nobody can tell of what size of images they are')
    full = np.broadcast_to(given, (rows, 3, 3)).astype(np.float64)
    middle, focal = full[:, :2, 2], np.stack([full[:, 0, 0], full[:, 1, 1]], axis=1)
    usable = ((middle > 0) & (middle < image_hw[::-1]) & (focal > 0)).all(axis=1) & (full[:, 2] == [0, 0, 1]).all(axis=1)
    if not usable.all():
        raise ValueError(f'{path}: intrinsics {full[~usable][0].tolist()} have their middle outside images of '
                         f'{image_hw[0]} x {image_hw[1]} (height x width), no focal length, or a last row that is not 0 0 1: '
                         'are they of another size?')
    return full


def _double(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.astype(np.float64)
