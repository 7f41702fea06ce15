"""Unit: the geometry of a rig in numbers: augmentation, stamps, lenses, precision; synthetic and real frames as input."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from nuscenes import nuscenes as devkit
from pyquaternion import Quaternion

from projects.geometry.calib_noise import fixed_rotation_noise
from projects.geometry.homography import (
    crop_homography,
    flip_homography,
    resize_homography,
    rotation_homography,
)
from projects.memfusion.data.image_undistortion import undistort_image
from projects.memfusion.data.transforms.clip_augmentation import ClipBEVAugmentation
from projects.memfusion.structures.calibration import Calibration

LENSES = dict(pinhole=(), radtan=(-0.12, 0.03, 0.0006, -0.0004, -0.002), fisheye=(-0.03, 0.008, -0.004, 0.0006))
K = np.array([[1266.4, 0, 816.3], [0, 1250.1, 491.5], [0, 0, 1]])


@pytest.fixture(scope='module')
def real(keyframe_dir: Path) -> dict:
    return pickle.loads(next(keyframe_dir.glob('*.pkl')).read_bytes())['data_list'][0]


@pytest.fixture(scope='module')
def real_points(keyframe_dir: Path) -> np.ndarray:
    return np.fromfile(next(keyframe_dir.glob('*.pcd.bin')), dtype=np.float32).reshape(-1, 5)[:, :3]


def random_pose(rng: np.random.Generator, shift_m: float = 1.0) -> np.ndarray:
    matrix = Quaternion(rng.normal(size=4)).transformation_matrix
    matrix[:3, 3] = rng.uniform(-shift_m, shift_m, 3)
    return matrix


def one_camera(model: str = 'pinhole', cam_from_lidar: np.ndarray | None = None, matrix: np.ndarray = K,
               hw: tuple[int, int] = (900, 1600)) -> dict:
    extrinsics = np.eye(4) if cam_from_lidar is None else cam_from_lidar
    return dict(cam2img=matrix.tolist(), lidar2cam=extrinsics.tolist(), height=hw[0], width=hw[1],
                distortion=dict(model=model, coefficients=list(LENSES[model])))


def lens_rig(rng: np.random.Generator) -> tuple[Calibration, list[np.ndarray]]:
    """One camera of each lens model at a random pose, and the poses (as float32 keeps them)."""
    poses = [random_pose(rng) for _ in LENSES]
    calibration = Calibration.from_info({model: one_camera(model, pose) for model, pose in zip(LENSES, poses)})
    return calibration, [pose.astype(np.float32).astype(np.float64) for pose in poses]


def cloud_of(cam_from_lidar: np.ndarray, rng: np.random.Generator, num: int = 400) -> np.ndarray:
    """Points in front of a camera, in the LiDAR frame, 2 to 60 m away."""
    depth = rng.uniform(2, 60, num)
    in_cam = np.stack([rng.uniform(-0.6, 0.6, num) * depth, rng.uniform(-0.35, 0.35, num) * depth, depth, np.ones(num)])
    return (np.linalg.inv(cam_from_lidar) @ in_cam)[:3].T


def pinhole_pixels(img_from_lidar: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) pixels and (P,) depths by float64 numpy, of 4x4 or 3x4 matrices."""
    mapped = points.astype(np.float64) @ img_from_lidar[:3, :3].T + img_from_lidar[:3, 3]
    return mapped[:, :2] / mapped[:, 2:], mapped[:, 2]


def matrix_of(calibration: Calibration, camera: int) -> np.ndarray:
    """What the calibration stores, multiplied in float64."""
    chain = calibration.img_aug.double() @ calibration.img_from_cam.double() @ calibration.cam_from_bev
    return chain[0, camera].numpy()


def info_chain(image: dict) -> np.ndarray:
    """(4, 4) img_from_lidar of an info's own numbers."""
    padded = np.eye(4)
    padded[:3, :3] = np.array(image['cam2img'])
    return padded @ np.array(image['lidar2cam'], dtype=np.float64)


def augmented(seed: int, points: np.ndarray, boxes: LiDARInstance3DBoxes) -> dict:
    """A flow of flip, rotation, scale and translation as training applies it."""
    flow = ClipBEVAugmentation(rot_range=(-3.1, 3.1), scale_ratio_range=(0.8, 1.25), translation_std=(2.0, 2.0, 0.5))
    return flow.transform(dict(
        clip_seed=seed, bev_aug=np.eye(4), points=LiDARPoints(torch.tensor(points), points_dim=3), gt_bboxes_3d=boxes.clone()))


@pytest.mark.parametrize('seed', range(6))
def test_random_bev_flows_leave_pixels_alone(real: dict, real_points: np.ndarray, seed: int) -> None:
    points = real_points[::7]
    boxes = LiDARInstance3DBoxes(np.zeros((0, 9), np.float32), box_dim=9)
    results = augmented(seed, points, boxes)
    calibration = Calibration.from_info(real['images'], img_hw=(900, 1600), bev_aug=results['bev_aug'])
    uv, depth, valid = calibration.project(results['points'].tensor[None])
    stored = calibration.bev_aug[0].double().numpy()
    moved = points.astype(np.float64) @ stored[:3, :3].T + stored[:3, 3]
    for camera, image in enumerate(real['images'].values()):
        expected, expected_depth = pinhole_pixels(info_chain(image), points)
        seen = valid[0, camera].numpy()
        assert seen.sum() > 300
        assert np.abs(uv[0, camera].numpy() - expected)[seen].max() < 1e-2
        assert np.abs(depth[0, camera].numpy() - expected_depth).max() < 1e-3
        # float64: the same stored rig, the points moved by the stored matrix
        exact, _ = pinhole_pixels(matrix_of(replace(calibration, bev_aug=torch.eye(4)[None]), camera), points)
        assert np.abs(pinhole_pixels(matrix_of(calibration, camera), moved)[0] - exact)[seen].max() < 1e-6
        # the matrix of the pinhole rig says the same
        by_matrix, _ = pinhole_pixels(calibration.img_from_lidar[0, camera].double().numpy(), results['points'].tensor.numpy())
        assert np.abs(by_matrix - expected)[seen].max() < 1e-2


@pytest.mark.parametrize('seed', range(6))
def test_boxes_and_velocities_follow_the_flow(real: dict, seed: int) -> None:
    rows = [[*instance['bbox_3d'], *np.nan_to_num(instance['velocity'])] for instance in real['instances']]
    boxes = LiDARInstance3DBoxes(np.array(rows, dtype=np.float32), box_dim=9, origin=(0.5, 0.5, 0.5))
    boxes.tensor[::3, 7:] = torch.tensor([8.0, -3.0])  # few of them move
    results = augmented(seed, np.zeros((1, 3), np.float32), boxes)
    after, bev_aug = results['gt_bboxes_3d'], results['bev_aug']
    plain = Calibration.from_info(real['images'], img_hw=(900, 1600))
    calibration = Calibration.from_info(real['images'], img_hw=(900, 1600), bev_aug=bev_aug)
    before_px, _, before_valid = plain.project(boxes.corners.reshape(1, -1, 3))
    after_px, _, after_valid = calibration.project(after.corners.reshape(1, -1, 3))
    compared = 0
    shape = (len(plain.cam_names), len(boxes), 8)
    for camera, box in (before_valid.reshape(shape).all(-1)).nonzero().tolist():
        # a mirrored box numbers its corners in another order
        one, other = (px.reshape(*shape, 2)[camera, box] for px in (before_px, after_px))
        distance = torch.cdist(one.double(), other.double())
        assert max(distance.min(dim=0).values.max(), distance.min(dim=1).values.max()) < 1e-2
        assert after_valid.reshape(shape)[camera, box].all()
        compared += 1
    assert compared > 40
    expected = boxes.tensor[:, 7:9].double().numpy() @ bev_aug[:2, :2].T
    scale = np.maximum(1.0, np.abs(expected).max())
    assert np.abs(after.tensor[:, 7:9].numpy() - expected).max() < 2e-6 * scale  # half a step of float32 is 1e-7
    heading = np.stack([torch.cos(boxes.yaw), torch.sin(boxes.yaw)], -1) @ bev_aug[:2, :2].T
    found = np.stack([torch.cos(after.yaw), torch.sin(after.yaw)], -1)
    np.testing.assert_allclose(found, heading / np.linalg.norm(heading, axis=1, keepdims=True), atol=1e-5)


def pose_of(record: dict) -> np.ndarray:
    matrix = Quaternion(record['rotation']).transformation_matrix
    matrix[:3, 3] = record['translation']
    return matrix


@pytest.fixture(scope='module')
def nano(nano_infos_root: Path) -> tuple[devkit.NuScenes, list[dict]]:
    nusc = devkit.NuScenes('v1.0-mini', str(nano_infos_root), verbose=False)
    return nusc, pickle.loads((nano_infos_root / 'nuscenes_infos_train.pkl').read_bytes())['data_list']


def table_chain(nusc: devkit.NuScenes, info: dict, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """img_from_cam, cam_from_ego, ego_at_cam_from_ego_at_lidar and ego_from_lidar, (4, 4) float64, from the tables."""
    sample = nusc.get('sample', info['token'])
    lidar, camera = (nusc.get('sample_data', sample['data'][channel]) for channel in ('LIDAR_TOP', name))
    sensors = [nusc.get('calibrated_sensor', record['calibrated_sensor_token']) for record in (lidar, camera)]
    egos = [pose_of(nusc.get('ego_pose', record['ego_pose_token'])) for record in (lidar, camera)]
    padded = np.eye(4)
    padded[:3, :3] = sensors[1]['camera_intrinsic']
    return padded, np.linalg.inv(pose_of(sensors[1])), np.linalg.inv(egos[1]) @ egos[0], pose_of(sensors[0])


def rig_through_global(info: dict) -> Calibration:
    """Made from cam2ego and the two ego poses rather than from the file's own lidar2cam."""
    images = {name: {key: value for key, value in image.items() if key != 'lidar2cam'}
              for name, image in info['images'].items()}
    return Calibration.from_info(images, global_from_lidar=np.array(info['global_from_lidar']),
                                 t_lidar=info['lidar_points']['timestamp'])


@pytest.mark.parametrize('position', [0, 4, -1])
def test_stamps_as_the_devkit_has_them(nano: tuple, nano_infos_root: Path, monkeypatch: pytest.MonkeyPatch,
                                       position: int) -> None:
    nusc, infos = nano
    info = infos[position]
    sample = nusc.get('sample', info['token'])
    path = nano_infos_root / nusc.get('sample_data', sample['data']['LIDAR_TOP'])['filename']
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)
    from_file, through_global = Calibration.from_info(info['images']), rig_through_global(info)
    compared = 0
    for camera, name in enumerate(from_file.cam_names):
        img_from_cam, cam_from_ego, ego_motion, ego_from_lidar = table_chain(nusc, info, name)
        exact, depth = pinhole_pixels(img_from_cam @ cam_from_ego @ ego_motion @ ego_from_lidar, points[:, :3])
        inside = (depth > 1.1) & (np.abs(exact - [199.5, 112.0]) < [197.0, 109.5]).all(axis=1)
        # the devkit drops points near the border and says not which, so it gets none
        monkeypatch.setattr(devkit.LidarPointCloud, 'from_file',
                            classmethod(lambda cls, _, kept=points[inside, :4]: cls(kept.T.copy())))
        theirs = nusc.explorer.map_pointcloud_to_image(sample['data']['LIDAR_TOP'], sample['data'][name])[0][:2].T
        for calibration in (from_file, through_global):
            uv, _, valid = calibration.project(torch.tensor(points[None, :, :3]))
            assert valid[0, camera].numpy()[inside].all()
            assert np.abs(uv[0, camera].numpy()[inside] - theirs).max() < 0.05
            stored, _ = pinhole_pixels(matrix_of(calibration, camera), points[:, :3])
            assert np.abs(stored - exact)[inside].max() < 3e-4  # px; K, pose and lens are stored in float32: 3e-5
        compared += int(inside.sum())
    assert compared > 500
    for key in ('t_cam', 't_lidar'):
        assert getattr(through_global, key).dtype == torch.float64
    assert (through_global.t_cam - through_global.t_lidar[:, None]).abs().max() < 0.06


def test_without_the_ego_motion_the_error_is_v_dt_f_over_z(nano: tuple) -> None:
    """Also shows that the rows above could fail: the terms matter by pixels."""
    nusc, infos = nano
    largest = 0.0
    for info in infos:
        calibration = rig_through_global(info)
        for camera, name in enumerate(calibration.cam_names):
            img_from_cam, cam_from_ego, ego_motion, ego_from_lidar = table_chain(nusc, info, name)
            moved = ego_motion[:3, 3]  # v dt, in ego axes
            turned_deg = np.degrees(np.arccos(np.clip((np.trace(ego_motion[:3, :3]) - 1) / 2, -1, 1)))
            if turned_deg > 0.01 or np.linalg.norm(moved) < 0.02 or name not in ('CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT'):
                continue  # a turn adds an error of its own; across the view the shift shows best
            right, _, ahead = cam_from_ego[:3, :3] @ moved
            focal, depth = float(calibration.img_from_cam[0, camera, 0, 0]), 10.0
            on_axis = np.linalg.inv(cam_from_ego @ ego_motion @ ego_from_lidar) @ [0, 0, depth, 1]
            uv, _, _ = calibration.project(torch.tensor(on_axis[None, None, :3]).float())
            naive, _ = pinhole_pixels(img_from_cam @ cam_from_ego @ ego_from_lidar, on_axis[None, :3])
            error = float(uv[0, camera, 0, 0]) - float(naive[0, 0])
            assert abs(error - right * focal / (depth - ahead)) < 0.02  # px
            largest = max(largest, abs(error))
    assert largest > 1.0


def test_lenses_equal_opencv() -> None:
    rng = np.random.default_rng(5)
    calibration, poses = lens_rig(rng)
    for camera, (model, pose) in enumerate(zip(LENSES, poses)):
        points = cloud_of(pose, rng).astype(np.float32).astype(np.float64)
        matrix = calibration.img_from_cam[0, camera, :3, :3].double().numpy()
        turn, shift = cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3]
        if model == 'fisheye':
            expected = cv2.fisheye.projectPoints(points[:, None], turn, shift, matrix, np.array(LENSES[model]))[0][:, 0]
        else:
            expected = cv2.projectPoints(points, turn, shift, matrix, np.array(LENSES[model] or [0.0] * 4))[0][:, 0]
        uv, _, valid = calibration.project(torch.tensor(points[None]).float())
        seen = valid[0, camera].numpy()
        assert seen.mean() > 0.9
        assert np.abs(uv[0, camera].numpy() - expected)[seen].max() < 2.5e-3  # float32 has steps of 1.2e-4 px here


def test_unproject_is_the_inverse_of_project() -> None:
    rng = np.random.default_rng(6)
    calibration, poses = lens_rig(rng)
    noise = np.stack([random_pose(rng, 0.1) for _ in LENSES])
    bev_aug = torch.tensor([[[-0.9, 0.5, 0, 3.0], [0.5, 0.9, 0, -2.0], [0, 0, 1.03, 0.4], [0, 0, 0, 1]]])  # mirrors, scales
    calibration = replace(calibration.with_noise(torch.tensor(noise)[None]), bev_aug=bev_aug)
    for camera in range(3):
        step = (crop_homography(37.0, 20.0) @ rotation_homography(4.0, (450, 800)) @ resize_homography((900, 1600), (450, 800)),
                flip_homography(700) @ resize_homography((900, 1600), (253, 700)), torch.eye(4))[camera]
        calibration = calibration.with_img_aug(camera, step, (900, 1600))
    for camera in range(3):
        points = cloud_of((calibration.cam_from_bev[0, camera]).numpy(), rng)
        uv, depth, valid = calibration.project(torch.tensor(points[None]).float())
        assert valid[0, camera].float().mean() > 0.5
        back = calibration.unproject(uv, depth)
        assert back.shape == (1, 3, len(points), 3) and back.dtype == torch.float32
        assert np.abs(back[0, camera].numpy() - points)[valid[0, camera]].max() < 2e-3  # at 60 m; uv in float32 says 1e-4 px
        again, again_depth, _ = calibration.project(back[:, camera])
        assert (again - uv)[0, camera][valid[0, camera]].abs().max() < 0.05
        assert (again_depth - depth)[0, camera].abs().max() < 1e-3


def test_noise_stands_on_the_left_of_the_extrinsics() -> None:
    """1 degree of yaw at f = 1266 px is 22.1 px in the middle of the image, 10 cm at 10 m are 12.7 px."""
    pose = random_pose(np.random.default_rng(10))
    calibration = Calibration.from_info(dict(CAM=one_camera('pinhole', pose)))
    point = torch.tensor((np.linalg.inv(pose) @ [0, 0, 10.0, 1])[None, None, :3]).float()
    yaw = fixed_rotation_noise((0.0, 1.0, 0.0), 1.0)
    turned = calibration.with_noise(yaw[None, None]).project(point)[0][0, 0, 0]
    np.testing.assert_allclose(turned, [816.3 + 1266.4 * np.tan(np.radians(1)), 491.5], atol=2e-3)
    shift = fixed_rotation_noise((0.0, 1.0, 0.0), 0.0, (0.1, 0.0, 0.0))
    both = calibration.with_noise(yaw[None, None]).with_noise(shift[None, None])
    x, z = 10 * np.sin(np.radians(1)) + 0.1, 10 * np.cos(np.radians(1))
    np.testing.assert_allclose(both.project(point)[0][0, 0, 0], [816.3 + 1266.4 * x / z, 491.5], atol=2e-3)
    assert torch.equal(both.cam_from_lidar, calibration.cam_from_lidar)  # the true rig stays known
    np.testing.assert_allclose(both.calib_noise[0, 0], shift @ yaw, atol=1e-7)


def test_unproject_by_hand() -> None:
    # 3 m right, 4 m below, 5 m ahead with f = 100 is 60 and 80 px from the centre; then half the size
    calibration = Calibration.from_info(dict(CAM=one_camera(matrix=np.array([[100.0, 0, 320], [0, 100.0, 240], [0, 0, 1]]),
                                                            hw=(480, 640))))
    calibration = calibration.with_img_aug(0, resize_homography((480, 640), (240, 320)), (240, 320))
    uv = torch.tensor([[[[(380 + 0.5) / 2 - 0.5, (320 + 0.5) / 2 - 0.5]]]])
    np.testing.assert_allclose(calibration.unproject(uv, torch.tensor([[[5.0]]]))[0, 0, 0], [3.0, 4.0, 5.0], atol=1e-6)
    # a second step comes after the first: cut 30 px off the left, then mirror the 290 px that are left
    calibration = calibration.with_img_aug(0, crop_homography(30, 0), (240, 290))
    calibration = calibration.with_img_aug(0, flip_homography(290), (240, 290))
    uv[..., 0] = 289 - (uv[..., 0] - 30)
    np.testing.assert_allclose(calibration.project(torch.tensor([[[3.0, 4.0, 5.0]]]))[0], uv, atol=1e-4)
    np.testing.assert_allclose(calibration.unproject(uv, torch.tensor([[[5.0]]]))[0, 0, 0], [3.0, 4.0, 5.0], atol=1e-6)


def test_gradients_are_finite_and_nothing_behind_is_valid() -> None:
    calibration, _ = lens_rig(np.random.default_rng(7))
    calibration = replace(calibration, cam_valid=torch.tensor([[True, True, False]]))
    centers = torch.linalg.inv(calibration.cam_from_bev)[0, :, :3, 3].float()
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([40 * torch.randn(500, 3, generator=generator), centers, centers + 1e-7, torch.zeros(1, 3)])[None]
    points.requires_grad_()
    uv, depth, valid = calibration.project(points)
    assert torch.isfinite(uv).all() and not (valid & (depth <= 0.1)).any() and not valid[0, 2].any() and valid[0, :2].any()
    uv.sum().backward()
    assert torch.isfinite(points.grad).all()

    uv_px = torch.tensor([[816.3, 491.5], [0.0, 0.0], [-1e5, 1e5], [1599.0, 899.0]]).repeat(1, 3, 1, 1).requires_grad_()
    depth_m = torch.tensor([5.0, 0.0, -3.0, 60.0]).repeat(1, 3, 1).requires_grad_()
    found = calibration.unproject(uv_px, depth_m)
    found.square().sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(uv_px.grad).all() and torch.isfinite(depth_m.grad).all()
    assert uv_px.grad[0, :2, 0].abs().min() > 0


@pytest.mark.parametrize('model', ['radtan', 'fisheye'])
def test_undistorted_images_and_pixels_agree(model: str) -> None:
    """Dots drawn where the lens shows them are found, after undistortion, where the new K says."""
    matrix = np.array([[316.0, 0, 204.0], [0, 312.0, 112.0], [0, 0, 1]])
    before = Calibration.from_info(dict(CAM=one_camera(model, matrix=matrix, hw=(225, 400))))
    after = before.undistorted()
    assert after.distortion_model.item() == 0 and after.distortion.abs().max() == 0 and after.max_radius.item() == np.inf
    assert before.distortion_model.item() != 0  # the old one is as it was
    spots = torch.tensor([[u, v] for u in (20.0, 120.0, 215.0, 310.0, 385.0) for v in (15.0, 80.0, 150.0, 210.0)])[None, None]
    points = before.unproject(spots, torch.full((1, 1, 20), 10.0))[:, 0]
    again, _, valid = before.project(points)
    assert valid.all() and (again - spots).abs().max() < 0.05  # undistort, then project
    expected, _, visible = after.project(points)
    moved = []
    v, u = np.mgrid[:225, :400]
    for spot, target, seen in zip(spots[0, 0].numpy(), expected[0, 0].numpy(), visible[0, 0].numpy()):
        if not seen or (target < 9).any() or (target > [390, 215]).any():
            continue  # a dot cut by the border has its centre elsewhere
        image = (255 * np.exp(-((u - spot[0]) ** 2 + (v - spot[1]) ** 2) / 12)).astype(np.uint8)
        found = undistort_image(image, before.img_from_cam[0, 0], before.distortion_model[0, 0], before.distortion[0, 0],
                                after.img_from_cam[0, 0]).astype(float)
        moved.append(np.abs([(found * u).sum() / found.sum() - target[0], (found * v).sum() / found.sum() - target[1]]).max())
    assert len(moved) > 12 and np.mean(moved) < 0.1 and np.max(moved) < 0.5
    with pytest.raises(ValueError, match='CAM: undistort an image before'):
        before.with_img_aug(0, flip_homography(400), (225, 400)).undistorted()
    pinhole = Calibration.from_info(dict(CAM=one_camera()))
    assert torch.equal(pinhole.undistorted().img_from_cam, pinhole.img_from_cam)


def test_global_offsets_do_not_cost_precision() -> None:
    """Poses 1e5 m from the origin are composed in float64; points and matrices near the sensor are float32."""
    rng = np.random.default_rng(8)
    for offset in ([0.0, 0, 0], [1e5, -1e5, 50.0]):
        global_from_lidar, ego_at_cam = np.eye(4), np.eye(4)
        global_from_lidar[:3] = Quaternion(axis=[0, 0, 1], degrees=33).transformation_matrix[:3]
        global_from_lidar[:3, 3] = offset
        ego_at_cam[:3, 3] = np.array(offset) + [0.7, 0.2, 0.0]
        ego_from_cam = Quaternion(rng.normal(size=4)).transformation_matrix
        ego_from_cam[:3, 3] = [1.5, 0.2, 1.4]
        image = one_camera()
        del image['lidar2cam']
        image.update(cam2ego=ego_from_cam.tolist(), ego2global=ego_at_cam.tolist())
        calibration = Calibration.from_info(dict(CAM=image), global_from_lidar=global_from_lidar)
        near_global = global_from_lidar.copy()
        near_global[:3, 3] -= offset
        near_ego = ego_at_cam.copy()
        near_ego[:3, 3] = [0.7, 0.2, 0.0]
        exact = np.linalg.inv(near_ego @ ego_from_cam) @ near_global
        points = cloud_of(exact, rng).astype(np.float32)
        expected, _ = pinhole_pixels(K @ exact[:3], points)
        uv, _, valid = calibration.project(torch.tensor(points[None]))
        assert valid.float().mean() > 0.9
        assert np.abs(uv[0, 0].numpy() - expected)[valid[0, 0]].max() < 0.05
    # the same in float32 throughout would be wrong by metres: 1e5 m resolve 8 mm
    rough = np.linalg.inv((ego_at_cam @ ego_from_cam).astype(np.float32)) @ global_from_lidar.astype(np.float32)
    assert np.abs(pinhole_pixels(K.astype(np.float32) @ rough[:3], points)[0] - expected)[valid[0, 0]].max() > 0.05


def test_two_resolutions_in_one_rig_agree() -> None:
    """The same camera at 1600x900 and at 800x450: the same share of the image, and the same pixel of one network size."""
    rng = np.random.default_rng(9)
    pose = random_pose(rng)
    small = (resize_homography((900, 1600), (450, 800))[:3, :3].numpy() @ K)
    calibration = Calibration.from_info(dict(
        BIG=one_camera('radtan', pose), SMALL=one_camera('radtan', pose, small, (450, 800))))
    points = torch.tensor(cloud_of(pose, rng)[None]).float()
    uv, _, valid = calibration.project(points)
    assert torch.equal(valid[0, 0], valid[0, 1]) and valid.float().mean() > 0.9
    share = (uv + 0.5) / calibration.img_hw.flip(-1)[:, :, None]
    assert (share[0, 0] - share[0, 1])[valid[0, 0]].abs().max() < 1e-4
    for camera, hw in enumerate(((900, 1600), (450, 800))):
        calibration = calibration.with_img_aug(camera, resize_homography(hw, (253, 449)), (253, 449))
    uv, _, valid = calibration.project(points)
    assert calibration.img_hw.tolist() == [[[253, 449], [253, 449]]]
    assert calibration.img_hw_raw.tolist() == [[[900, 1600], [450, 800]]]
    assert (uv[0, 0] - uv[0, 1])[valid[0, 0]].abs().max() < 3e-4  # px; one step of float32 is 3e-5


def test_pixels_without_a_raw_pixel_are_never_valid() -> None:
    calibration = Calibration.from_info(dict(CAM=one_camera(matrix=np.array([[100.0, 0, 99.5], [0, 100.0, 49.5], [0, 0, 1]]),
                                                            hw=(100, 200))))
    # a window that reaches 50 px past the image on every side, and a turn that leaves empty corners
    padded = calibration.with_img_aug(0, crop_homography(-50, -50), (200, 300))
    turned = calibration.with_img_aug(0, rotation_homography(20.0, (100, 200)), (100, 200))
    axes = torch.meshgrid(torch.arange(-60.0, 260), torch.arange(-60.0, 160), indexing='xy')
    grid = torch.stack(axes, -1).reshape(1, 1, -1, 2)
    points = calibration.unproject(grid, torch.full((1, 1, grid.shape[2]), 7.0))[:, 0]
    u, v = grid[0, 0].unbind(-1)
    raw_inside = (u > -0.5) & (u < 199.5) & (v > -0.5) & (v < 99.5)
    assert torch.equal(padded.project(points)[2][0, 0], raw_inside)
    uv, _, valid = turned.project(points)
    network_inside = (uv[0, 0] > -0.5).all(-1) & (uv[0, 0] < torch.tensor([199.5, 99.5])).all(-1)
    assert torch.equal(valid[0, 0], raw_inside & network_inside) and valid.sum() < raw_inside.sum()
    np.testing.assert_allclose(padded.project(points)[0], grid + 50, atol=1e-3)
