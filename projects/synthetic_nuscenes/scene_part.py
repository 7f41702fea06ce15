"""Writing stage: one scene's files and table rows; settings and a scene name in, `samples/`, `sweeps/`, rows out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.synthetic_nuscenes.annotate import Annotator, Record
from projects.synthetic_nuscenes.camera_labels import CameraLabelWriter
from projects.synthetic_nuscenes.camera_model import Canvas, make_canvas
from projects.synthetic_nuscenes.ground_map import ground_picture, map_mask
from projects.synthetic_nuscenes.lidar import take_sweep
from projects.synthetic_nuscenes.map_expansion import MAPS
from projects.synthetic_nuscenes.map_geometry import map_content
from projects.synthetic_nuscenes.naming import random_stream, token
from projects.synthetic_nuscenes.prediction_split import PREDICTION, prediction_rows
from projects.synthetic_nuscenes.raycast import make_ray_grid
from projects.synthetic_nuscenes.renderer import render
from projects.synthetic_nuscenes.rig import LIDAR_CHANNEL, RIGS, Camera, distortion_record, ego_from_lidar
from projects.synthetic_nuscenes.schedule import Reading, scene_readings, scene_time_s
from projects.synthetic_nuscenes.settings import DISTORTION_COEFFICIENTS, Settings
from projects.synthetic_nuscenes.snapshot import SceneSnapshots
from projects.synthetic_nuscenes.transforms import FloatArray, apply, invert, rotation_to_wxyz
from projects.synthetic_nuscenes.world import build_scene

JPEG_QUALITY = 92


class SceneWriter:
    """Writes one scene below `root`; `tables` then holds its rows."""

    def __init__(self, settings: Settings, scene_name: str, root: Path) -> None:
        self.settings, self.root, self.name = settings, root, scene_name
        self.cameras = RIGS[settings.rig]
        self.scene = build_scene(settings, scene_name)
        self.snapshots = SceneSnapshots(self.scene)
        self.readings = scene_readings(settings, scene_name)
        keyframes = [reading for reading in self.readings[LIDAR_CHANNEL] if reading.is_key_frame]
        self.keyframe_stamps_us = [reading.stamp_us for reading in keyframes]
        times = [scene_time_s(scene_name, stamp) for stamp in self.keyframe_stamps_us]
        self.annotator = Annotator(self.scene, settings.seed, times)
        self.logfile = f'synthetic-{settings.preset}-{settings.seed}-{scene_name}'
        self.tables: dict[str, list[Record]] = {}

    def _token(self, *names: object) -> str:
        return token(self.settings.seed, self.name, *names)

    def _path(self, reading: Reading) -> str:
        folder = 'samples' if reading.is_key_frame else 'sweeps'
        ending = 'pcd.bin' if reading.channel == LIDAR_CHANNEL else 'jpg'
        return f'{folder}/{reading.channel}/{self.logfile}__{reading.channel}__{reading.stamp_us}.{ending}'

    def write(self) -> dict[str, list[Record]]:
        """Write all files of the scene; returns its rows by table."""
        self._write_sweeps()
        self._write_pictures()
        self._write_map()
        self._add_calibration()
        self._add_samples()
        for channel in self.readings:
            self._add_readings(channel)
        self.tables['instance'], self.tables['sample_annotation'] = self.annotator.records()
        if self.settings.forecast:
            self.tables[PREDICTION] = prediction_rows(self.annotator)
            streets = {'scene': self.name, 'location': self.scene.location, 'content': map_content(self.scene)}
            self.tables[MAPS] = [streets]
        return self.tables

    def _write_sweeps(self) -> None:
        grid = make_ray_grid(self.settings.azimuth_steps)
        for reading in self.readings[LIDAR_CHANNEL]:
            t_s = scene_time_s(self.name, reading.stamp_us)
            rng = random_stream(self.settings.seed, 'sweep', self.name, reading.sweep)
            sweep = take_sweep(self.snapshots, grid, t_s, rng, self.settings.sweep_motion)
            sweep.tofile(self.root / self._path(reading))
            if reading.is_key_frame:
                global_from_lidar = self.scene.ego_pose(t_s) @ ego_from_lidar()
                points = apply(global_from_lidar, sweep[:, :3].astype(np.float64))
                self.annotator.see_points(reading.keyframe, points)

    def _canvas(self, camera: Camera) -> Canvas:
        size, model = self.settings.image_wh_px, self.settings.distortion
        return make_canvas(camera.intrinsic(size), size, model, DISTORTION_COEFFICIENTS[model])

    def _write_pictures(self) -> None:
        picture = ground_picture(self.scene, self.settings.seed)
        labels = None
        if self.settings.camera_labels:
            lens = 'pinhole' if self.settings.distortion == 'none' else self.settings.distortion
            labels = CameraLabelWriter(self.root, self.annotator, lens)
        for camera in self.cameras:
            canvas = self._canvas(camera)
            for reading in self.readings[camera.channel]:
                t_s = scene_time_s(self.name, reading.stamp_us)
                global_from_cam = self.scene.ego_pose(t_s) @ camera.ego_from_cam()
                rendering = render(global_from_cam, canvas, self.snapshots.at(t_s), self.scene.ground, picture)
                encoded = cv2.imencode('.jpg', rendering.bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                (self.root / self._path(reading)).write_bytes(encoded.tobytes())
                if reading.is_key_frame:
                    self.annotator.see_picture(reading.keyframe, rendering.owner, rendering.alone_px)
                    if labels:
                        labels.write(self._path(reading), rendering, reading.keyframe, t_s, invert(global_from_cam))

    def _write_map(self) -> None:
        filename = f'maps/{self._token("map")}.png'
        (self.root / filename).write_bytes(cv2.imencode('.png', map_mask(self.scene))[1].tobytes())
        self.tables['map'] = [
            {
                'category': 'semantic_prior',
                'token': self._token('map'),
                'filename': filename,
                'log_tokens': [self._token('log')],
            }
        ]
        self.tables['log'] = [
            {
                'token': self._token('log'),
                'logfile': self.logfile,
                'vehicle': 'synthetic',
                'date_captured': '2018-07-24',
                'location': self.scene.location,
            }
        ]

    def _add_calibration(self) -> None:
        rows = [_calibration(self._token('calibration', LIDAR_CHANNEL), LIDAR_CHANNEL, ego_from_lidar())]
        for camera in self.cameras:
            row = _calibration(self._token('calibration', camera.channel), camera.channel, camera.ego_from_cam())
            row['camera_intrinsic'] = camera.intrinsic(self.settings.image_wh_px).tolist()
            distortion = distortion_record(self.settings.distortion)
            if distortion:
                row['distortion'] = distortion
            rows.append(row)
        self.tables['calibrated_sensor'] = rows

    def _add_samples(self) -> None:
        count = len(self.keyframe_stamps_us)
        tokens = [self._token('sample', index) for index in range(count)]
        self.tables['sample'] = [
            {
                'token': tokens[index],
                'timestamp': stamp,
                'prev': tokens[index - 1] if index else '',
                'next': tokens[index + 1] if index + 1 < count else '',
                'scene_token': self._token('scene'),
            }
            for index, stamp in enumerate(self.keyframe_stamps_us)
        ]
        self.tables['scene'] = [
            {
                'token': self._token('scene'),
                'log_token': self._token('log'),
                'nbr_samples': count,
                'first_sample_token': tokens[0],
                'last_sample_token': tokens[-1],
                'name': self.name,
                'description': f'Synthetic: {self.scene.kind.replace("_", " ")}',
            }
        ]

    def _add_readings(self, channel: str) -> None:
        readings = self.readings[channel]
        tokens = [self._token('data', channel, reading.sweep) for reading in readings]
        width, height = self.settings.image_wh_px if channel != LIDAR_CHANNEL else (0, 0)
        for index, reading in enumerate(readings):
            global_from_ego = self.scene.ego_pose(scene_time_s(self.name, reading.stamp_us))
            self.tables.setdefault('ego_pose', []).append(
                {'token': tokens[index], 'timestamp': reading.stamp_us, **_pose(global_from_ego)}
            )
            self.tables.setdefault('sample_data', []).append(
                {
                    'token': tokens[index],
                    'sample_token': self._token('sample', reading.keyframe),
                    'ego_pose_token': tokens[index],
                    'calibrated_sensor_token': self._token('calibration', channel),
                    'timestamp': reading.stamp_us,
                    'fileformat': 'pcd' if channel == LIDAR_CHANNEL else 'jpg',
                    'is_key_frame': reading.is_key_frame,
                    'height': height,
                    'width': width,
                    'filename': self._path(reading),
                    'prev': tokens[index - 1] if index else '',
                    'next': tokens[index + 1] if index + 1 < len(readings) else '',
                }
            )


def _pose(dst_from_src: FloatArray) -> dict[str, Any]:
    return {
        'rotation': rotation_to_wxyz(dst_from_src[:3, :3]),
        'translation': [float(value) for value in dst_from_src[:3, 3]],
    }


def _calibration(row_token: str, channel: str, ego_from_sensor: FloatArray) -> Record:
    return {
        'token': row_token,
        'sensor_token': token(0, 'sensor', channel),
        **_pose(ego_from_sensor),
        'camera_intrinsic': [],
    }
