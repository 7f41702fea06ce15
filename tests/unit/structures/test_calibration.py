"""Unit: Calibration reads mmdet3d's image keys and projects: hand answers, a float64 chain, errors by camera."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from projects.memfusion.structures.calibration import Calibration

# camera looks along LiDAR y: right = x, down = -z, forward = y
LOOKS_ALONG_Y = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
LOOKS_BACK = [[-1, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
K = [[100.0, 0, 320.0], [0, 100.0, 240.0], [0, 0, 1.0]]


def images(**changes: object) -> dict:
    front = dict(cam2img=K, lidar2cam=LOOKS_ALONG_Y, height=480, width=640, timestamp=1532402927.61246)
    return dict(FRONT={**front, **changes}, BACK=dict(cam2img=K, lidar2cam=LOOKS_BACK, height=480, width=640))


def test_hand_answer_and_contract() -> None:
    calibration = Calibration.from_info(images())
    # 3 m right, 4 m below, 5 m ahead; and the same behind
    uv, depth, valid = calibration.project(torch.tensor([[[3.0, 5.0, -2.0], [-3.0, -5.0, -2.0]]]))
    assert uv.shape == (1, 2, 2, 2) and depth.shape == valid.shape == (1, 2, 2) and uv.dtype == torch.float32
    np.testing.assert_allclose(uv[0, 0, 0], [320 + 60, 240 + 40], atol=1e-4)
    np.testing.assert_allclose(uv[0, 1, 1], [320 + 60, 240 + 40], atol=1e-4)
    assert valid[0].tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(depth[0], [[5, -5], [-5, 5]])
    assert calibration.cam_names == ('FRONT', 'BACK')
    assert calibration.t_cam.dtype == torch.float64 and calibration.t_cam[0, 0].item() == 1532402927.61246
    assert calibration.img_hw.tolist() == [[[480, 640]] * 2]


def test_matrices_of_ones_own_equal_the_info_and_are_checked() -> None:
    info = images(distortion=dict(model='radtan', coefficients=[-0.2, 0.05, 0.001, -0.002]))
    expected = Calibration.cat([Calibration.from_info(info)] * 2)
    matrices = dict(
        img_from_cam=torch.tensor(K).repeat(2, 2, 1, 1),
        cam_from_lidar=torch.tensor([LOOKS_ALONG_Y, LOOKS_BACK], dtype=torch.float64).repeat(2, 1, 1, 1),
        img_hw_raw=torch.tensor([480, 640]).repeat(2, 2, 1))
    given = dict(cam_names=('FRONT', 'BACK'), lenses=[('radtan', [-0.2, 0.05, 0.001, -0.002]), ('pinhole', [])])
    rig = Calibration.from_matrices(**matrices, **given)
    for name in ('img_from_cam', 'cam_from_lidar', 'img_aug', 'img_hw_raw', 'img_hw', 'bev_aug', 'calib_noise',
                 'distortion_model', 'distortion', 'max_radius', 'cam_valid'):
        ours, theirs = getattr(rig, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    points = torch.tensor(np.random.default_rng(0).uniform(-20, 20, (2, 50, 3))).float()
    assert all(torch.equal(a, b) for a, b in zip(rig.project(points), expected.project(points)))
    assert Calibration.from_matrices(**matrices).cam_names == ('CAM_0', 'CAM_1')
    for key, wrong, message in (('img_from_cam', torch.tensor(K).T.repeat(2, 2, 1, 1), 'FRONT: cam2img'),
                                ('cam_from_lidar', 2 * matrices['cam_from_lidar'], 'FRONT: cam_from_lidar'),
                                ('img_hw_raw', matrices['img_hw_raw'][:1], 'img_hw_raw is of'),
                                ('lenses', [('pinhole', [])], 'lenses is of'),
                                ('bev_aug', torch.zeros(4, 4), 'bev_aug is no invertible')):
        with pytest.raises(ValueError, match=message):
            Calibration.from_matrices(**{**matrices, **given, key: wrong})


def test_a_missing_camera_may_have_anything_for_matrices() -> None:
    matrices = dict(
        img_from_cam=torch.tensor(K).repeat(2, 2, 1, 1),
        cam_from_lidar=torch.tensor([LOOKS_ALONG_Y, LOOKS_BACK]).float().repeat(2, 1, 1, 1),
        img_hw_raw=torch.tensor([480, 640]).repeat(2, 2, 1))
    whole = Calibration.from_matrices(**matrices)
    there = torch.tensor([[True, False], [False, False]])
    for nothing in (0.0, float('nan')):
        for key in ('img_from_cam', 'cam_from_lidar'):
            matrices[key] = torch.where(there[..., None, None], matrices[key], nothing)
        rig = Calibration.from_matrices(**matrices, cam_valid=there)
        replaced = replace(whole, cam_valid=there, **{key: torch.where(
            there[..., None, None], getattr(whole, key), nothing) for key in ('img_from_cam', 'cam_from_lidar', 'calib_noise')})
        points = torch.tensor(np.random.default_rng(0).uniform(-20, 20, (2, 50, 3))).float()
        for one in (rig, replaced):
            uv_px, _, valid = one.project(points)
            assert not valid[~there].any() and torch.equal(valid[0, 0], whole.project(points)[2][0, 0])
            assert torch.isfinite(uv_px).all()
            back = one.unproject(torch.zeros(2, 2, 1, 2), torch.ones(2, 2, 1))
            assert torch.equal(back[0, 0], whole.unproject(torch.zeros(2, 2, 1, 2), torch.ones(2, 2, 1))[0, 0])
            assert torch.isfinite(back).all()
            noise = one.calib_noise.clone().requires_grad_()
            replace(one, calib_noise=noise).project(points)[0][0, 0].sum().backward()
            assert torch.isfinite(noise.grad).all() and noise.grad[0, 0].abs().max() > 0
    for wrong in (there[0], there.float(), there[:1, :1]):
        with pytest.raises(ValueError, match=r'cam_valid is .*, expected \(2, 2\) bool'):
            Calibration.from_matrices(**matrices, cam_valid=wrong)


def test_undistorting_makes_a_pinhole_of_a_missing_camera_too() -> None:
    rig = Calibration.from_info(images(distortion=dict(model='radtan', coefficients=[-0.2, 0.05, 0.001, -0.002])))
    rig.cam_valid[0, 0], rig.img_from_cam[0, 0] = False, torch.nan
    with pytest.raises(ValueError, match=r"\['FRONT'\] have lens distortion"):
        _ = rig.img_from_lidar
    assert rig.undistorted().img_from_lidar.isfinite().all()
    assert rig.undistorted().max_radius.isinf().all() and rig.undistorted().distortion.abs().max() == 0


def test_a_rig_moves_but_keeps_its_precision() -> None:
    rig = Calibration.from_info(images())
    assert rig.to('cpu').t_lidar.dtype == torch.float64
    with pytest.raises((TypeError, RuntimeError)):
        rig.to(torch.float64)


def test_points_of_a_wrong_shape_and_an_empty_info_are_named() -> None:
    calibration = Calibration.from_info(images())
    for wrong in (torch.zeros(5, 3), torch.zeros(2, 5, 3), torch.zeros(1, 5, 4)):
        with pytest.raises(ValueError, match=r'points_m is .* \(B, P, 3\) with B=1'):
            calibration.project(wrong)
    with pytest.raises(ValueError, match='no cameras'):
        Calibration.from_info({})


def test_image_border_is_not_valid_outside() -> None:
    calibration = Calibration.from_info(images())
    # u = 320 + 100 x / 5: x = 16 m is column 640, one past the last
    valid = calibration.project(torch.tensor([[[15.9, 5.0, 0.0], [16.1, 5.0, 0.0], [-16.1, 5.0, 0.0]]]))[2]
    assert valid[0, 0].tolist() == [True, False, False]


def test_bev_augmentation_is_undone() -> None:
    rng = np.random.default_rng(0)
    points = torch.tensor(rng.uniform([-20, 4, -3], [20, 50, 3], (1, 200, 3)), dtype=torch.float32)
    angle = 0.7
    bev_aug = np.eye(4)
    cos, sin = np.cos(angle), np.sin(angle)
    bev_aug[:3, :3] = 1.05 * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    bev_aug[:3, :3] = bev_aug[:3, :3] @ np.diag([1.0, -1.0, 1.0])
    bev_aug[:3, 3] = [0.5, -0.3, 0.1]
    moved = points @ torch.tensor(bev_aug[:3, :3].T).float() + torch.tensor(bev_aug[:3, 3]).float()
    plain = Calibration.from_info(images()).project(points)
    augmented = Calibration.from_info(images(), bev_aug=bev_aug).project(moved)
    assert torch.equal(plain[2][:, 0], augmented[2][:, 0]) and plain[2][:, 0].sum() > 100
    assert (plain[0] - augmented[0])[plain[2]].abs().max() < 1e-2


def test_matrix_equals_project_and_refuses_distortion() -> None:
    calibration = Calibration.from_info(images())
    point = torch.tensor([[[3.0, 5.0, -2.0]]])
    homogeneous = calibration.img_from_lidar[0, 0] @ torch.tensor([3.0, 5.0, -2.0, 1.0])
    np.testing.assert_allclose(homogeneous[:2] / homogeneous[2], calibration.project(point)[0][0, 0, 0], atol=1e-4)
    lens = dict(model='radtan', coefficients=[-0.1, 0.0, 0.0, 0.0, 0.0])
    bent = Calibration.from_info(images(distortion=lens))
    with pytest.raises(ValueError, match='FRONT'):
        _ = bent.img_from_lidar
    # r^2 = 0.36 + 0.16 = 0.52: radial factor 1 - 0.052
    np.testing.assert_allclose(bent.project(point)[0][0, 0, 0], [320 + 60 * 0.948, 240 + 40 * 0.948], atol=1e-3)


def test_missing_camera_is_masked_out_and_batches_equal_singles() -> None:
    names = ['BACK', 'LEFT', 'FRONT']
    calibration = Calibration.from_info(images(), cam_names=names)
    points = torch.tensor([[[3.0, 5.0, -2.0], [0.0, 0.0, 5.0]]])
    uv, _, valid = calibration.project(points)
    assert calibration.cam_valid.tolist() == [[True, False, True]]
    assert not valid[0, 1].any() and torch.isfinite(uv).all()
    batch = Calibration.cat([calibration, calibration])
    both = batch.project(torch.cat([points, points + 1]))
    np.testing.assert_array_equal(both[0][0], uv[0])
    np.testing.assert_array_equal(both[0][1], calibration.project(points + 1)[0][0])
    with pytest.raises(ValueError, match='different cameras'):
        Calibration.cat([calibration, Calibration.from_info(images())])


def test_chain_through_global_frame_when_lidar2cam_is_missing() -> None:
    info = images(cam2ego=np.linalg.inv(np.array(LOOKS_ALONG_Y)).tolist())
    del info['FRONT']['lidar2cam']
    offset = np.eye(4)
    offset[:3, 3] = [1e5, -2e5, 3.0]
    moved = offset.copy()
    moved[1, 3] += 1.0  # the ego has moved 1 m ahead when the camera fires
    info['FRONT']['ego2global'] = moved.tolist()
    calibration = Calibration.from_info({'FRONT': info['FRONT']}, global_from_lidar=offset)
    depth = calibration.project(torch.tensor([[[0.0, 5.0, 0.0]]]))[1]
    np.testing.assert_allclose(depth, [[[4.0]]], atol=1e-6)


def test_autocast_does_not_touch_geometry() -> None:
    calibration = Calibration.from_info(images())
    points = torch.tensor([[[3.21, 5.43, -2.1]]])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = calibration.project(points)[0]
    np.testing.assert_array_equal(inside, calibration.project(points)[0])


@pytest.mark.parametrize('change, word', [
    (dict(cam2img=np.array(K).T.tolist()), 'cam2img'),
    (dict(cam2img=[[-100.0, 0, 1], [0, 100.0, 1], [0, 0, 1]]), 'cam2img'),
    (dict(lidar2cam=(2 * np.array(LOOKS_ALONG_Y)).tolist()), 'lidar2cam'),
    (dict(lidar2cam=np.diag([1.0, 1.0, -1.0, 1.0]).tolist()), 'lidar2cam'),
    (dict(height=None), 'img_hw'),
    (dict(distortion=dict(model='radtan', coefficients=[0.1])), 'radtan')])
def test_bad_input_names_the_camera(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=f'FRONT.*{word}'):
        Calibration.from_info(images(**change))


@pytest.mark.parametrize('key', ['cam2img', 'lidar2cam'])
def test_missing_key_names_the_camera(key: str) -> None:
    info = images()
    del info['FRONT'][key]
    with pytest.raises(ValueError, match=f'FRONT.*{key}'):
        Calibration.from_info(info)


def test_no_known_camera() -> None:
    with pytest.raises(ValueError, match='LEFT'):
        Calibration.from_info(images(), cam_names=['LEFT'])


def test_a_keyframe_equals_the_float64_chain(keyframe_dir: Path) -> None:
    info = pickle.loads(next(keyframe_dir.glob('*.pkl')).read_bytes())['data_list'][0]
    points = np.fromfile(keyframe_dir / info['lidar_points']['lidar_path'], dtype=np.float32).reshape(-1, 5)[:, :3]
    calibration = Calibration.from_info(info['images'], img_hw=(900, 1600))
    uv, depth, valid = calibration.project(torch.from_numpy(points)[None])
    total = 0
    for index, image in enumerate(info['images'].values()):
        cam = np.asarray(image['lidar2cam'], dtype=np.float64)
        in_cam = points.astype(np.float64) @ cam[:3, :3].T + cam[:3, 3]
        expected = in_cam @ np.asarray(image['cam2img']).T
        expected = expected[:, :2] / expected[:, 2:]
        ahead = (in_cam[:, 2] > 0.1) & (np.abs(expected - [799.5, 449.5]) < [799.99, 449.99]).all(axis=1)
        assert (ahead == valid[0, index].numpy()).mean() > 0.9999
        both = ahead & valid[0, index].numpy()
        assert np.abs(uv[0, index].numpy() - expected)[both].max() < 0.05
        assert np.abs(depth[0, index].numpy() - in_cam[:, 2]).max() < 1e-4
        total += int(both.sum())
    assert total > 15000  # of 34688; four of six LiDAR points have a pixel
