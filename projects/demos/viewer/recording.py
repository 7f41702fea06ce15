"""Demo, viewer. In: what one frame holds. Out: a Rerun recording (.rrd), along `frame` and along `time`.

The world is the global frame moved to where the LiDAR was at first, so that float32 holds it to a tenth of a millimetre; boxes
and points are in the LiDAR's coordinates below `world/lidar`.
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.visualization import QueryRecord
from projects.memfusion.visualization.queries import QUERY_COLORS
from projects.memfusion.visualization.style import EGO, HIDDEN, PREDICTION, TRUTH, Color, colorize

from .boxes import ViewedBoxes
from .sensors import ViewedCamera

PIP = 'pip install -r requirements/viewer.txt'
_FRUSTUM_M, _GROUND_M = 2.0, -1.84
_HEIGHTS_M = (-3.0, 3.0)
_LAG_S = 0.5
_MAPS = dict(gate=1.0)
"""Maps that end at a value; others at their own largest."""


def import_rerun() -> Any:
    """The library, which nothing else needs; UserError names the command that installs it."""
    try:
        return importlib.import_module('rerun')
    except ImportError as error:
        raise UserError(f'the viewer needs rerun-sdk, which cannot be imported ({error}): {PIP}') from error


class SceneRecording:
    """Writes the frames of one scene, in time order.

    Args:
        path: of the file; it appears when `close` is called.
        origin_m: (3,) of the world, global frame.
        blueprint: how the window begins.
    """

    def __init__(self, path: Path, origin_m: np.ndarray, blueprint: Any) -> None:
        self._rr, self._path, self._origin_m = import_rerun(), path, origin_m
        self._part = path.with_name(path.name + '.part')
        path.parent.mkdir(parents=True, exist_ok=True)
        self._to = self._rr.new_recording('memfusion')
        self._rr.save(self._part, default_blueprint=blueprint, recording=self._to)
        self._log('world', self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._log('world', self._rr.AnyValues(origin_global_m=origin_m), static=True)
        self._world_from_lidar = np.eye(4)
        self._trails: dict[str, dict[str, list[np.ndarray]]] = {}

    def close(self) -> None:
        """Ends the file."""
        self._rr.disconnect(recording=self._to)
        os.replace(self._part, self._path)

    def begin(self, number: int, time_s: float, global_from_lidar: np.ndarray) -> None:
        """The next frame: its number in the scene, its stamp, where the LiDAR was (4, 4)."""
        self._rr.set_time_sequence('frame', number, recording=self._to)
        self._rr.set_time_seconds('time', time_s, recording=self._to)
        self._world_from_lidar = global_from_lidar.copy()
        self._world_from_lidar[:3, 3] -= self._origin_m
        self._log('world/lidar', self._transform(self._world_from_lidar))
        self._trail('ego', {'': self._world_from_lidar[:3, 3]}, EGO)

    def points(self, points: np.ndarray, sweeps: np.ndarray) -> None:
        """(P, 3+) of the frame, coloured by height; (S, 4) of sweeps before it with their lag, the darker the older."""
        self._log('world/lidar/points', self._rr.Points3D(
            points[:, :3], colors=colorize(points[:, 2], *_HEIGHTS_M), radii=0.04))
        if len(sweeps):
            grey = np.clip(220 - 150 * sweeps[:, 3:] / _LAG_S, 60, 220).astype(np.uint8)
            self._log('world/lidar/sweeps', self._rr.Points3D(sweeps[:, :3], colors=np.repeat(grey, 3, axis=1), radii=0.02))

    def cameras(self, cameras: Mapping[str, ViewedCamera], time_s: float) -> None:
        """Poses, frustums and images, each at its own stamp on the timeline `time`."""
        for name, camera in cameras.items():
            entity, rr = f'world/cameras/{name}', self._rr
            rr.set_time_seconds('time', time_s if camera.time_s is None else camera.time_s, recording=self._to)
            self._log(entity, self._transform(self._world_from_lidar @ camera.lidar_from_cam))
            matrix = camera.img_from_cam.copy()
            matrix[:2, 2] += 0.5  # our pixels have integers at their centres, Rerun's at their corners
            self._log(entity, rr.Pinhole(
                image_from_camera=matrix, resolution=camera.hw[::-1], camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=_FRUSTUM_M))
            self._log(f'{entity}/image', rr.EncodedImage(contents=camera.content, media_type=camera.media_type))
        self._rr.set_time_seconds('time', time_s, recording=self._to)

    def truth(self, boxes: ViewedBoxes) -> None:
        """Objects with points and, below `hidden`, those without; where each object was so far."""
        self._boxes('world/lidar/truth', boxes.keep(~boxes.hidden), TRUTH)
        self._boxes('world/lidar/truth/hidden', boxes.keep(boxes.hidden), _dark(TRUTH))
        self._trail('truth', self._places(boxes), None)

    def predictions(self, boxes: ViewedBoxes) -> None:
        """Boxes with their scores; where their tracks were so far, if they have any."""
        self._boxes('world/lidar/predictions', boxes, PREDICTION)
        self._trail('predictions', self._places(boxes), None)

    def futures(self, global_xy: np.ndarray, probabilities: np.ndarray) -> None:
        """(n, M, S, 2) metres, global frame, on the ground under the LiDAR; (n, M): the likelier, the brighter."""
        height_m = self._world_from_lidar[2, 3] + _GROUND_M
        paths = global_xy.reshape(-1, *global_xy.shape[-2:]) - self._origin_m[:2]
        strips = [np.column_stack([path, np.full(len(path), height_m)]) for path in paths]
        bright = 0.35 + 0.65 * probabilities.reshape(-1, 1)
        self._log('world/trajectories/futures', self._rr.LineStrips3D(
            strips, colors=(bright * PREDICTION).astype(np.uint8), radii=0.05))

    def map(self, name: str, values: np.ndarray, range_m: Sequence[float]) -> None:
        """(Hm, Wm), row 0 at y_min, as an image of numbers (x right, y up); the gate also lies on the ground of the scene."""
        top = _MAPS.get(name) or max(float(values.max()), 1e-6)
        self._log(f'maps/{name}', self._rr.DepthImage(
            values[::-1].astype(np.float32), colormap='inferno', depth_range=(0.0, top)))
        if name != 'gate':
            return
        x_min, y_min, _, x_max, y_max, _ = range_m
        corners = [(x_min, y_max), (x_max, y_max), (x_max, y_min), (x_min, y_min)]
        self._log('world/lidar/gate', self._rr.Mesh3D(
            vertex_positions=[(x, y, _GROUND_M) for x, y in corners], triangle_indices=[(0, 1, 2), (0, 2, 3)],
            vertex_texcoords=[(0, 0), (1, 0), (1, 1), (0, 1)],
            albedo_texture=colorize(values[::-1], 0.0, 1.0, cv2.COLORMAP_INFERNO)))

    def numbers(self, values: Mapping[str, float]) -> None:
        """One plot each, below `memory`."""
        for name, value in values.items():
            self._log(f'memory/{name}', self._rr.Scalar(value))

    def queries(self, record: QueryRecord, cameras: Mapping[str, ViewedCamera]) -> None:
        """Where all queries end, coloured by score, and where the best look in the last layer, one colour each."""
        ends = record.boxes[-1]
        self._log('world/lidar/queries/ends', self._rr.Points3D(
            ends[:, :3], colors=colorize(record.scores, 0.0, 1.0), radii=0.08))
        looks = record.looks()
        if looks.points_m is None:
            return
        colors = np.array([QUERY_COLORS[k % len(QUERY_COLORS)] for k in range(len(record.chosen))], dtype=np.uint8)
        samples = colors.repeat(looks.points_m.shape[1], axis=0)
        self._log('world/lidar/queries/samples', self._rr.Points3D(looks.points_m.reshape(-1, 3), colors=samples, radii=0.06))
        if looks.uv_px is None or record.rig is None:
            return
        for name, uv_px in zip(record.rig.cam_names, looks.uv_px.reshape(len(looks.uv_px), -1, 2)):
            if name in cameras and not cameras[name].bent:
                read = np.isfinite(uv_px).all(axis=1)
                self._log(f'world/cameras/{name}/queries', self._rr.Points2D(
                    uv_px[read] + 0.5, colors=samples[read], radii=3.0))

    # -- parts --------------------------------------------------------------------------------------------------------
    def _log(self, entity: str, what: Any, static: bool = False) -> None:
        self._rr.log(entity, what, static=static, recording=self._to)

    def _transform(self, matrix: np.ndarray) -> Any:
        return self._rr.Transform3D(translation=matrix[:3, 3],
                                    quaternion=self._rr.Quaternion(xyzw=Rotation.from_matrix(matrix[:3, :3]).as_quat()))

    def _boxes(self, entity: str, boxes: ViewedBoxes, color: Color) -> None:
        colors = [HIDDEN if hidden and boxes.scores is not None else color for hidden in boxes.hidden]
        self._log(entity, self._rr.Boxes3D(
            centers=boxes.centre_m, half_sizes=boxes.size_m / 2, quaternions=boxes.quaternion_xyzw, labels=boxes.labels,
            colors=np.array(colors, np.uint8).reshape(-1, 3)))
        if boxes.scores is not None:
            self._log(entity, self._rr.AnyValues(score=boxes.scores))
        known = np.isfinite(boxes.velocity_mps).all(axis=1)
        self._log(f'{entity}/velocity', self._rr.Arrows3D(
            origins=boxes.centre_m[known], vectors=boxes.velocity_mps[known], colors=[color], radii=0.05))

    def _places(self, boxes: ViewedBoxes) -> dict[str, np.ndarray]:
        """World positions by object, of boxes that say which they are."""
        places = boxes.centre_m @ self._world_from_lidar[:3, :3].T + self._world_from_lidar[:3, 3]
        return {track: place for track, place in zip(boxes.tracks, places) if track}

    def _trail(self, group: str, places: Mapping[str, np.ndarray], color: Color | None) -> None:
        """Lines of the scene so far, of what is there now; nothing where no frame so far said which object is which."""
        trails = self._trails.setdefault(group, {})
        for track, place in places.items():
            trails.setdefault(track, []).append(place)
        if trails:
            colors = np.array([color or _color_of(track) for track in places], dtype=np.uint8).reshape(-1, 3)
            strips = [np.array(trails[track]) for track in places]
            self._log(f'world/trajectories/{group}', self._rr.LineStrips3D(strips, colors=colors, radii=0.06))


def _dark(color: Color) -> Color:
    return color[0] // 2, color[1] // 2, color[2] // 2


def _color_of(track: str) -> Color:
    """The same for the same object."""
    red, green, blue = colorize(np.array(zlib.crc32(track.encode()) % 1000), 0, 1000).tolist()
    return red, green, blue
