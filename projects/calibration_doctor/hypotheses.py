"""Doctor. In: a grid of possible faults. Out: for each a 3x4 matrix from the LiDAR frame to the camera frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PARAMETERS = ('yaw_deg', 'pitch_deg', 'roll_deg', 'delay_ms', 'zoom')
"""Of the camera about its own y, x and z axis; how much later the image was taken; share added to the focal lengths."""


@dataclass(frozen=True)
class Grid:
    """Values of every parameter that are tried, each with each. What a Grid holds corrects the file's calibration."""

    yaw_deg: tuple[float, ...] = (0.0,)
    pitch_deg: tuple[float, ...] = (0.0,)
    roll_deg: tuple[float, ...] = (0.0,)
    delay_ms: tuple[float, ...] = (0.0,)
    zoom: tuple[float, ...] = (0.0,)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(getattr(self, name)) for name in PARAMETERS)

    def axis(self, name: str) -> Floats:
        """(K,) values of one parameter."""
        return np.asarray(getattr(self, name))

    def around(self, **centers: float) -> Grid:
        """The grid moved by these amounts."""
        return replace(self, **{name: tuple(self.axis(name) + center) for name, center in centers.items()})

    def rows(self) -> Floats:
        """(G, 5) all combinations, the last parameter fastest."""
        mesh = np.meshgrid(*(self.axis(name) for name in PARAMETERS), indexing='ij')
        return np.stack([values.ravel() for values in mesh], axis=1)


def span(reach: float, step: float) -> tuple[float, ...]:
    """-reach .. reach in steps, 0 exactly in the middle."""
    count = round(reach / step)
    return tuple(round(index * step, 6) for index in range(-count, count + 1))


def hypothesis_matrices(grid: Grid, cam_from_lidar: Floats, velocity: Floats) -> Floats:
    """(G, 3, 4) camera points from LiDAR points under every combination.

    Args:
        cam_from_lidar: (4, 4) of the file.
        velocity: (6,) of the LiDAR in its own frame, m/s and rad/s.
    """
    rows = grid.rows()
    yaw, pitch, roll = np.radians(rows[:, :3]).T
    one, zero = np.ones(len(rows)), np.zeros(len(rows))
    turn_y = _matrices([[np.cos(yaw), zero, np.sin(yaw)], [zero, one, zero], [-np.sin(yaw), zero, np.cos(yaw)]])
    turn_x = _matrices([[one, zero, zero], [zero, np.cos(pitch), -np.sin(pitch)], [zero, np.sin(pitch), np.cos(pitch)]])
    turn_z = _matrices([[np.cos(roll), -np.sin(roll), zero], [np.sin(roll), np.cos(roll), zero], [zero, zero, one]])
    stretch = _matrices([[1 + rows[:, 4], zero, zero], [zero, 1 + rows[:, 4], zero], [zero, zero, one]])
    moved = np.stack([cam_from_lidar @ ego_motion(velocity, delay / 1e3) for delay in grid.delay_ms])
    fastest = len(grid.zoom) * len(grid.delay_ms)
    delays = np.tile(np.repeat(np.arange(len(grid.delay_ms)), len(grid.zoom)), len(rows) // fastest)
    return (stretch @ turn_y @ turn_x @ turn_z) @ moved[delays][:, :3]


def ego_motion(velocity: Floats, seconds: float) -> Floats:
    """(4, 4): a still point, from the LiDAR frame now to the LiDAR frame this much later."""
    x, y, z = velocity[3:] * seconds  # small angles
    result = np.eye(4)
    result[:3, :3] = [[1, z, -y], [-z, 1, x], [y, -x, 1]]
    result[:3, 3] = -velocity[:3] * seconds
    return result


def _matrices(entries: list[list[Floats]]) -> Floats:
    return np.stack([np.stack(row, axis=-1) for row in entries], axis=-2)
