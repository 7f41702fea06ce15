"""Stage data: one clip while it is loaded. In: rows of the index and infos. Out: what the pipeline takes for each frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .clip_index import ClipIndex
from .point_files import PointFiles
from .poses import Pose, relative_pose

Info = dict[str, Any]
_RECORD_KEYS = ('timestamp', 'sample_data_token', 'global_from_lidar', 'ego2global', 'lidar_points')
_KEYFRAME_KEYS = ('sample_idx', 'token', 'scene_token', 'frame_index', 'num_frames', 'num_pts_feats')


class Clip:
    """What the frames of one item share: unpacked infos, point files that were read, the seed of the augmentation.

    Args:
        index: the data set's.
        rows: T rows of it, oldest first; -1 is padding. The last one is a keyframe.
        seed: of the clip's augmentation.
        load_info: gives the info at a position of the data list.
        num_listed: earlier sweeps to list for a frame at sweep rate; None is keyframe rate, where infos stay as they are.
    """

    def __init__(self, index: ClipIndex, rows: Sequence[int], seed: int, load_info: Callable[[int], Info],
                 num_listed: int | None) -> None:
        self.rows, self.seed, self.files = rows, seed, PointFiles()
        self._index, self._load_info, self._num_listed = index, load_info, num_listed
        self._infos: dict[int, Info] = {}

    def info(self, row: int) -> Info:
        """The info of a row: its keyframe's, or for a sweep one made from what its keyframe lists."""
        keyframe = self._info_at(int(self._index.keyframe[row]))
        if self._num_listed is None:
            return keyframe
        info = keyframe if self._index.slot[row] < 0 else sweep_frame_info(keyframe, self._record(row))
        return with_sweeps(info, [self._record(earlier) for earlier in self._index.earlier(row, self._num_listed)])

    def metainfo(self, row: int, info: Info) -> dict[str, Any]:
        """The metainfo of META_KEYS of a frame, before augmentation and alignment.

        `frame_index` and `sample_token` of a sweep are those of the keyframe that it leads to.
        """
        is_keyframe = bool(self._index.slot[row] < 0)
        return {
            'sample_idx': info['sample_idx'],
            'sample_token': info['token'],
            'scene_token': info['scene_token'],
            'frame_index': info['frame_index'],
            'is_scene_start': bool(self._index.is_scene_start[row]),
            'is_scene_end': is_keyframe and info['frame_index'] == info['num_frames'] - 1,
            'timestamp_s': float(info['lidar_points']['timestamp']),
            'global_from_lidar': np.asarray(info['global_from_lidar'], dtype=np.float64),
            'bev_aug': np.eye(4),
            'is_keyframe': is_keyframe,
            'frame_valid': True,
        }

    def end_from(self, info: Info) -> Pose:
        """(4, 4) float64: from this frame's LiDAR coordinates to those of the clip's last frame."""
        end = self._info_at(int(self._index.keyframe[self.rows[-1]]))
        return relative_pose(end['global_from_lidar'], info['global_from_lidar'])

    def _record(self, row: int) -> Info:
        return sweep_record(self._info_at(int(self._index.source[row])), int(self._index.slot[row]))

    def _info_at(self, position: int) -> Info:
        if position not in self._infos:
            self._infos[position] = self._load_info(position)
        return self._infos[position]


def sweep_record(info: Mapping[str, Any], slot: int) -> Info:
    """An entry of `lidar_sweeps` that is true for every frame: of sweep `slot` of this info, or (-1) of the keyframe itself."""
    if slot >= 0:
        record = info['lidar_sweeps'][slot]
        stamp_s, token = record['timestamp'], record['sample_data_token']
    else:
        record = info
        stamp_s, token = info['lidar_points']['timestamp'], info['lidar_points'].get('sample_data_token')
    # mmdet3d's lidar2sensor is relative to the keyframe that lists the sweep, so it is wrong for any other frame.
    lidar_points = {key: value for key, value in record['lidar_points'].items() if key != 'lidar2sensor'}
    kept = {key: record[key] for key in _RECORD_KEYS if key in record}
    return {**kept, 'timestamp': stamp_s, 'sample_data_token': token, 'lidar_points': lidar_points}


def sweep_frame_info(keyframe: Mapping[str, Any], record: Mapping[str, Any]) -> Info:
    """The info of a frame between keyframes: its own points, pose and stamp; no images, no instances.

    Args:
        keyframe: info of the keyframe that it leads to, which it is named after.
        record: what `sweep_record` gave.
    """
    lidar_points = {**record['lidar_points'], 'timestamp': record['timestamp'],
                    'num_pts_feats': keyframe.get('num_pts_feats')}
    info = {key: record[key] for key in ('timestamp', 'global_from_lidar', 'ego2global') if key in record}
    info.update({key: keyframe[key] for key in _KEYFRAME_KEYS if key in keyframe})
    return {**info, 'lidar_points': lidar_points, 'lidar_path': lidar_points['lidar_path'], 'instances': []}


def with_sweeps(info: Info, records: Sequence[Mapping[str, Any]]) -> Info:
    """The info with these earlier sweeps, most recent first; like mmdet3d's, it has no `lidar_sweeps` where there are none."""
    bare = {key: value for key, value in info.items() if key != 'lidar_sweeps'}
    return {**bare, 'lidar_sweeps': list(records)} if records else bare
