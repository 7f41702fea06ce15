"""Stage data: point files to checked float32 arrays, each file of an item read once; the frame is the file's own LiDAR frame.

In: the `lidar_points` part of an info or a sweep; out: (N, load_dim) points, and their sweep form: close points removed,
column 4 set to 1, so that one matrix product moves the points and writes the time lag.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.fileio import get
from torch import Tensor

from .errors import BadFrameError

Points = npt.NDArray[np.float32]
TIME_COLUMN = 4
CLOSE_M = 1.0
PLAUSIBLE_DIMS = (3, 4, 5, 6, 7, 8, 9, 10)
"""Values of a point that point files are known to have."""
BAD_POINTS_OPTIONS = ('error', 'drop_points')


def read_points(path: str, load_dim: int, on_bad_points: str = 'error', backend_args: dict[str, Any] | None = None,
                num_bytes: int | None = None) -> tuple[Points, int]:
    """Reads a float32 point file and checks it.

    Args:
        path: A `.pcd.bin` (raw float32) file.
        load_dim: Values per point in the file.
        on_bad_points: `error`, or `drop_points` to leave out points that are not finite.
        backend_args: MMEngine's file backend, for storage that is not a local disk.
        num_bytes: size that the info file says; None is not known.

    Returns:
        (N, load_dim) points, which may be read only, and how many points were dropped.

    Raises:
        BadFrameError: If the file is missing, truncated, empty or has points that are not finite.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        raise BadFrameError(path, f'cannot be read ({error.strerror or type(error).__name__})',
                            'check data_root and data_prefix, or unpack the file blob that holds it') from error
    if len(content) % (4 * load_dim):
        raise _wrong_size(path, len(content), load_dim, num_bytes)
    if num_bytes is not None and len(content) != num_bytes:
        state = 'truncated' if len(content) < num_bytes else 'not the file that was prepared'
        raise BadFrameError(path, f'is {state}: {len(content)} bytes, {num_bytes} when the infos were made',
                            'copy or generate the file again, or make the infos again with tools/create_data.py')
    points = np.frombuffer(content, dtype=np.float32).reshape(-1, load_dim)
    if len(points) and np.isfinite(points).all():  # many times faster than the count of bad rows below
        return points, 0
    finite = np.isfinite(points).all(axis=1)
    num_bad = int(len(points) - finite.sum())
    if num_bad and on_bad_points == 'error':
        raise BadFrameError(path, f'has {num_bad} of {len(points)} points with NaN or infinite values',
                            "generate the file again, or load it with on_bad_points='drop_points'")
    if num_bad == len(points):
        raise BadFrameError(path, 'has no points' if not num_bad else f'has no finite points among {num_bad}',
                            'copy or generate the file again, or remove the frame from the info file')
    return points[finite], num_bad


def _wrong_size(path: str, size: int, load_dim: int, num_bytes: int | None) -> BadFrameError:
    """For a size that is no whole number of points: the file was cut, or `load_dim` is not what it holds."""
    text = f'{size} bytes is not a multiple of {4 * load_dim} (load_dim={load_dim} float32 values a point)'
    fitting = [f'load_dim={dim}' for dim in PLAUSIBLE_DIMS if dim != load_dim and size % (4 * dim) == 0]
    again = 'copy or generate the file again'
    if not fitting or (num_bytes is not None and size < num_bytes):
        return BadFrameError(path, f'is truncated: {text}', again)
    remedy = f'where files hold that many values a point, set load_dim (and use_dim) so in the config; if not, {again}'
    what = ('is truncated or ' if size != num_bytes else '') + 'has another number of values a point'
    return BadFrameError(path, f'{what}: {text}, but fits {" or ".join(fitting)}', remedy)


@dataclass(frozen=True)
class ReadOptions:
    """How a transform reads point files; the arguments of `read_points`."""

    load_dim: int
    on_bad_points: str = 'error'
    backend_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.on_bad_points not in BAD_POINTS_OPTIONS:
            raise ValueError(f'on_bad_points={self.on_bad_points!r}: use one of {", ".join(BAD_POINTS_OPTIONS)}')


class PointFiles:
    """The point files of one item. Neighbouring frames of a clip share most sweeps: each is read, checked, stripped once.

    What it returns is shared between frames and must not be written to. A data set makes one for each item and hands it to
    the transforms as `results['point_files']`.
    """

    def __init__(self) -> None:
        self._points: dict[tuple[str, int, str], tuple[Points, int]] = {}
        self._sweeps: dict[tuple[str, int, str, bool], tuple[Tensor, int]] = {}

    def points(self, lidar_points: Mapping[str, Any], options: ReadOptions) -> tuple[Points, int]:
        """`read_points` of `lidar_points['lidar_path']`."""
        path = os.fspath(lidar_points['lidar_path'])
        key = path, options.load_dim, options.on_bad_points
        if key not in self._points:
            self._points[key] = read_points(path, options.load_dim, options.on_bad_points, options.backend_args,
                                            lidar_points.get('num_bytes'))
        return self._points[key]

    def sweep(self, lidar_points: Mapping[str, Any], options: ReadOptions, remove_close: bool) -> tuple[Tensor, int]:
        """(N, load_dim) points in sweep form (see the file's head), and how many bad ones were dropped."""
        key = os.fspath(lidar_points['lidar_path']), options.load_dim, options.on_bad_points, remove_close
        if key not in self._sweeps:
            points, num_dropped = self.points(lidar_points, options)
            kept = points.take(np.flatnonzero(~is_close(points)), axis=0) if remove_close else points.copy()
            kept[:, TIME_COLUMN] = 1
            self._sweeps[key] = torch.from_numpy(kept), num_dropped
        return self._sweeps[key]


def is_close(points: Points) -> npt.NDArray[np.bool_]:
    """(N,) whether both |x| and |y| are under 1 m, as mmdet3d and the devkit remove the vehicle's own points."""
    return (np.abs(points[:, 0]) < CLOSE_M) & (np.abs(points[:, 1]) < CLOSE_M)
