"""Unit: viewing rays, rigs of earlier frames and what is kept of a rig, against unproject, project and a slow chain."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion

from projects.geometry.homography import crop_homography, flip_homography, resize_homography, rotation_homography
from projects.geometry.views import cell_pixels
from projects.memfusion.structures import Calibration

LENSES = dict(pinhole=(), radtan=(-0.12, 0.03, 0.0006, -0.0004, -0.002), fisheye=(-0.03, 0.008, -0.004, 0.0006))
K = np.array([[1266.4, 0, 816.3], [0, 1250.1, 491.5], [0, 0, 1]])


def pose(rng: np.random.Generator, shift_m: float = 1.0) -> torch.Tensor:
    matrix = Quaternion(rng.normal(size=4)).transformation_matrix
    matrix[:3, 3] = rng.uniform(-shift_m, shift_m, 3)
    return torch.tensor(matrix)


def lens_rig(frames: int = 2, seed: int = 0) -> Calibration:
    """One camera of each lens, images resized, cropped, turned and mirrored, a BEV that is mirrored and scaled."""
    rng = np.random.default_rng(seed)
    rigs = []
    for _ in range(frames):
        info = {model: dict(cam2img=K.tolist(), lidar2cam=pose(rng).tolist(), height=900, width=1600,
                            distortion=dict(model=model, coefficients=list(terms))) for model, terms in LENSES.items()}
        aug = torch.eye(4, dtype=torch.float64)
        angle = rng.uniform(-1, 1)
        aug[:2, :2] = 1.03 * torch.tensor([[math.cos(angle), math.sin(angle)], [math.sin(angle), -math.cos(angle)]])
        aug[:3, 3] = torch.tensor([3.0, -2.0, 0.4])
        rigs.append(Calibration.from_info(info, bev_aug=aug))
    rig = Calibration.cat(rigs).with_noise(torch.stack([torch.stack([pose(rng, 0.1) for _ in LENSES]) for _ in rigs]))
    small = resize_homography((900, 1600), (252, 448))
    for camera, step in enumerate((crop_homography(20, 10) @ rotation_homography(4.0, (252, 448)) @ small,
                                   flip_homography(448) @ small, small)):
        rig = rig.with_img_aug(camera, step, (240, 420) if camera == 0 else (252, 448))
    return rig


@pytest.mark.parametrize('padded_hw, level_shape', [((256, 448), (16, 28)), ((252, 450), (9, 17)), (None, (7, 11))])
@pytest.mark.parametrize('offset', [0.5, 0.0])
def test_rays_are_unproject_at_every_depth_and_project_back(padded_hw, level_shape, offset) -> None:
    rig = replace(lens_rig(), padded_hw=padded_hw)
    origins, directions = rig.rays(level_shape, offset)
    assert origins.shape == (2, 3, 3) and directions.shape == (2, 3, *level_shape, 3) and directions.dtype == torch.float32
    height, width = padded_hw or (252, 448)
    uv_px = torch.tensor([[[(j + offset) * width / level_shape[1] - 0.5, (i + offset) * height / level_shape[0] - 0.5]
                           for j in range(level_shape[1])] for i in range(level_shape[0])])
    uv_px = uv_px.flatten(0, 1).expand(2, 3, -1, 2)
    for depth in (0.7, 5.0, 58.0):
        at = torch.full(uv_px.shape[:-1], depth)
        points = origins[:, :, None] + depth * directions.flatten(2, 3)
        assert (points - rig.unproject(uv_px, at)).abs().max() < 2e-5  # two steps of float32 at 60 m
        for camera in range(3):
            again, z_m, _ = rig.project(points[:, camera])
            assert (again[:, camera] - uv_px[:, camera]).abs().max() < 0.03  # of 448; a point keeps 4e-6 m
            assert (z_m[:, camera] - depth).abs().max() < 2e-5
    unit = rig.rays(level_shape, offset, normalise=True)[1]
    length = directions.double().norm(dim=-1, keepdim=True)
    assert (unit - directions / length).abs().max() < 2e-7 and (unit.norm(dim=-1) - 1).abs().max() < 2e-7


def test_rays_by_hand() -> None:
    # K: f = 100 at (159.5, 79.5) in 160 x 320, seen along LiDAR y; padded to 192 x 320: cells of 48 x 80
    looks_along_y = [[1, 0, 0, -2], [0, 0, -1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    matrix = [[100.0, 0, 159.5], [0, 100.0, 79.5], [0, 0, 1.0]]
    rig = Calibration.from_info(dict(A=dict(cam2img=matrix, lidar2cam=looks_along_y, height=160, width=320)))
    assert torch.equal(rig.rays((2, 4))[1], replace(rig, padded_hw=(160, 320)).rays((2, 4))[1])
    origins, directions = replace(rig, padded_hw=(192, 320)).rays((4, 4))
    np.testing.assert_allclose(origins[0, 0], [2.0, 0.0, 1.0], atol=1e-6)
    # cell (0, 0): pixel (39.5, 23.5), 120 left and 56 above the centre
    np.testing.assert_allclose(directions[0, 0, 0, 0], [-1.2, 1.0, 0.56], atol=1e-6)
    np.testing.assert_allclose(directions[0, 0, 3, 2], [0.4, 1.0, -0.88], atol=1e-6)
    corners = replace(rig, padded_hw=(192, 320)).rays((4, 4), offset=0.0)[1]
    np.testing.assert_allclose(corners[0, 0, 0, 0], [-1.6, 1.0, 0.8], atol=1e-6)  # (-0.5, -0.5), the image's own corner
    assert cell_pixels((3, 5), (48, 80)).tolist() == [[[16 * j + 7.5, 16 * i + 7.5] for j in range(5)] for i in range(3)]


def test_a_missing_camera_has_finite_rays_and_no_size() -> None:
    rig = lens_rig()
    there = rig.cam_valid.clone()
    there[:, 1] = False
    spoilt = replace(rig, cam_valid=there, img_from_cam=torch.where(there[..., None, None], rig.img_from_cam, torch.nan),
                     img_hw=torch.where(there[..., None], rig.img_hw, 9999))
    origins, directions = spoilt.rays((5, 8))
    assert torch.isfinite(origins).all() and torch.isfinite(directions).all()
    assert torch.equal(directions[:, ::2], rig.rays((5, 8))[1][:, ::2])


def test_an_earlier_rig_seen_from_now() -> None:
    rng = np.random.default_rng(1)
    rig = lens_rig()
    cur_from_prev = torch.stack([pose(rng, 9.0) for _ in range(2)])
    points = torch.tensor(rng.uniform(-30, 30, (2, 400, 3))).float()
    moved_points = (points.double() @ cur_from_prev[:, :3, :3].transpose(1, 2) + cur_from_prev[:, None, :3, 3]).float()
    for motion in (cur_from_prev, cur_from_prev.float()):
        moved = rig.moved(motion)
        before, now = rig.project(points), moved.project(moved_points)
        both = before[2] & now[2]
        assert (before[2] == now[2]).float().mean() > 0.999 and both.sum() > 100
        assert (before[0] - now[0])[both].abs().max() < 0.02 and (before[1] - now[1]).abs().max() < 1e-4
        origins, directions = (part.double() for part in rig.rays((4, 6)))
        turn = motion.double()[:, None, :3, :3].transpose(-1, -2)
        assert (moved.rays((4, 6))[1].flatten(2, 3) - directions.flatten(2, 3) @ turn).abs().max() < 1e-5
        assert (moved.rays((4, 6))[0] - (origins[:, :, None] @ turn)[:, :, 0] - motion[:, None, :3, 3]).abs().max() < 1e-5
    assert torch.equal(moved.t_lidar.isnan(), rig.t_lidar.isnan()) and moved.cam_names == rig.cam_names
    # a mirrored current frame, and two moves one after the other
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)).expand(2, 4, 4)
    twice, once = rig.moved(cur_from_prev).moved(mirror), rig.moved(mirror @ cur_from_prev)
    assert (twice.cam_from_bev - once.cam_from_bev).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r'cur_from_prev is \(4, 4\)'):
        rig.moved(torch.eye(4))


def test_views_say_what_the_rig_does() -> None:
    rig = replace(lens_rig(), padded_hw=(256, 448))
    views = rig.views()
    eye = torch.eye(4, dtype=torch.float64)
    assert views.cam_names == rig.cam_names and views.lens_models == (0, 1, 2) and views.padded_hw == (256, 448)
    assert (views.cam_from_bev @ views.bev_from_cam - eye).abs().max() < 1e-12
    assert (views.img_from_cam @ views.cam_from_img - eye).abs().max() < 1e-12
    chain = rig.calib_noise.double() @ rig.cam_from_lidar.double() @ torch.linalg.inv(rig.bev_aug.double())[:, None]
    assert (views.cam_from_bev - chain).abs().max() < 1e-12
    assert (views.img_from_cam - rig.img_aug.double() @ rig.img_from_cam.double()).abs().max() < 1e-9
    assert (views.origins - torch.linalg.inv(chain)[..., :3, 3]).abs().max() < 1e-6
    for name in ('cam_valid', 'img_hw', 't_cam', 't_lidar'):
        assert torch.equal(getattr(views, name).nan_to_num(), getattr(rig, name).nan_to_num())
    assert all(torch.equal(a, b) for a, b in zip(views.rays((4, 7)), rig.rays((4, 7))))


def test_what_is_derived_is_kept_and_follows_every_change() -> None:
    rig = lens_rig()
    assert rig.views() is rig.views() and rig.cam_from_bev is rig.cam_from_bev
    changed = dict(
        noise=rig.with_noise(torch.eye(4).expand(2, 3, 4, 4) * torch.tensor([-1.0, -1, 1, 1])[:, None]),
        shift=rig.with_shift(torch.full((2, 3, 2), 5.0)), aug=replace(rig, bev_aug=torch.eye(4).expand(2, 4, 4)),
        frame=rig.select([1]), cameras=rig.take_cameras([2, 0]), moved=rig.moved(2 * torch.eye(4).expand(2, 4, 4)),
        padded=replace(rig, padded_hw=(999, 999)), joined=Calibration.cat([rig, rig.select([0])]))
    for name, one in changed.items():
        fresh = pickle.loads(pickle.dumps(one))  # knows nothing yet
        assert '_facts' in one.__dict__ or name in ('aug', 'padded')
        assert one.facts == fresh.facts, name
        for field in fields(one.views()):
            ours, theirs = getattr(one.views(), field.name), getattr(fresh.views(), field.name)
            same = torch.equal(ours.nan_to_num(), theirs.nan_to_num()) if isinstance(ours, torch.Tensor) else ours == theirs
            assert same, (name, field.name)
    assert rig.select([True, False]).facts == rig.select(torch.tensor([True, False])).facts == rig.select([0]).facts
    assert torch.equal(rig.select([True, False]).bev_aug, rig.bev_aug[:1])
    assert Calibration.cat([rig, rig]).facts.lens_model == ((0, 1, 2),) * 4
    with pytest.raises(ValueError, match='padded to different'):
        Calibration.cat([rig, changed['padded']])


def test_a_learned_rig_can_be_trained_twice_and_is_no_victim_of_no_grad() -> None:
    noise = torch.eye(4).repeat(2, 3, 1, 1).requires_grad_()
    rig = replace(lens_rig(), calib_noise=noise)
    points = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rig.project(points), rig.views()
    for _ in range(2):
        rig.project(points)[0].sum().backward()
        rig.rays((2, 2))[1].sum().backward()
    assert noise.grad.abs().max() > 0 and torch.isfinite(noise.grad).all()
    plain = lens_rig()
    with torch.inference_mode():
        plain.project(points), plain.views()
    moving = points.clone().requires_grad_()
    plain.project(moving)[0].sum().backward()
    assert moving.grad.abs().max() > 0


class _Questions(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes what a GPU's host would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ('_local_scalar_dense', 'nonzero', 'masked_select', 'linalg_inv_ex', 'linalg_eigvals', 'unique'):
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


def test_a_rig_that_is_known_asks_no_tensor(monkeypatch) -> None:
    rig = lens_rig()
    assert rig.facts
    points = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    with _Questions() as questions, monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, 'tolist', lambda tensor: pytest.fail('asked for a list'))
        learned = rig.with_noise(torch.eye(4).expand(2, 3, 4, 4)).with_shift(torch.ones(2, 3, 2)).select([1, 0])
        for one in (learned, learned.moved(torch.eye(4).expand(2, 4, 4)), learned.take_cameras([0])):
            uv_px, depth_m, _ = one.project(points)
            one.unproject(uv_px, depth_m), one.rays((3, 4)), one.views().origins
        _ = learned.take_cameras([0]).img_from_lidar
    assert questions.asked == []
