"""Sensor stage: when each sensor fires in a scene; settings in, lists of integer microsecond stamps out (no frame)."""

from __future__ import annotations

from dataclasses import dataclass

from projects.synthetic_nuscenes.rig import LIDAR_CHANNEL, RIGS
from projects.synthetic_nuscenes.settings import FORECAST_KINDS, SCENE_KINDS, SWEEP_PERIOD_US, SWEEPS_PER_KEYFRAME, Settings

# Of ten sweeps, those in which the cameras fire: 12 Hz on the LiDAR's 20 Hz.
_CAMERA_SWEEPS = frozenset({0, 1, 3, 5, 6, 8})
_FIRST_STAMP_US = 1_532_402_927_647_951


@dataclass(frozen=True)
class Reading:
    """One reading of one sensor.

    Attributes:
        sweep: index of the LiDAR turn it belongs to.
        stamp_us: microseconds since 1970.
        keyframe: index of the sample it belongs to (for a sweep: the next one).
    """

    channel: str
    sweep: int
    stamp_us: int
    keyframe: int
    is_key_frame: bool


def scene_start_us(scene_name: str) -> int:
    """Stamp of the first keyframe: scene time 0."""
    return _FIRST_STAMP_US + 61_000_137 * [*SCENE_KINDS, *FORECAST_KINDS].index(scene_name)


def scene_time_s(scene_name: str, stamp_us: int) -> float:
    """Seconds since the first keyframe."""
    return (stamp_us - scene_start_us(scene_name)) * 1e-6


def scene_readings(settings: Settings, scene_name: str) -> dict[str, list[Reading]]:
    """Readings of every channel in order of time; a scene starts and ends with a keyframe."""
    start, cameras = scene_start_us(scene_name), RIGS[settings.rig]
    readings: dict[str, list[Reading]] = {LIDAR_CHANNEL: [], **{camera.channel: [] for camera in cameras}}
    for sweep in range((settings.keyframes - 1) * SWEEPS_PER_KEYFRAME + 1):
        stamp = start + sweep * SWEEP_PERIOD_US
        keyframe, phase = -(-sweep // SWEEPS_PER_KEYFRAME), sweep % SWEEPS_PER_KEYFRAME
        if phase == 0 or settings.lidar_sweeps:
            readings[LIDAR_CHANNEL].append(Reading(LIDAR_CHANNEL, sweep, stamp, keyframe, phase == 0))
        if phase == 0 or (settings.camera_sweeps and phase in _CAMERA_SWEEPS):
            for camera in cameras:
                fired = stamp - SWEEP_PERIOD_US + camera.delay_us
                readings[camera.channel].append(Reading(camera.channel, sweep, fired, keyframe, phase == 0))
    return readings
