"""Missing sensors, calibration errors and replaced images: how often, how much, and that the true rig stays known."""

import copy
import shutil
from collections import Counter
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures.points import LiDARPoints
from mmengine.dataset import pseudo_collate

from projects.geometry.calib_noise import measure_noise
from projects.memfusion.data.clip_preprocessor import ClipDataPreprocessor
from projects.memfusion.data.nuscenes_tables import CAMERAS
from projects.memfusion.data.transforms import (
    CalibrationNoise,
    DropCameras,
    DropLidar,
    LoadLidarPoints,
    LoadMultiViewImages,
    PackClipFrame,
    ReplaceImages,
    ResizeImages,
)

from .multiview import frame, nano_frames, rig

HW = (90, 160)


@lru_cache
def square_rig(cameras):
    return rig(*[HW] * cameras)


def made(cameras=6, **more):
    images = [np.full((*HW, 3), n, np.uint8) for n in range(cameras)]
    return frame(images, square_rig(cameras), scene_token='scene', clip_seed=3, timestamp=1.5e9,
                 lidar_points=dict(timestamp=1.5e9), **more)


@pytest.fixture(scope='module')
def nano(nano_infos_root):
    return nano_frames(nano_infos_root)


# -- dropped sensors --------------------------------------------------------
def test_cameras_are_dropped_as_often_and_as_many_as_asked():
    np.random.seed(0)
    drop, counts, which = DropCameras(prob=0.4, num=(1, 3)), Counter(), Counter()
    for _ in range(800):
        missing = (~drop(made())['calibration'].cam_valid[0]).nonzero()[:, 0].tolist()
        counts[len(missing)] += 1
        which.update(missing)
    assert abs(counts[0] / 800 - 0.6) < 0.05 and set(counts) == {0, 1, 2, 3}
    assert all(abs(counts[n] / 800 - 0.4 / 3) < 0.03 for n in (1, 2, 3))
    assert all(abs(which[n] / sum(which.values()) - 1 / 6) < 0.03 for n in range(6))


def test_chosen_cameras_and_all_cameras():
    results = DropCameras(prob=1.0, num=(2, None), cameras=['CAM_4', 'CAM_1'])(made())
    assert results['calibration'].cam_valid[0].tolist() == [True, False, True, True, False, True]
    assert not DropCameras(prob=1.0, num=(6, 6))(made())['calibration'].cam_valid.any()
    assert DropCameras(prob=0.0)(made())['calibration'].cam_valid.all()
    with pytest.raises(ValueError, match='CAM_9'):
        DropCameras(prob=1.0, cameras=['CAM_9'])(made())
    with pytest.raises(ValueError, match='cannot drop'):
        DropCameras(prob=1.0, num=(4, 4))(made(cameras=3))


def test_dropped_lidar_has_no_points(nano, nano_infos_root):
    results = nano()
    results['lidar_points']['lidar_path'] = str(nano_infos_root / 'samples/LIDAR_TOP' / results['lidar_points']['lidar_path'])
    loaded = LoadLidarPoints()(results)
    assert len(DropLidar(prob=0.0)(loaded)['points']) > 1000
    dropped = DropLidar(prob=1.0)(loaded)['points']
    assert isinstance(dropped, LiDARPoints) and dropped.tensor.shape == (0, 5)
    np.random.seed(0)
    share = np.mean([len(DropLidar(0.3)(dict(points=LiDARPoints(torch.ones(4, 5), points_dim=5)))['points']) == 0
                     for _ in range(800)])
    assert abs(share - 0.3) < 0.05


@pytest.mark.parametrize('empty', [(False, True), (True, False), (True, True)])
def test_a_batch_with_dropped_lidar_is_voxelised(empty):
    frames = []
    for gone in empty:
        points = LiDARPoints(torch.rand(0 if gone else 50, 5), points_dim=5)
        frames.append(PackClipFrame(keys=('points',))(dict(points=points, sample_idx=0)))
    layer = dict(max_num_points=5, point_cloud_range=[0, 0, 0, 1, 1, 1], voxel_size=[0.5, 0.5, 1], max_voxels=(9, 9))
    pre = ClipDataPreprocessor(voxel=True, voxel_type='hard', voxel_layer=layer)
    coors = pre(pseudo_collate(frames))['inputs']['voxels']['coors']
    assert sorted(set(coors[:, 0].tolist())) == [b for b, gone in enumerate(empty) if not gone]


# -- calibration errors --------------------------------------------------------
def test_noise_has_the_size_that_is_asked_for():
    np.random.seed(0)
    noise = CalibrationNoise(rotation_deg=0.5, translation_m=0.03, prob=1.0)
    drawn = torch.cat([noise(made())['calibration'].calib_noise for _ in range(200)])
    angle_deg, shift_m = measure_noise(drawn)
    # |N(0, s)| has root mean square s; the shift has three such parts
    assert abs(float(angle_deg.square().mean().sqrt()) - 0.5) < 0.04
    assert abs(float(shift_m.square().mean().sqrt()) - 0.03 * 3 ** 0.5) < 0.003
    assert (torch.linalg.det(drawn[..., :3, :3]) - 1).abs().max() < 1e-5
    assert not torch.equal(drawn[0, 0], drawn[0, 1])  # each camera its own
    share = np.mean([torch.equal(CalibrationNoise()(made())['calibration'].calib_noise[0, 0], torch.eye(4))
                     for _ in range(300)])
    assert abs(share - 0.5) < 0.08


@pytest.mark.parametrize('mode', ['camera', 'rig'])
def test_the_true_rig_stays_known(nano, mode):
    np.random.seed(1)
    loaded = LoadMultiViewImages()(nano())
    true = loaded['calibration']
    noisy = CalibrationNoise(2.0, 0.2, prob=1.0, mode=mode, time_offset_s=0.05)(copy.deepcopy(loaded))['calibration']
    assert torch.equal(noisy.cam_from_lidar, true.cam_from_lidar)
    assumed = noisy.calib_noise.double() @ noisy.cam_from_lidar.double()
    recovered = torch.linalg.inv(noisy.calib_noise.double()) @ assumed
    assert (recovered - true.cam_from_lidar).abs().max() < 1e-5
    points = torch.rand(1, 500, 3) * torch.tensor([40.0, 40, 3]) - torch.tensor([20.0, 20, 2])
    moved = (noisy.project(points)[0] - true.project(points)[0]).norm(dim=-1)[true.project(points)[2]]
    assert moved.median() > 2


def test_a_rig_error_keeps_the_cameras_together(nano):
    """Cameras move as one body: the transforms between them stay, which errors of each camera's own do not do."""
    np.random.seed(2)
    loaded = LoadMultiViewImages()(nano())
    between = {}
    for mode in ('camera', 'rig'):
        noisy = CalibrationNoise(2.0, 0.2, prob=1.0, mode=mode)(copy.deepcopy(loaded))['calibration']
        assumed = (noisy.calib_noise.double() @ noisy.cam_from_lidar.double())[0]
        between[mode] = assumed[1:] @ torch.linalg.inv(assumed[:1])
        angle_deg, _ = measure_noise(noisy.calib_noise)
        assert (mode == 'rig') == bool(angle_deg.std() < 1e-3)
    true = loaded['calibration'].cam_from_lidar[0].double()
    expected = true[1:] @ torch.linalg.inv(true[:1])
    assert (between['rig'] - expected).abs().max() < 1e-5 < 1e-2 < (between['camera'] - expected).abs().max()


def straight_drive(speed_mps=15.0, sweeps=True):
    """A camera that looks ahead on an ego that drives straight ahead along LiDAR y."""
    results = made(cameras=1)
    pose, earlier, at_cam = np.eye(4), np.eye(4), np.eye(4)
    earlier[1, 3], at_cam[1, 3] = -0.05 * speed_mps, -0.03 * speed_mps
    results.update(global_from_lidar=pose, images=dict(CAM_0=dict(timestamp=1.5e9 - 0.03, ego2global=at_cam.tolist())))
    results['lidar_points']['lidar2ego'] = np.eye(4).tolist()
    if sweeps:
        results['lidar_sweeps'] = [dict(timestamp=1.5e9 - 0.05, global_from_lidar=earlier.tolist(), lidar_points={})]
    return results


@pytest.mark.parametrize('sweeps', [True, False])
def test_time_offset_is_the_ego_motion_in_that_time(sweeps):
    """100 ms late at 15 m/s: the camera is taken for 1.5 m further ahead, so everything is 1.5 m nearer in its frame."""
    late = CalibrationNoise(0.0, 0.0, prob=1.0, time_offset_s=0.1)(straight_drive(sweeps=sweeps))
    noise = late['calibration'].calib_noise[0, 0]
    expected = torch.eye(4)
    expected[2, 3] = -1.5
    # stamps of 1.5e9 s have steps of 2.4e-7 s, in which this car makes 4e-6 m
    assert (noise - expected).abs().max() < 3e-5
    early = CalibrationNoise(0.0, 0.0, prob=1.0, time_offset_s=-0.1)(straight_drive(sweeps=sweeps))
    assert abs(float(early['calibration'].calib_noise[0, 0, 2, 3]) - 1.5) < 3e-5


def test_time_offset_in_a_turn_equals_the_chain_of_poses(nano):
    """Against poses by hand: the ego pose at the camera's stamp replaced by that at the newest sweep."""
    results = nano(2)
    loaded = LoadMultiViewImages()(copy.deepcopy(results))
    sweep = results['lidar_sweeps'][0]
    dt = sweep['timestamp'] - results['lidar_points']['timestamp']
    noisy = CalibrationNoise(0.0, 0.0, prob=1.0, time_offset_s=dt)(loaded)['calibration']
    own, other = (np.array(r['global_from_lidar']) for r in (results, sweep))
    # a stamp off by dt: cam_from_lidar . (LiDAR frame dt later from the one now)
    expected = noisy.cam_from_lidar[0].double().numpy() @ (np.linalg.inv(other) @ own)
    assumed = (noisy.calib_noise.double() @ noisy.cam_from_lidar.double())[0].numpy()
    assert np.abs(assumed - expected).max() < 1e-4 < 1e-2 < np.abs(assumed - noisy.cam_from_lidar[0].numpy()).max()


def test_time_offset_without_a_second_pose_names_the_sample():
    results = straight_drive(sweeps=False)
    results['images']['CAM_0']['timestamp'] = 1.5e9
    with pytest.raises(ValueError, match='s0.*sweeps'):
        CalibrationNoise(time_offset_s=0.1, prob=1.0)(results)


# -- which frames share a draw --------------------------------------------------------
def noise_of(per, seed=None, numpy_seed=0, **frame_keys):
    np.random.seed(numpy_seed)
    return CalibrationNoise(prob=1.0, per=per, seed=seed)({**made(), **frame_keys})['calibration'].calib_noise


def test_noise_for_a_frame_a_clip_or_a_scene():
    scene = noise_of('scene')
    assert torch.equal(scene, noise_of('scene', numpy_seed=1, clip_seed=8, sample_token='x'))
    assert not torch.equal(scene, noise_of('scene', scene_token='other')) and not torch.equal(scene, noise_of('scene', seed=1))
    clip = noise_of('clip')
    assert torch.equal(clip, noise_of('clip', numpy_seed=1, sample_token='x'))
    assert not torch.equal(clip, noise_of('clip', clip_seed=8))
    frame_ = noise_of('frame')
    assert torch.equal(frame_, noise_of('frame')) and not torch.equal(frame_, noise_of('frame', numpy_seed=1))
    seeded = noise_of('frame', seed=0)
    assert torch.equal(seeded, noise_of('frame', seed=0, numpy_seed=1, clip_seed=8))
    assert not torch.equal(seeded, noise_of('frame', seed=0, sample_token='x'))
    assert not torch.equal(seeded, noise_of('frame', seed=0, lidar_points=dict(timestamp=1.5e9 + 0.05)))  # a sweep's frame


@pytest.mark.parametrize('build', [
    lambda: DropCameras(1.5), lambda: DropCameras(0.5, num=(0, 1)), lambda: DropCameras(0.5, num=(3, 2)),
    lambda: DropLidar(-0.1),
    lambda: CalibrationNoise(mode='all'), lambda: CalibrationNoise(rotation_deg=-1.0), lambda: CalibrationNoise(per='epoch'),
    lambda: CalibrationNoise(per='clip', seed=3), lambda: ReplaceImages('noise'), lambda: ReplaceImages('other_scene'),
    lambda: ReplaceImages('blank', ann_file='x.pkl')])
def test_bad_arguments(build):
    with pytest.raises(ValueError, match='must|ann_file|leave out'):
        build()


# -- counterfactual images --------------------------------------------------------
def test_blank_and_masked_images(nano):
    loaded = LoadMultiViewImages()(nano())
    blank = ReplaceImages('blank')(copy.deepcopy(loaded))
    assert all((image == (104, 116, 124)).all() and image.shape == (225, 400, 3) for image in blank['img'])
    assert blank['calibration'].cam_valid.all()
    masked = ReplaceImages('masked')(copy.deepcopy(loaded))
    assert not masked['calibration'].cam_valid.any()
    assert torch.equal(masked['calibration'].cam_from_lidar, loaded['calibration'].cam_from_lidar)


def test_images_of_another_scene(nano, nano_infos_root):
    ann_file = str(nano_infos_root / 'nuscenes_infos_train.pkl')
    others = {nano(i)['scene_token']: [] for i in range(10)}
    assert len(others) > 1
    for i in range(10):
        others[nano(i)['scene_token']].append([cv2.imread(nano(i)['images'][name]['img_path']) for name in CAMERAS])
    replace = ReplaceImages('other_scene', ann_file=ann_file)
    chosen = set()
    for i in (0, 3, 8):
        loaded = LoadMultiViewImages()(nano(i))
        calibration = loaded['calibration']
        images = replace(loaded)['img']
        donors = [(scene, n) for scene, frames in others.items() for n, frame_ in enumerate(frames)
                  if all(np.array_equal(a, b) for a, b in zip(frame_, images))]  # one frame, camera by camera
        assert len(donors) == 1 and donors[0][0] != nano(i)['scene_token']
        assert loaded['calibration'] is calibration
        again = ReplaceImages('other_scene', ann_file=ann_file)(LoadMultiViewImages()(nano(i)))['img']
        assert all(np.array_equal(a, b) for a, b in zip(images, again))
        chosen.add(donors[0])
    assert len(chosen) > 1


def test_images_of_another_scene_bad_input(nano, nano_infos_root, tmp_path):
    ann_file = str(nano_infos_root / 'nuscenes_infos_train.pkl')
    with pytest.raises(ValueError, match='right after LoadMultiViewImages'):
        ReplaceImages('other_scene', ann_file=ann_file)(ResizeImages(width=100)(LoadMultiViewImages()(nano())))
    with pytest.raises(ValueError, match='gone.pkl'):
        ReplaceImages('other_scene', ann_file=str(tmp_path / 'gone.pkl'))(LoadMultiViewImages()(nano()))
    with pytest.raises(ValueError, match='LoadMultiViewImages'):
        ReplaceImages('blank')({})
    moved = nano()
    folder = tmp_path / 'CAM_FRONT'
    folder.mkdir()
    shutil.copy(moved['images']['CAM_FRONT']['img_path'], folder)
    moved['images']['CAM_FRONT']['img_path'] = str(folder / moved['images']['CAM_FRONT']['img_path'].rsplit('/', 1)[1])
    with pytest.raises(ValueError, match='CAM_FRONT of another scene.*cannot be read'):
        ReplaceImages('other_scene', ann_file=ann_file)(LoadMultiViewImages()(moved))
