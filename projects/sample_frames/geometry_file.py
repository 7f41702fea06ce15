"""Sampling, geometry. In: an npz file that goes with a video. Out: poses, stamps, and what tells what a frame sees.

docs/frame_sampling.md has the format.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.geometry.frame_sampling import DepthMaps, Frustums, Video, Visible, WorldPoints

ARRAYS = ('world_points', 'depth', 'conf', 'intrinsics', 'image_hw', 'world_from_cam', 'stamps_s', 'frames')
_UNREAD = ('tokens',)
"""Features of a geometry network, which the video language model reads from the same file."""
SEES = ('points', 'depth', 'frustum')


@dataclass(frozen=True)
class SeeOptions:
    """What stands for what a frame sees.

    Attributes:
        kind: 'points', 'depth', 'frustum' or 'lidar'; 'auto' is the first of these that there is.
        voxel_m: side of a voxel; None is a 20th of the shortest side of points' box, of a frustum's range, and 1 m of LiDAR.
        range_m: how far a frustum reaches.
    """

    kind: str = 'auto'
    voxel_m: float | None = None
    range_m: float = 4.0

    def __post_init__(self) -> None:
        for option, size_m in (('--voxel', self.voxel_m), ('--range', self.range_m)):
            if size_m is not None and not size_m > 0:
                raise ValueError(f'{option} must be positive, got {size_m}')

    @property
    def frustum_voxel_m(self) -> float:
        """Side of a frustum's voxels."""
        return self.range_m / 20 if self.voxel_m is None else self.voxel_m


def read_geometry(path: Path, see: SeeOptions) -> tuple[Video, np.ndarray | None]:
    """The file as a Video of its rows, and which frames of the whole video these are; None is all, in order.

    Raises:
        ValueError: naming the file: no npz, arrays that are unknown or lacking, shapes that do not belong together.
    """
    arrays = _read(path)
    single = [name for name, array in arrays.items() if not array.ndim]
    if single:
        raise ValueError(f'{path}: {single[0]} must have one row for each frame, got a single number')
    lengths = {name: len(arrays[name]) for name in ('world_points', 'depth', 'conf', 'world_from_cam', 'stamps_s', 'frames')
               if name in arrays}
    if len(set(lengths.values())) != 1:
        raise ValueError(f'{path}: arrays must have one row for each frame, got {lengths or "none that has rows"}')
    frames = arrays.get('frames')
    if frames is not None and (frames.ndim != 1 or frames.dtype.kind not in 'iu' or (np.diff(frames, prepend=-1) <= 0).any()):
        raise ValueError(f'{path}: frames must be rising whole numbers from 0, got {frames.dtype} {frames.tolist()[:5]} ...')
    number = next(iter(lengths.values()))
    visible = _visible(path, arrays, number, see)
    return Video(number, str(path), arrays.get('stamps_s'), arrays.get('world_from_cam'), visible), frames


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name not in _UNREAD}
    except (ValueError, zipfile.BadZipFile, zlib.error, AttributeError, EOFError) as error:  # npy, text, damaged, pickles
        raise ValueError(f'{path} is not an npz file of plain arrays ({error}): write it with numpy.savez') from error
    if unknown := sorted(set(arrays) - set(ARRAYS)):
        raise ValueError(f'{path}: unknown arrays {unknown}. Known: {", ".join(ARRAYS)}')
    return arrays


def _visible(path: Path, arrays: dict[str, np.ndarray], number: int, see: SeeOptions) -> Visible | None:
    needed = dict(points=('world_points',), depth=('depth', 'intrinsics', 'world_from_cam'),
                  frustum=('intrinsics', 'image_hw', 'world_from_cam'))
    there = [kind for kind in SEES if set(needed[kind]) <= set(arrays)]
    kind = see.kind if see.kind != 'auto' else there[0] if there else None
    if kind is None:
        return None
    if kind not in there:
        lacking = [name for name in needed.get(kind, ()) if name not in arrays]
        raise ValueError(f'{path}: --sees {kind} needs {", ".join(lacking) or "a nuScenes scene"}, which is not there; it has '
                         f'{sorted(arrays)}')
    name, size = str(path), arrays.get('image_hw')
    if kind == 'depth' and size is not None and size.tolist() != list(arrays['depth'].shape[1:]):
        raise ValueError(f'{path}: depth is of {arrays["depth"].shape[1:]} pixels, image_hw says {size.tolist()}: nobody can '
                         'tell of which the intrinsics are. Resize depth, or scale intrinsics and image_hw to its size')
    if kind == 'points':
        return WorldPoints(arrays['world_points'], arrays.get('conf'), see.voxel_m, name)
    if kind == 'depth':
        if arrays['depth'].ndim == 3:
            check_size(arrays['intrinsics'], arrays['depth'].shape[1:], f'{path}: depth')
        return DepthMaps(arrays['depth'], arrays['intrinsics'], arrays['world_from_cam'], arrays.get('conf'), see.voxel_m, name)
    if arrays['image_hw'].shape != (2,):
        raise ValueError(f'{path}: image_hw must be height and width, got {arrays["image_hw"].tolist()}')
    height, width = map(int, arrays['image_hw'])
    check_size(arrays['intrinsics'], (height, width), f'{path}: image_hw')
    return Frustums(number, see.frustum_voxel_m, arrays['world_from_cam'], arrays['intrinsics'], (height, width), see.range_m)


def check_size(intrinsics: np.ndarray, image_hw: Sequence[int], name: str) -> None:
    """Raises ValueError, beginning with `name`, where a principal point lies outside of images of that height and width."""
    if intrinsics.shape[-2:] != (3, 3):
        return  # which is told elsewhere
    middle = intrinsics[..., :2, 2].reshape(-1, 2)
    outside = ((middle <= 0) | (middle >= np.array(image_hw[::-1]))).any(axis=1)
    if outside.any():
        raise ValueError(f'{name} is of {image_hw[0]} x {image_hw[1]} pixels (height x width), but the intrinsics have their '
                         f'middle at {middle[outside][0].tolist()}: they are of images of another size')
