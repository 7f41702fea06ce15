"""Metric. In: truth, when it was seen last, how it and the ego move. Out: which hidden boxes lie in which stratum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .box_tables import Bools, Floats, Ints, TruthTable

STANDING_MPS = 0.5
_EGO_MPS = {'ego_standing': (0.0, 0.5), 'ego_slow': (0.5, 5.0), 'ego_fast': (5.0, math.inf)}
TURNING_RAD_S = math.radians(3.0)
_GAPS = {'gap1': (1, 1), 'gap2': (2, 2), 'gap3': (3, 3), 'gap4': (4, 4)}
_LONG_GAPS = {'gap3-4': (3, 4), 'gap5-8': (5, 8), 'gap9-12': (9, 12)}


@dataclass(frozen=True)
class HiddenFacts:
    """Of all truth boxes; n rows.

    Attributes:
        gap_us: (n,) microseconds since the instance last held a LiDAR point in an earlier keyframe; -1 for never.
        gap_frames: (n,) the same in keyframes.
        speed_mps: (n,) of the box on the ground; NaN where nobody knows.
        ego_speed_mps, ego_turn_rad_s: (n,) of the ego since the keyframe before.
    """

    gap_us: Ints
    gap_frames: Ints
    speed_mps: Floats
    ego_speed_mps: Floats
    ego_turn_rad_s: Floats


def last_seen(infos: Sequence[Mapping[str, Any]]) -> list[tuple[Ints, Ints]]:
    """Per info, (instances,) microseconds and keyframes since the same instance held a LiDAR point in an earlier keyframe of
    its scene; -1 for never. Infos of whole scenes, in any order."""
    stamps_us = [round(info['lidar_points']['timestamp'] * 1e6) for info in infos]
    last: dict[tuple[str, str], tuple[int, int]] = {}
    gaps = [(np.full(len(info['instances']), -1), np.full(len(info['instances']), -1)) for info in infos]
    for position in sorted(range(len(infos)), key=stamps_us.__getitem__):
        info, now = infos[position], (stamps_us[position], int(infos[position]['frame_index']))
        for row, instance in enumerate(info['instances']):
            name = info['scene_token'], instance['instance_token']
            if name in last:
                for gap, here, then in zip(gaps[position], now, last[name]):
                    gap[row] = here - then
            if instance['num_lidar_pts'] > 0:
                last[name] = now
    return gaps


def ego_motion(infos: Sequence[Mapping[str, Any]]) -> Floats:
    """(infos, 2) speed in m/s and turn rate in rad/s of the ego since the keyframe before; of a scene's first, to the next."""
    scenes: dict[str, list[int]] = {}
    for position in sorted(range(len(infos)), key=lambda row: infos[row]['lidar_points']['timestamp']):
        scenes.setdefault(infos[position]['scene_token'], []).append(position)
    rates = np.zeros((len(infos), 2))
    for rows in scenes.values():
        poses = np.array([infos[row]['ego2global'] for row in rows], dtype=np.float64)
        gaps_s = np.diff([infos[row]['lidar_points']['timestamp'] for row in rows])
        way_m = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1)
        yaw = np.unwrap(np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
        if len(rows) > 1:
            found = np.stack([way_m, np.abs(np.diff(yaw))], axis=1) / gaps_s[:, None]
            rates[rows] = np.concatenate([found[:1], found])
    return rates


def hidden_strata(truth: TruthTable, seen_s: float, long_s: float) -> dict[str, Bools]:
    """`{name: (n,)}` of boxes without points: splits of `0pts_seen`, and `0pts_seen_A-Bs`, last seen between A = `seen_s` and
    B = `long_s` ago, with its splits. By the box: standing, moving; by the ego: ego_standing, ego_slow, ego_fast,
    ego_straight, ego_turning; by keyframes since it was seen: gap1 ... Empty where the facts are not known."""
    facts = truth.hidden
    if facts is None:
        return {}
    known = (truth.num_lidar_pts == 0) & (facts.gap_us >= 0)
    limits_us = round(seen_s * 1e6), round(long_s * 1e6)
    short = known & (facts.gap_us <= limits_us[0])
    late = known & (facts.gap_us > limits_us[0]) & (facts.gap_us <= limits_us[1])
    splits = {'standing': facts.speed_mps < STANDING_MPS, 'moving': facts.speed_mps >= STANDING_MPS,
              'ego_straight': facts.ego_turn_rad_s < TURNING_RAD_S, 'ego_turning': facts.ego_turn_rad_s >= TURNING_RAD_S}
    splits |= {name: (low <= facts.ego_speed_mps) & (facts.ego_speed_mps < high) for name, (low, high) in _EGO_MPS.items()}
    masks: dict[str, Bools] = {}
    for name, inside, gaps in (('0pts_seen', short, _GAPS), (f'0pts_seen_{seen_s:g}-{long_s:g}s', late, _LONG_GAPS)):
        by_gap = {gap: (low <= facts.gap_frames) & (facts.gap_frames <= high) for gap, (low, high) in gaps.items()}
        masks |= {name: inside} | {f'{name}_{split}': inside & chosen for split, chosen in (splits | by_gap).items()}
    del masks['0pts_seen']  # it is one of `strata`
    return masks
