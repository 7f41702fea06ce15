"""Stage data: do the point files hold what the tables say? In: nuScenes' tables, keyframe files. Out: nothing, or an error.

Annotations say how many points each box has (`num_lidar_pts`). Where files have another number of values a point, or are of
another frame, the boxes are empty; training would go on all the same. Boxes and points are in the LiDAR's frame.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mmdet3d.structures.ops import box_np_ops
from mmengine.logging import print_log

from .errors import DataError
from .nuscenes_tables import Record
from .point_files import PLAUSIBLE_DIMS

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

NUM_KEYFRAMES = 3
_MIN_POINTS = 50  # in the boxes of one keyframe: fewer do not tell
_MARGIN_M = 0.05
# Read with a wrong number of values, 50% of the points or fewer are where they should be: those of the rows that fall together.
_AGREES = 0.75
_FULL, _EMPTY = 5, 0.05  # a box of so many points counts, and is empty where less than this share of them is in it
_MAX_EMPTY = 0.5  # of mirrored, turned or exchanged axes it is 0.55 and more, on real and synthetic keyframes
Boxes = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def count_in_boxes(points_m: npt.NDArray[Any], boxes: npt.NDArray[Any], from_bottom: bool = False, margin_m: float = 1e-5,
                   ) -> Counts:
    """(K,) points in each box.

    Args:
        points_m: (P, 3+); points that are not finite lie nowhere.
        boxes: (K, 7+) middle, length, width, height, yaw, in the frame of the points.
        from_bottom: their third number is the height of the bottom, as in mmdet3d's boxes.
        margin_m: a point may lie this far outside; by default, points on a border are inside: mmdet3d turns
            boxes in float32.
    """
    points = np.asarray(points_m[:, :3], dtype=np.float64)
    grown = np.array(boxes[:, :7], dtype=np.float64)
    grown[:, 2] += 0.5 * grown[:, 5] * from_bottom
    grown[:, 3:6] += 2 * margin_m
    inside = box_np_ops.points_in_rbbox(points[np.isfinite(points).all(axis=1)], grown, origin=(0.5, 0.5, 0.5))
    return np.asarray(inside.sum(axis=0), dtype=np.int64)


def share_found(found: Counts, expected: Counts) -> float:
    """Share of the points that (K,) boxes should have which are in them."""
    return float(np.minimum(found, expected).sum() / expected.sum())


def check_box_points(nusc: NuScenes, samples: Sequence[Record], lidar_channel: str, load_dim: int) -> None:
    """Counts points in the boxes of the few keyframes that should have most, at most one a scene.

    Args:
        nusc: the tables.
        samples: keyframes to choose from; without annotations there is nothing to check.
        lidar_channel: whose points.
        load_dim: values of a point in the files.

    Raises:
        DataError: naming file, what was found and what to do, where the points fit another `load_dim`, or most boxes that
            should hold points are empty.
    """
    chosen = _fullest(nusc, samples)
    if not chosen and any(sample['anns'] for sample in samples):
        print_log(f'{nusc.dataroot}/{nusc.version}: no keyframe has {_MIN_POINTS} annotated LiDAR points (num_lidar_pts of '
                  'sample_annotation.json), so it was not checked whether points lie in boxes. Boxes with num_lidar_pts '
                  'and num_radar_pts 0 are neither trained on nor scored', 'current', level=30)
    counted: dict[str, tuple[Counts, Counts]] = {}
    for sample in chosen:
        lidar_token = sample['data'][lidar_channel]
        path = nusc.get_sample_data_path(lidar_token)
        boxes, expected = _boxes(nusc, sample, lidar_token)
        size, values = os.path.getsize(path), np.fromfile(path, dtype=np.float32)
        found = {dim: count_in_boxes(values.reshape(-1, dim), boxes, margin_m=_MARGIN_M)
                 for dim in dict.fromkeys((load_dim, *PLAUSIBLE_DIMS))
                 if size and size % (4 * dim) == 0}
        shares = {dim: share_found(counts, expected) for dim, counts in found.items()}
        # The largest: files of 2 D values a point hold all points for D too, and as many rows that are none.
        best = max((dim for dim, share in shares.items() if share >= _AGREES), default=load_dim)
        if best != load_dim:
            raise DataError(
                f'{path}: the files hold {best} values a point, not {load_dim}: of the {expected.sum()} points that boxes of '
                f'this keyframe have by num_lidar_pts, {shares[best]:.0%} are in the boxes with {best} values a point and '
                f'{shares.get(load_dim, 0.0):.0%} with {load_dim}. Prepare with --load-dim {best}, and set load_dim={best} '
                '(and use_dim) of LoadLidarPoints and LoadLidarSweeps in the config (docs/own_data.md)')
        if load_dim in found:  # one that is cut short is told where it is loaded
            counted[path] = found[load_dim], expected
    if counted:
        _judge(counted, load_dim)


def _judge(counted: Mapping[str, tuple[Counts, Counts]], load_dim: int) -> None:
    found, expected = (np.concatenate(parts) for parts in zip(*counted.values()))
    full = expected >= _FULL
    empty = found[full] < _EMPTY * expected[full]
    share = share_found(found, expected)
    text = (f'{", ".join(counted)}: of {full.sum()} boxes with at least {_FULL} points by num_lidar_pts, {empty.sum()} are '
            f'empty, and {share:.0%} of all their points are in the boxes (load_dim={load_dim})')
    remedy = ('check the boxes of sample_annotation.json (global frame; size is width, length, height; rotation w first), the '
              "LiDAR's calibrated_sensor and ego_pose, its points' axes, and num_lidar_pts (points of this keyframe alone)")
    if empty.sum() > _MAX_EMPTY * full.sum():
        raise DataError(f'{text}: points and boxes do not belong together; {remedy}')
    if share < _AGREES:
        print_log(f'{text}: few; {remedy}', 'current', level=30)


def _fullest(nusc: NuScenes, samples: Sequence[Record]) -> list[Record]:
    """The keyframes with most annotated points, at most one a scene."""
    best: dict[str, tuple[int, Record]] = {}
    for sample in samples:
        count = sum(nusc.get('sample_annotation', token)['num_lidar_pts'] for token in sample['anns'])
        if count >= _MIN_POINTS and count > best.get(sample['scene_token'], (0, sample))[0]:
            best[sample['scene_token']] = count, sample
    return [sample for _, sample in sorted(best.values(), key=lambda entry: -entry[0])[:NUM_KEYFRAMES]]


def _boxes(nusc: NuScenes, sample: Record, lidar_token: str) -> tuple[Boxes, Counts]:
    """(K, 7) boxes in the LiDAR frame and (K,) points in each."""
    _, boxes, _ = nusc.get_sample_data(lidar_token)
    rows: list[list[Any]] = []
    for box in boxes:
        width, length, height = box.wlh.tolist()
        rows.append([*box.center.tolist(), length, width, height, box.orientation.yaw_pitch_roll[0]])
    counts = [nusc.get('sample_annotation', token)['num_lidar_pts'] for token in sample['anns']]
    return np.array(rows, dtype=np.float64).reshape(-1, 7), np.array(counts, dtype=np.int64)
