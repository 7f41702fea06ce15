"""Geometry: what is on disk against the analytic world, through the devkit's own chains."""

import cv2
import numpy as np
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from projects.synthetic_nuscenes.camera_model import project
from projects.synthetic_nuscenes.renderer import render
from projects.synthetic_nuscenes.rig import CAMERAS, ego_from_lidar
from projects.synthetic_nuscenes.schedule import scene_time_s
from projects.synthetic_nuscenes.transforms import apply, invert, yaw_rotation


def _global_from_sensor(nusc, record):
    pose = nusc.get('ego_pose', record['ego_pose_token'])
    sensor = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
    return transform_matrix(pose['translation'], Quaternion(pose['rotation'])) @ transform_matrix(
        sensor['translation'], Quaternion(sensor['rotation'])
    )


def test_ego_poses_on_disk_are_the_worlds(nano_nusc, nano_world, lidar_records):
    for name, _, record in lidar_records:
        t_s = scene_time_s(name, record['timestamp'])
        truth = nano_world.scene(name).ego_pose(t_s) @ ego_from_lidar()
        np.testing.assert_allclose(_global_from_sensor(nano_nusc, record), truth, atol=1e-9)


def test_some_scene_turns_fast(nano_world):
    best = 0.0
    for scene in nano_world.scenes:
        for t_s in np.arange(0.1, 2.0, 0.1):
            a, b = scene.ego_motion.pose(t_s - 0.05), scene.ego_motion.pose(t_s + 0.05)
            if np.hypot(b[0] - a[0], b[1] - a[1]) / 0.1 >= 5.0:
                best = max(best, abs(np.degrees(b[2] - a[2])) / 0.1)
    assert best >= 20.0


def test_box_velocity_is_the_worlds_for_straight_movers(nano_nusc, nano_world):
    checked = 0
    for row in nano_nusc.sample_annotation:
        sample = nano_nusc.get('sample', row['sample_token'])
        name = nano_nusc.get('scene', sample['scene_token'])['name']
        t_s = scene_time_s(name, sample['timestamp'])
        if not (row['prev'] and row['next']):
            continue
        for agent in nano_world.scene(name).agents:
            position, yaw = agent.pose(t_s)
            if np.abs(position - row['translation']).max() > 1e-6:
                continue
            speeds = [np.linalg.norm(agent.velocity(t_s + dt)) for dt in (-0.49, 0.0, 0.49)]
            if abs(agent.pose(t_s + 0.5)[1] - agent.pose(t_s - 0.5)[1]) < 1e-9 and np.ptp(speeds) < 1e-4:
                found = nano_nusc.box_velocity(row['token'])
                np.testing.assert_allclose(found, agent.velocity(t_s), atol=2e-3)
                checked += speeds[0] > 1.0
    assert checked >= 20


def test_point_cloud_projection_of_the_devkit_is_our_chain(nano_nusc, nano_world, lidar_records, tmp_path):
    """A building's corner, put in a point cloud file, lands where the oracle says, at the camera's own time."""
    seen = 0
    for name, sample, lidar in lidar_records[::2]:
        scene = nano_world.scene(name)
        corners = np.concatenate([solid.corners() for solid in scene.solids])
        lidar_t, original = scene_time_s(name, lidar['timestamp']), lidar['filename']
        cloud = np.zeros((len(corners), 5), dtype=np.float32)
        cloud[:, :3] = apply(invert(scene.ego_pose(lidar_t) @ ego_from_lidar()), corners)
        cloud.tofile(tmp_path / 'corners.pcd.bin')
        for camera in CAMERAS:
            record = nano_nusc.get('sample_data', sample['data'][camera.channel])
            lidar['filename'] = str(tmp_path / 'corners.pcd.bin')
            try:
                found, depths, _ = nano_nusc.explorer.map_pointcloud_to_image(lidar['token'], record['token'])
            finally:
                lidar['filename'] = original
            t_s = scene_time_s(name, record['timestamp'])
            cam_from_global = invert(scene.ego_pose(t_s) @ camera.ego_from_cam())
            pixels, depth = project(apply(cam_from_global, corners), camera.intrinsic((400, 225)))
            kept = (depth > 1) & (pixels > 1).all(1) & (pixels[:, 0] < 399) & (pixels[:, 1] < 224)
            assert kept.sum() == found.shape[1]
            if kept.any():
                np.testing.assert_allclose(found[:2].T, pixels[kept], atol=2e-2)
                np.testing.assert_allclose(depths, depth[kept], atol=1e-3)
            seen += int(kept.sum())
    assert seen > 100


def test_pictures_show_objects_at_their_projected_pixels(nano_nusc, nano_world, lidar_records):
    """Where a bicycle (green) or motorcycle (red) is wholly visible and near, its middle has its colour."""
    right = checked = 0
    for name, sample, _ in lidar_records:
        scene = nano_world.scene(name)
        for camera in CAMERAS:
            record = nano_nusc.get('sample_data', sample['data'][camera.channel])
            picture = cv2.imread(nano_nusc.get_sample_data_path(record['token']))
            t_s = scene_time_s(name, record['timestamp'])
            cam_from_global = invert(scene.ego_pose(t_s) @ camera.ego_from_cam())
            for row in (nano_nusc.get('sample_annotation', token) for token in sample['anns']):
                cycles = ('vehicle.bicycle', 'vehicle.motorcycle')
                if row['visibility_token'] != '4' or row['category_name'] not in cycles:
                    continue
                agent = next(a for a in scene.agents if np.allclose(
                    a.pose(scene_time_s(name, sample['timestamp']))[0], row['translation']))
                center = agent.pose(t_s)[0] - [0, 0, agent.size_lwh_m[2] * 0.2]
                pixels, depth = project(apply(cam_from_global, center[None]), camera.intrinsic((400, 225)))
                u, v = np.rint(pixels[0]).astype(int)
                if not (2 < depth[0] < 15 and 0 <= u < 400 and 0 <= v < 225):
                    continue
                patch = picture[max(v - 3, 0) : v + 4, max(u - 2, 0) : u + 3].reshape(-1, 3).max(axis=0)
                channel = 1 if agent.kind_name == 'bicycle' else 2
                right += int(np.argmax(patch) == channel)
                checked += 1
    assert checked >= 15 and right / checked > 0.9


def test_sweeps_of_a_turning_ego_stay_on_the_static_surfaces(nano_nusc, nano_world):
    scene = nano_world.scene('scene-0103')
    record = next(row for row in nano_nusc.scene if row['name'] == 'scene-0103')
    sample = nano_nusc.get('sample', record['last_sample_token'])
    cloud, lags = LidarPointCloud.from_file_multisweep(nano_nusc, sample, 'LIDAR_TOP', 'LIDAR_TOP', nsweeps=10)
    lidar = nano_nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    points = apply(_global_from_sensor(nano_nusc, lidar), cloud.points[:3].T.astype(np.float64))
    t_s = scene_time_s('scene-0103', lidar['timestamp'])
    assert np.degrees(scene.ego_motion.pose(t_s)[2] - scene.ego_motion.pose(t_s - 0.45)[2]) < -8.0
    compared = 0
    for solid in scene.solids:
        distance = solid.surface_distance(points)
        near = distance < 0.35
        near &= points[:, 2] > scene.ground.height(points[:, 0], points[:, 1]) + 0.3
        near &= np.linalg.norm(points - scene.ego_pose(t_s)[:3, 3], axis=1) < 60.0
        if solid.shape == 'box' and near.sum() >= 30:
            assert np.percentile(distance[near], 95) < 0.08, solid.name
            assert len(np.unique(lags[0][near])) >= 5
            compared += int(near.sum())
    assert compared > 500
    low = np.abs(points[:, 2] - scene.ground.height(points[:, 0], points[:, 1]))
    assert np.mean(low < 0.05) > 0.4


def test_picture_and_owner_buffer_agree_with_projection(nano_world):
    """The renderer's depth at an unhidden box corner's pixel equals the corner's depth."""
    from projects.synthetic_nuscenes.camera_model import make_canvas
    from projects.synthetic_nuscenes.ground_map import ground_picture
    from projects.synthetic_nuscenes.snapshot import SceneSnapshots

    scene, camera, wh_px = nano_world.scene('scene-0916'), CAMERAS[0], (400, 225)
    global_from_cam = scene.ego_pose(1.0) @ camera.ego_from_cam()
    canvas = make_canvas(camera.intrinsic(wh_px), wh_px, 'none', ())
    snapshots = SceneSnapshots(scene)
    rendering = render(global_from_cam, canvas, snapshots.at(1.0), scene.ground, ground_picture(scene, 0))
    errors = []
    for index, agent in enumerate(scene.agents):
        rows, columns = np.nonzero(rendering.owner == index)
        if len(rows) < 30:
            continue
        depth = rendering.depth_m[rows, columns].astype(np.float64)
        matrix = camera.intrinsic(wh_px)
        rays = np.stack([(columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]], axis=1)
        points = apply(global_from_cam, np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * depth[:, None])
        center, yaw = agent.pose(1.0)
        local = (points - center) @ yaw_rotation(np.array(yaw))
        outside = np.maximum(np.abs(local) - np.asarray(agent.size_lwh_m) / 2, 0).max(axis=1)
        pixel_m = np.median(depth) / matrix[0, 0]
        errors.append(np.percentile(outside, 80) / pixel_m)
    assert len(errors) >= 4 and np.median(errors) < 1.0
