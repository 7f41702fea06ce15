"""Stage data: marks objects that are hidden now and were seen a moment ago. In: infos of whole scenes. Out: a mark each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import DataError

SEEN_KEY = 'was_seen'
_STAMP_ROUNDING_S = 1e-6  # stamps are whole microseconds, kept as float64 seconds


def mark_seen(infos: Sequence[dict[str, Any]], keep_seen_s: float, use_valid_flag: bool, ann_file: str | Path) -> None:
    """Adds `was_seen` (bool) to every instance, in place.

    It is True where the same object was valid in this keyframe or in an earlier one of the same scene at most `keep_seen_s`
    seconds before, by the LiDAR stamps. Valid is what mmdet3d's filter keeps: `bbox_3d_isvalid` (points of LiDAR or radar)
    with `use_valid_flag`, else `num_lidar_pts > 0`.

    Raises:
        DataError: naming file and sample, where instances have no `instance_token`.
    """
    last_valid_s: dict[tuple[str, str], float] = {}
    for info in sorted(infos, key=lambda info: (info['scene_token'], info['frame_index'])):
        stamp_s = info['lidar_points'].get('timestamp')
        if stamp_s is None:
            raise DataError(f"{ann_file}: sample {info['token']} has no lidar_points['timestamp']; make the infos again with "
                            'tools/create_data.py')
        for instance in info.get('instances') or ():
            token = instance.get('instance_token')
            if token is None:
                raise DataError(f'{ann_file}: the instances of sample {info["token"]} have no instance_token, which '
                                f'keep_seen_s={keep_seen_s:g} needs to follow objects; make the infos again with '
                                'tools/create_data.py, or set keep_seen_s=0')
            key = info['scene_token'], token
            if instance['bbox_3d_isvalid'] if use_valid_flag else instance['num_lidar_pts'] > 0:
                last_valid_s[key] = stamp_s
            instance[SEEN_KEY] = stamp_s - last_valid_s.get(key, -float('inf')) <= keep_seen_s + _STAMP_ROUNDING_S
