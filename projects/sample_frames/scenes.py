"""Sampling, scenes. In: a nuScenes-format data set, a scene's name. Out: its keyframes as a Video; LiDAR, or view frustums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projects.geometry.frame_sampling import Frustums, PointClouds, Video, Visible
from projects.memfusion.data.nuscenes_tables import CAMERAS, open_nuscenes, tables_agree
from projects.memfusion.data.point_files import is_close, read_points
from projects.memfusion.data.poses import record_matrix
from projects.memfusion.data.sensor_channels import pick_lidar

from .geometry_file import SeeOptions, check_size
from .pixels import FrameFiles

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

LIDAR_VOXEL_M = 1.0


class Scenes:
    """The scenes of a data set; tables are read once.

    Raises:
        DataError: naming folder or table that cannot be used.
    """

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version
        self.nusc: NuScenes = open_nuscenes(root, version)
        self.names = [scene['name'] for scene in self.nusc.scene]
        having = {channel for sample in self.nusc.sample for channel in sample['data']}
        self.lidars, cameras = ([sensor['channel'] for sensor in self.nusc.sensor
                                 if sensor['modality'] == modality and sensor['channel'] in having]
                                for modality in ('lidar', 'camera'))
        self.camera = next((name for name in (*CAMERAS, *cameras) if name in cameras), None)

    def open(self, name: str, see: SeeOptions) -> tuple[Video, FrameFiles | None]:
        """The keyframes of a scene: a Video with the poses of the LiDAR (for frustums of the first camera), and its pictures.

        Raises:
            ValueError: there is no scene of this name, or one of its keyframes has no LiDAR, or no picture of the first camera.
        """
        scene = next((scene for scene in self.nusc.scene if name in (scene['name'], scene['token'])), None)
        if scene is None:
            raise ValueError(f'{self.root / self.version} has no scene {name!r}. It has {", ".join(self.names[:6])}'
                             f'{", ..." if len(self.names) > 6 else ""}')
        with tables_agree(self.root, self.version):
            samples = [self.nusc.get('sample', scene['first_sample_token'])]
            while samples[-1]['next']:
                samples.append(self.nusc.get('sample', samples[-1]['next']))
            cameras = [] if self.camera is None else self._records(name, samples, self.camera)
            poses, visible = self._sees(name, samples, cameras, see)
        stamps_s = np.array([sample['timestamp'] * 1e-6 for sample in samples])
        pictures = FrameFiles([self.root / camera['filename'] for camera in cameras], [sample['token'] for sample in samples])
        return Video(len(samples), name, stamps_s, poses, visible), pictures if cameras else None

    def _records(self, name: str, samples: list[dict], channel: str) -> list[dict[str, Any]]:
        """The channel's keyframes."""
        for sample in samples:
            if channel not in sample['data']:
                raise ValueError(f'{self.root / self.version}: keyframe {sample["token"]} of {name} has no {channel}')
        return [self.nusc.get('sample_data', sample['data'][channel]) for sample in samples]

    def _sees(self, name: str, samples: list[dict], cameras: list[dict], see: SeeOptions) -> tuple[np.ndarray, Visible]:
        if see.kind == 'frustum' and cameras:
            sensor = self.nusc.get('calibrated_sensor', cameras[0]['calibrated_sensor_token'])
            poses = np.stack([self._pose(camera) for camera in cameras])
            size, intrinsics = (cameras[0]['height'], cameras[0]['width']), np.array(sensor['camera_intrinsic'])
            check_size(intrinsics, size, f'{self.root / self.version}: {self.camera} of {name}')
            return poses, Frustums(len(samples), see.frustum_voxel_m, poses, intrinsics, size, see.range_m)
        if see.kind not in ('auto', 'lidar'):
            raise ValueError(f'{self.root / self.version} has no {see.kind} for its scenes: use --sees lidar, or frustum where '
                             'there are cameras')
        lidar = pick_lidar(self.lidars, where=f'the tables in {self.root / self.version}')
        clouds = self._records(name, samples, lidar)
        poses = np.stack([self._pose(cloud) for cloud in clouds])

        def load(frame: int) -> np.ndarray:
            points, _ = read_points(str(self.root / clouds[frame]['filename']), 5, on_bad_points='drop_points')
            points = points[~is_close(points)]
            return points[:, :3].astype(np.float64) @ poses[frame, :3, :3].T + poses[frame, :3, 3]

        return poses, PointClouds(len(samples), LIDAR_VOXEL_M if see.voxel_m is None else see.voxel_m, load)

    def _pose(self, record: dict[str, Any]) -> np.ndarray:
        """(4, 4) global_from_sensor of a sample_data record."""
        return record_matrix(self.nusc.get('ego_pose', record['ego_pose_token'])) @ record_matrix(
            self.nusc.get('calibrated_sensor', record['calibrated_sensor_token']))
