"""Stage data: point files to points, with the checks and the sweep transform that mmdet3d's loaders lack.

In: mmdet3d's results dict (`lidar_points`, `lidar_sweeps`, `timestamp`); out: `points` (N, D) in the LiDAR frame at
the frame's stamp. Column 4 of accumulated points is the time lag in seconds (0: the frame's own, positive: the past).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.datasets.transforms import LoadPointsFromFile, LoadPointsFromMultiSweeps
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures.points import BasePoints, get_points_type
from torch import Tensor

from ..point_files import TIME_COLUMN, PointFiles, Points, ReadOptions, is_close
from ..poses import Pose, relative_pose


def lidar_pose(frame: Mapping[str, Any]) -> Pose:
    """(4, 4) global_from_lidar of a results dict, an info or a sweep.

    `global_from_lidar` (float64) where there is one; else from mmdet3d's `ego2global` and `lidar2ego`, whose float32
    rounding costs up to 0.1 mm of translation per kilometre of global coordinates.
    """
    if 'global_from_lidar' in frame:
        return np.asarray(frame['global_from_lidar'], dtype=np.float64)
    ego_from_lidar = np.asarray(frame['lidar_points']['lidar2ego'], dtype=np.float64)
    return np.asarray(frame['ego2global'], dtype=np.float64) @ ego_from_lidar


def _point_files(results: Mapping[str, Any]) -> PointFiles:
    """The item's files, which clips share between frames; a frame on its own has none to share."""
    files = results.get('point_files')
    return PointFiles() if files is None else files


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
        if norm_intensity and len(self.use_dim) <= 3:
            raise ValueError(f'norm_intensity=True needs the intensity, column 3: use_dim={use_dim} leaves it out')
        self._options = ReadOptions(load_dim, on_bad_points, backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds `points` (N, len(use_dim)), LiDAR frame, and `num_dropped_points`."""
        shared, num_dropped = _point_files(results).points(results['lidar_points'], self._options)
        count = len(self.use_dim)
        # Copies, because what the files hold is shared; the plain slice, the usual case, is ten times as fast.
        plain = self.use_dim == list(range(count))
        points: Points = shared[:, :count].copy() if plain else np.take(shared, self.use_dim, axis=1)
        if self.norm_intensity:
            points[:, 3] = np.tanh(points[:, 3])
        results['points'] = get_points_type(self.coord_type)(points, points_dim=points.shape[1])
        results['num_dropped_points'] = results.get('num_dropped_points', 0) + num_dropped
        return results


@TRANSFORMS.register_module()
class LoadLidarSweeps(LoadPointsFromMultiSweeps):
    """Adds earlier sweeps to a frame's points, moved into the frame's LiDAR frame through the global frame.

    A drop-in for mmdet3d's `LoadPointsFromMultiSweeps` with the right transform (that one turns the translation the
    wrong way when the ego turns, mmdetection3d issue 3054). Equal to the devkit's `from_file_multisweep`, except that
    the frame's own close points are kept, as in mmdet3d. Poses are subtracted in float64; points are moved in float32.

    Args:
        sweeps_num: How many sweeps to add at most. `results['num_sweeps']` (own points included), which a data set may
            write, goes before it.
        load_dim: Values per point in the files, at least 5.
        use_dim: Columns to keep after column 4 has become the time lag, or how many.
        pad_empty_sweeps: Whether to repeat the frame's own points `sweeps_num` times where there are no sweeps.
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
        if load_dim <= TIME_COLUMN:
            raise ValueError(f'load_dim={load_dim}: sweeps need at least 5 values a point (column 4 becomes the lag)')
        super().__init__(sweeps_num=sweeps_num, load_dim=load_dim,
                         use_dim=use_dim if isinstance(use_dim, int) else list(use_dim),
                         pad_empty_sweeps=pad_empty_sweeps, remove_close=remove_close, test_mode=test_mode,
                         backend_args=backend_args)
        self._options = ReadOptions(load_dim, on_bad_points, backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replaces `points` by (N + sweeps, len(use_dim)) points, LiDAR frame at the frame's stamp."""
        points: BasePoints = results['points']
        if points.shape[1] != self.load_dim:
            raise ValueError(f'LoadLidarSweeps got points with {points.shape[1]} values and its sweeps have '
                             f'load_dim={self.load_dim}: load the keyframe with use_dim={self.load_dim}')
        points.tensor[:, TIME_COLUMN] = 0
        sweeps_num = results['num_sweeps'] - 1 if results.get('num_sweeps') else self.sweeps_num
        if results.get('lidar_sweeps'):
            points.tensor = self._accumulate(results, points.tensor, self._choose(results['lidar_sweeps'], sweeps_num))
        elif self.pad_empty_sweeps:
            own = points.tensor
            kept = own[torch.from_numpy(~is_close(own.numpy()))] if self.remove_close else own
            points.tensor = torch.cat([own, *[kept] * sweeps_num])
        results['points'] = points if self.use_dim == list(range(self.load_dim)) else points[:, self.use_dim]
        return results

    def _choose(self, sweeps: Sequence[Mapping[str, Any]], sweeps_num: int) -> Sequence[Mapping[str, Any]]:
        if len(sweeps) <= sweeps_num or self.test_mode:
            return sweeps[:sweeps_num]
        # numpy's global state, as in mmdet3d: the data set's worker seeds it
        return [sweeps[i] for i in np.random.choice(np.arange(len(sweeps)), sweeps_num, replace=False)]

    def _accumulate(self, results: dict[str, Any], own: Tensor, sweeps: Sequence[Mapping[str, Any]]) -> Tensor:
        """(N + sweeps, load_dim): every sweep is moved and given its lag by one product, straight to where it belongs."""
        files, parts = _point_files(results), []
        for sweep in sweeps:
            points, num_dropped = files.sweep(sweep['lidar_points'], self._options, self.remove_close)
            results['num_dropped_points'] = results.get('num_dropped_points', 0) + num_dropped
            parts.append((points, self._sweep_matrix(results, sweep)))
        end = len(own)
        joined = own.new_empty(end + sum(len(points) for points, _ in parts), self.load_dim)
        joined[:end] = own
        for points, matrix in parts:
            start, end = end, end + len(points)
            torch.mm(points, matrix, out=joined[start:end])
        return joined

    def _sweep_matrix(self, results: Mapping[str, Any], sweep: Mapping[str, Any]) -> Tensor:
        """(load_dim, load_dim) float32: points in sweep form (rows, column 4 is 1) times this are moved, with their lag."""
        cur_from_sweep = relative_pose(lidar_pose(results), lidar_pose(sweep))
        matrix = np.eye(self.load_dim)
        matrix[:3, :3] = cur_from_sweep[:3, :3].T
        matrix[TIME_COLUMN, :3] = cur_from_sweep[:3, 3]
        own_stamp = results['lidar_points'].get('timestamp', results['timestamp'])
        matrix[TIME_COLUMN, TIME_COLUMN] = own_stamp - sweep['timestamp']
        return torch.from_numpy(matrix.astype(np.float32))
