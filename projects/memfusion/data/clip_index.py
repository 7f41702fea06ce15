"""Stage data: which frames make which clip. In: infos, checked keyframes. Out: rows of a timeline, scene after scene, in time.

A row is one LiDAR reading: a keyframe, or (at sweep rate) a sweep that some info lists before its keyframe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.logging import print_log

from .errors import DataError
from .frame_checks import Infos, Ints, Keyframes, check_poses

_GAP = 1.5  # times the usual spacing of readings


@dataclass(frozen=True)
class ClipIndex:
    """R rows, N keyframes of the data list.

    Attributes:
        source: (R,) position in the data list of the info that describes the reading; -1 where no info does.
        slot: (R,) index in that info's `lidar_sweeps`; -1 for the keyframe itself.
        keyframe: (R,) position in the data list of the keyframe that the row is or leads to; -1 as for `source`.
        scene_first: (R,) first row of the row's scene.
        previous_keyframe: (R,) last row before this one that is a keyframe; `scene_first - 1` where there is none.
        is_scene_start: (R,) True for the first frame of a scene: memory is empty before it.
        row_of: (N,) row of every keyframe of the data list.
    """

    source: Ints
    slot: Ints
    keyframe: Ints
    scene_first: Ints
    previous_keyframe: Ints
    is_scene_start: npt.NDArray[np.bool_]
    row_of: Ints

    def history(self, position: int, seq_len: int, frame_stride: int) -> list[int]:
        """Rows of the clip of `seq_len` frames that ends at keyframe `position`, oldest first; -1 is padding."""
        end = int(self.row_of[position])
        rows = end - np.arange(seq_len - 1, -1, -1) * frame_stride
        return self._padded(rows, int(self.scene_first[end]))

    def since_keyframe(self, position: int, length: int, frame_stride: int) -> list[int]:
        """Every `frame_stride`-th row, counted back from keyframe `position`, after the keyframe before it; -1 is padding."""
        end = int(self.row_of[position])
        rows = end - np.arange(length - 1, -1, -1) * frame_stride
        return self._padded(rows, int(self.previous_keyframe[end]) + 1)

    def most_since_keyframe(self, frame_stride: int) -> int:
        """The largest number of rows that `since_keyframe` finds for any keyframe."""
        between = self.row_of - self.previous_keyframe[self.row_of]
        return int(-(-between.max(initial=1) // frame_stride))

    def earlier(self, row: int, count: int) -> range:
        """At most `count` rows of the scene before this one, most recent first."""
        return range(row - 1, max(int(self.scene_first[row]), row - count) - 1, -1)

    def scene_length(self, position: int) -> int:
        """Rows of the scene that keyframe `position` is in, up to its last keyframe."""
        first = self.scene_first[self.row_of[position]]
        return int((self.scene_first == first).sum())

    def _padded(self, rows: Ints, first: int) -> list[int]:
        return [int(row) if row >= first and self.source[row] >= 0 else -1 for row in rows]


def keyframe_index(keyframes: Keyframes) -> ClipIndex:
    """A timeline of keyframes; those that are not in the data list keep a row, which is padding."""
    offsets = np.concatenate([[0], np.cumsum(keyframes.num_frames)])
    row_of = offsets[keyframes.scene] + keyframes.frame
    source = np.full(offsets[-1], -1)
    source[row_of] = np.arange(len(row_of))
    rows, scene_first = np.arange(offsets[-1]), np.repeat(offsets[:-1], keyframes.num_frames)
    return ClipIndex(source, np.full(offsets[-1], -1), source, scene_first, rows - 1, rows == scene_first, row_of)


def reading_index(infos: Infos, keyframes: Keyframes, frame_stride: int, ann_file: str | Path) -> ClipIndex:
    """A timeline of all LiDAR readings that the infos know: keyframes and the sweeps listed before them, each once.

    Raises:
        DataError: naming file and sample, for sweeps without token, stamp or rigid pose, sweeps that are not earlier than
            their keyframe, belong to two scenes, or have the stamp of another reading.
    """
    readings = _collect(infos, keyframes, ann_file)
    order = np.lexsort((readings.stamp_s, readings.scene))
    source, slot, scene, stamp_s = (part[order] for part in
                                    (readings.source, readings.slot, readings.scene, readings.stamp_s))
    same_scene = scene[1:] == scene[:-1]
    for wrong in np.flatnonzero(same_scene & (np.diff(stamp_s) <= 0))[:1]:
        raise DataError(f'{ann_file}: two LiDAR readings of scene {infos[source[wrong]]["scene_token"]} have the stamp '
                        f'{stamp_s[wrong]:.6f} s (listed by samples {infos[source[wrong]]["token"]} and '
                        f'{infos[source[wrong + 1]]["token"]}); make the infos again with tools/create_data.py')
    rows = np.arange(len(source))
    is_key = slot < 0
    scene_first = rows[np.concatenate([[True], ~same_scene])][np.cumsum(np.concatenate([[0], ~same_scene]))]
    following = np.minimum.accumulate(np.where(is_key, rows, len(rows))[::-1])[::-1]  # a scene's last row is a keyframe
    before = np.maximum.accumulate(np.where(is_key, rows, -1))
    previous = np.maximum(np.concatenate([[-1], before[:-1]]), scene_first - 1)
    row_of = np.empty(len(infos), dtype=np.int64)
    row_of[source[is_key]] = rows[is_key]
    keyframe = source[following]
    # The first frame that streaming takes: where the grid of the first keyframe, counted back, begins.
    first_taken = scene_first + (following - scene_first) % frame_stride
    is_start = (rows <= first_taken) & (keyframes.frame[keyframe] == 0)
    _report_gaps(stamp_s, same_scene, is_key, source, readings.oldest_s, ann_file)
    return ClipIndex(source, slot, keyframe, scene_first, previous, is_start, row_of)


@dataclass(frozen=True)
class _Readings:
    """Unsorted: info, slot, scene number and stamp of every reading; per info, the oldest stamp that it lists."""

    source: Ints
    slot: Ints
    scene: Ints
    stamp_s: npt.NDArray[np.float64]
    oldest_s: npt.NDArray[np.float64]


def _collect(infos: Infos, keyframes: Keyframes, ann_file: str | Path) -> _Readings:
    def fail(position: int, number: int, problem: str) -> DataError:
        return DataError(f'{ann_file}: sweep {number} of sample {infos[position]["token"]} (scene '
                         f'{infos[position]["scene_token"]}) {problem}; make the infos again with tools/create_data.py')

    scenes, stamps = keyframes.scene.tolist(), keyframes.stamp_s.tolist()
    seen = {info['lidar_points'].get('sample_data_token', info['token']): scene for info, scene in zip(infos, scenes)}
    rows: list[tuple[int, int]] = []
    sweeps: list[Mapping[str, Any]] = []
    oldest = list(stamps)
    # In time order, so that the first info to list a sweep is that of the keyframe it leads to.
    for position in np.lexsort((keyframes.frame, keyframes.scene)).tolist():
        for number, sweep in enumerate(infos[position].get('lidar_sweeps', ())):
            token, stamp = sweep.get('sample_data_token'), sweep.get('timestamp')
            if token is None or stamp is None:
                raise fail(position, number, 'has no sample_data_token or no timestamp')
            if stamp >= stamps[position]:
                raise fail(position, number, 'is not earlier than its keyframe')
            oldest[position] = min(oldest[position], stamp)
            if token not in seen:
                seen[token] = scenes[position]
                rows.append((position, number))
                sweeps.append(sweep)
            elif seen[token] != scenes[position]:
                raise fail(position, number, f'({token}) belongs to another scene as well')
    check_poses([sweep.get('global_from_lidar') for sweep in sweeps], lambda wrong, problem: fail(*rows[wrong], problem))
    listed = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return _Readings(
        source=np.concatenate([np.arange(len(infos)), listed[:, 0]]),
        slot=np.concatenate([np.full(len(infos), -1), listed[:, 1]]),
        scene=np.concatenate([keyframes.scene, keyframes.scene[listed[:, 0]]]),
        stamp_s=np.concatenate([keyframes.stamp_s, [sweep['timestamp'] for sweep in sweeps]]),
        oldest_s=np.array(oldest))


def _report_gaps(stamp_s: npt.NDArray[np.float64], same_scene: npt.NDArray[np.bool_], is_key: npt.NDArray[np.bool_],
                 source: Ints, oldest_s: npt.NDArray[np.float64], ann_file: str | Path) -> None:
    """Warns where an info lists too few sweeps to reach the keyframe before it (nuScenes has such intervals)."""
    spacing = np.diff(stamp_s)
    if not same_scene.any():
        return
    wide = same_scene & is_key[:-1] & (spacing > _GAP * np.median(spacing[same_scene]))
    cut = wide & (oldest_s[source[1:]] > stamp_s[:-1])
    if cut.any():
        print_log(f"{ann_file}: the sweeps listed by {int(cut.sum())} of {len(oldest_s)} samples do not reach back to the "
                  f"keyframe before, so frame_rate='sweep' misses some readings there; to have them all, make the infos with "
                  'tools/create_data.py --max-sweeps 20', 'current', level=30)
