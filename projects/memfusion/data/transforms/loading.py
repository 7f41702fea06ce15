"""Stage data: point files to points, with the checks and the sweep transform that mmdet3d's loaders lack.

In: mmdet3d's results dict (`lidar_points`, `lidar_sweeps`, `timestamp`); out: `points` (N, D) in the LiDAR frame at
the keyframe's stamp. Column 4 of accumulated points is the time lag in seconds (0: keyframe, positive: the past).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures.points import BasePoints
from mmengine.fileio import get

from ..errors import BadFrameError
from ..poses import Pose, relative_pose, transform_points

_BAD_POINTS = ('error', 'drop_points')
_TIME_COLUMN = 4


def read_points(path: str, load_dim: int, on_bad_points: str = 'error', backend_args: dict[str, Any] | None = None,
                num_bytes: int | None = None) -> tuple[npt.NDArray[np.float32], int]:
    """Reads a float32 point file and checks it.

    Args:
        path: A `.pcd.bin` (raw float32) or `.npy` file.
        load_dim: Values per point in the file.
        on_bad_points: `error`, or `drop_points` to leave out points that are not finite.
        backend_args: MMEngine's file backend, for storage that is not a local disk.
        num_bytes: size that the info file says; None is not known.

    Returns:
        (N, load_dim) points of its own memory, and how many points were dropped.

    Raises:
        BadFrameError: If the file is missing, truncated, empty or has points that are not finite.
    """
    try:
        content = get(path, backend_args=backend_args)
    except OSError as error:
        raise BadFrameError(path, f'cannot be read ({error.strerror or type(error).__name__})',
                            'check data_root and data_prefix, or unpack the file blob that holds it') from error
    if len(content) % (4 * load_dim):
        raise BadFrameError(path, f'is truncated: {len(content)} bytes is not a multiple of {4 * load_dim} '
                            f'(load_dim={load_dim} float32 values a point)', 'copy or generate the file again')
    if num_bytes is not None and len(content) != num_bytes:
        state = 'truncated' if len(content) < num_bytes else 'not the file that was prepared'
        raise BadFrameError(path, f'is {state}: {len(content)} bytes, {num_bytes} when the infos were made',
                            'copy or generate the file again, or make the infos again with tools/create_data.py')
    points = np.frombuffer(content, dtype=np.float32).reshape(-1, load_dim).copy()
    finite = np.isfinite(points).all(axis=1)
    num_bad = int(len(points) - finite.sum())
    if num_bad and on_bad_points == 'error':
        raise BadFrameError(path, f'has {num_bad} of {len(points)} points with NaN or infinite values',
                            "generate the file again, or load it with on_bad_points='drop_points'")
    if num_bad == len(points):
        raise BadFrameError(path, 'has no points' if not num_bad else f'has no finite points among {num_bad}',
                            'copy or generate the file again, or remove the frame from the info file')
    return (points[finite] if num_bad else points), num_bad


def lidar_pose(frame: Mapping[str, Any]) -> Pose:
    """(4, 4) global_from_lidar of a results dict, an info or a sweep.

    `global_from_lidar` (float64) where there is one; else from mmdet3d's `ego2global` and `lidar2ego`, whose float32
    rounding costs up to 0.1 mm of translation per kilometre of global coordinates.
    """
    if 'global_from_lidar' in frame:
        return np.asarray(frame['global_from_lidar'], dtype=np.float64)
    ego_from_lidar = np.asarray(frame['lidar_points']['lidar2ego'], dtype=np.float64)
    return np.asarray(frame['ego2global'], dtype=np.float64) @ ego_from_lidar


@TRANSFORMS.register_module()
class LoadLidarPoints(LoadPointsFromFile):
    """mmdet3d's `LoadPointsFromFile` with checks: a bad file is an error that names it.

    Args:
        coord_type: `LIDAR`, as in mmdet3d.
        load_dim: Values per point in the file.
        use_dim: Columns to keep, or how many.
        norm_intensity: Whether to squash the intensity with tanh.
        on_bad_points: `error`, or `drop_points` to drop points with NaN or infinite values; their number is added to
            `results['num_dropped_points']`.
        backend_args: MMEngine's file backend.

    Raises:
        BadFrameError: From `transform`, as `read_points` does.
    """

    def __init__(self, coord_type: str = 'LIDAR', load_dim: int = 5, use_dim: int | Sequence[int] = 5,
                 norm_intensity: bool = False, on_bad_points: str = 'error',
                 backend_args: dict[str, Any] | None = None) -> None:
        super().__init__(coord_type=coord_type, load_dim=load_dim,
                         use_dim=use_dim if isinstance(use_dim, int) else list(use_dim),
                         norm_intensity=norm_intensity, backend_args=backend_args)
        self.on_bad_points = _check_option(on_bad_points)
        self._num_dropped = 0
        self._num_bytes: int | None = None

    def _load_points(self, pts_filename: str) -> npt.NDArray[np.float32]:
        points, self._num_dropped = read_points(
            pts_filename, self.load_dim, self.on_bad_points, self.backend_args, self._num_bytes)
        return points

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `points` (N, len(use_dim)), LiDAR frame, and `num_dropped_points`."""
        self._num_bytes = results['lidar_points'].get('num_bytes')
        results = super().transform(results)
        results['num_dropped_points'] = results.get('num_dropped_points', 0) + self._num_dropped
        return results


@TRANSFORMS.register_module()
class LoadLidarSweeps(LoadPointsFromMultiSweeps):
    """Adds earlier sweeps to the keyframe's points, moved into the keyframe's LiDAR frame through the global frame.

    A drop-in for mmdet3d's `LoadPointsFromMultiSweeps` with the right transform (that one turns the translation the
    wrong way when the ego turns, mmdetection3d issue 3054). Equal to the devkit's `from_file_multisweep`, except that
    the keyframe's own close points are kept, as in mmdet3d.

    Args:
        sweeps_num: How many sweeps to add at most.
        load_dim: Values per point in the files, at least 5.
        use_dim: Columns to keep after column 4 has become the time lag, or how many.
        pad_empty_sweeps: Whether to repeat the keyframe `sweeps_num` times where there are no sweeps.
        remove_close: Whether to drop sweep points with both |x| and |y| under 1 m of their own sensor.
        test_mode: Whether to take the most recent sweeps, not random ones, where there are more than `sweeps_num`.
        on_bad_points: As in `LoadLidarPoints`.
        backend_args: MMEngine's file backend.

    Raises:
        BadFrameError: From `transform`, as `read_points` does.
    """

    def __init__(self, sweeps_num: int = 10, load_dim: int = 5, use_dim: int | Sequence[int] = (0, 1, 2, 4),
                 pad_empty_sweeps: bool = False, remove_close: bool = False, test_mode: bool = False,
                 on_bad_points: str = 'error', backend_args: dict[str, Any] | None = None) -> None:
        if load_dim <= _TIME_COLUMN:
            raise ValueError(f'load_dim={load_dim}: sweeps need at least 5 values a point (column 4 becomes the lag)')
        super().__init__(sweeps_num=sweeps_num, load_dim=load_dim,
                         use_dim=use_dim if isinstance(use_dim, int) else list(use_dim),
                         pad_empty_sweeps=pad_empty_sweeps, remove_close=remove_close, test_mode=test_mode,
                         backend_args=backend_args)
        self.on_bad_points = _check_option(on_bad_points)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces `points` by (N + sweeps, len(use_dim)) points, LiDAR frame at the keyframe's stamp."""
        points: BasePoints = results['points']
        if points.shape[1] <= _TIME_COLUMN:
            raise ValueError(f'LoadLidarSweeps needs points with at least 5 values, got {points.shape[1]}: load the '
                             f'keyframe with use_dim=5')
        points.tensor[:, _TIME_COLUMN] = 0
        parts = [points]
        if results.get('lidar_sweeps'):
            parts += [points.new_point(self._load_sweep(results, sweep)) for sweep in self._choose(results)]
        elif self.pad_empty_sweeps:
            parts += [self._remove_close(points) if self.remove_close else points] * self.sweeps_num
        results['points'] = points.cat(parts)[:, self.use_dim]
        return results

    def _choose(self, results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        sweeps: list[Mapping[str, Any]] = results['lidar_sweeps']
        if len(sweeps) <= self.sweeps_num or self.test_mode:
            return sweeps[:self.sweeps_num]
        # numpy's global state, as in mmdet3d: the data set's worker seeds it
        return [sweeps[i] for i in np.random.choice(np.arange(len(sweeps)), self.sweeps_num, replace=False)]

    def _load_sweep(self, results: dict[str, Any], sweep: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        points, num_dropped = read_points(os.fspath(sweep['lidar_points']['lidar_path']), self.load_dim,
                                          self.on_bad_points, self.backend_args, sweep['lidar_points'].get('num_bytes'))
        results['num_dropped_points'] = results.get('num_dropped_points', 0) + num_dropped
        if self.remove_close:
            points = self._remove_close(points)
        cur_from_sweep = relative_pose(lidar_pose(results), lidar_pose(sweep))
        points[:, :3] = transform_points(cur_from_sweep, points)
        points[:, _TIME_COLUMN] = results['lidar_points'].get('timestamp', results['timestamp']) - sweep['timestamp']
        return points


def _check_option(on_bad_points: str) -> str:
    if on_bad_points not in _BAD_POINTS:
        raise ValueError(f'on_bad_points={on_bad_points!r}: use one of {", ".join(_BAD_POINTS)}')
    return on_bad_points
