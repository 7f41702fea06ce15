"""Sensor stage: the ego's LiDAR and its cameras; where they sit (ego frame), what they look at, when they fire."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.settings import DISTORTION_COEFFICIENTS, SWEEP_PERIOD_US
from projects.synthetic_nuscenes.transforms import FloatArray, make_transform, yaw_rotation

LIDAR_CHANNEL = 'LIDAR_TOP'
RING_ELEVATIONS_DEG = tuple(float(value) for value in np.linspace(-30.67, 10.67, 32))
SWEEP_START_DEG = 108.5
_FULL_WH_PX = (1600, 900)


def _rotation_x(angle_rad: float) -> FloatArray:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


def _rotation_y(angle_rad: float) -> FloatArray:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def ego_from_lidar() -> FloatArray:
    """(4, 4); LiDAR x right, y forward, z up, tilted a little nose-down as on the real car."""
    rotation = _rotation_y(np.radians(1.39)) @ _rotation_x(np.radians(0.33)) @ yaw_rotation(np.array(-np.pi / 2))
    return make_transform(rotation, np.array([0.944, 0.0, 1.84]))


@dataclass(frozen=True)
class Camera:
    """One camera; z forward, x right, y down.

    Attributes:
        yaw_deg: viewing direction in the ego frame, left positive; pitch_deg: up positive; roll_deg.
        position_m: in the ego frame.
        focal_px, center_px: at 1600x900.
    """

    channel: str
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    position_m: tuple[float, float, float]
    focal_px: float
    center_px: tuple[float, float]

    def ego_from_cam(self) -> FloatArray:
        """(4, 4)."""
        base = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        pitch, roll = _rotation_y(-np.radians(self.pitch_deg)), _rotation_x(np.radians(self.roll_deg))
        rotation = yaw_rotation(np.radians(self.yaw_deg)) @ pitch @ roll @ base
        return make_transform(rotation, np.asarray(self.position_m))

    def intrinsic(self, image_wh_px: tuple[int, int]) -> FloatArray:
        """(3, 3) img_from_cam, scaled from 1600x900; pixel centres are at whole numbers."""
        scale_x, scale_y = image_wh_px[0] / _FULL_WH_PX[0], image_wh_px[1] / _FULL_WH_PX[1]
        matrix = np.eye(3)
        matrix[0, 0], matrix[1, 1] = self.focal_px * scale_x, self.focal_px * scale_y
        matrix[0, 2] = (self.center_px[0] + 0.5) * scale_x - 0.5
        matrix[1, 2] = (self.center_px[1] + 0.5) * scale_y - 0.5
        return matrix

    @property
    def delay_us(self) -> int:
        """Microseconds after the start of the sweep at which the LiDAR passes the camera's centre."""
        return round(((SWEEP_START_DEG - self.yaw_deg) % 360.0) / 360.0 * SWEEP_PERIOD_US)


CAMERAS: tuple[Camera, ...] = (
    Camera('CAM_FRONT', 0.3, -0.3, 0.05, (1.7, 0.016, 1.51), 1266.0, (816.0, 491.0)),
    Camera('CAM_FRONT_RIGHT', -56.4, -0.8, 0.5, (1.55, -0.493, 1.496), 1261.0, (808.0, 495.0)),
    Camera('CAM_FRONT_LEFT', 55.2, 0.1, -0.05, (1.524, 0.495, 1.509), 1273.0, (827.0, 480.0)),
    Camera('CAM_BACK', 179.9, 0.95, 0.2, (0.028, 0.003, 1.579), 809.0, (829.0, 482.0)),
    Camera('CAM_BACK_LEFT', 108.6, -0.9, 0.2, (1.036, 0.485, 1.591), 1257.0, (792.0, 493.0)),
    Camera('CAM_BACK_RIGHT', -110.8, -0.9, -0.6, (1.015, -0.481, 1.562), 1260.0, (807.0, 501.0)),
)

_OTHER_CAMERAS: tuple[Camera, ...] = (
    Camera('CAM_FRONT', 10.3, -0.3, 0.05, (1.5, 0.216, 1.61), 1010.0, (790.0, 470.0)),
    Camera('CAM_FRONT_RIGHT', -64.4, -6.8, 0.5, (1.75, -0.393, 1.696), 1580.0, (830.0, 455.0)),
    Camera('CAM_FRONT_LEFT', 47.2, -5.9, -0.05, (1.724, 0.695, 1.609), 960.0, (800.0, 500.0)),
    Camera('CAM_BACK', -170.1, 0.95, 0.2, (-0.072, -0.197, 1.779), 1050.0, (770.0, 460.0)),
    Camera('CAM_BACK_RIGHT', -104.8, -8.9, -0.6, (0.815, -0.681, 1.662), 1540.0, (780.0, 450.0)),
)
RIGS: dict[str, tuple[Camera, ...]] = {'nuscenes': CAMERAS, 'other': _OTHER_CAMERAS, 'front': CAMERAS[:1]}
"""By name. 'other' is another car: each camera sits 0.3 m from nuScenes', looks 10 degrees past it and has another focal
length and centre; the one at the back left is not there. 'front' has nuScenes' front camera alone."""


def distortion_record(model: str) -> dict[str, object] | None:
    """What calibrated_sensor stores under `distortion`, or None for a pinhole."""
    if model == 'none':
        return None
    return {'model': model, 'coefficients': list(DISTORTION_COEFFICIENTS[model])}
