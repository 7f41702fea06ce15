"""From the data set to the network's input: packing, LiDAR-side augmentation, padding, normalisation, determinism."""

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from mmengine.dataset import pseudo_collate, worker_init_fn

from projects.memfusion.data.clip_preprocessor import ClipDataPreprocessor
from projects.memfusion.data.nuscenes_tables import CAMERAS
from projects.memfusion.data.transforms import ClipBEVAugmentation, CropImages, FlipImages, PackClipFrame, ResizeImages
from projects.memfusion.structures import CameraFrame
from projects.memfusion.structures.image_labels import ImageLabels

from .conftest import AUGMENT, LOADERS, TEST_PIPELINE, TRAIN_PIPELINE
from .multiview import frame, points_at, rig

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PREFIX = dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP', **{name: f'samples/{name}' for name in CAMERAS})
LOAD_IMAGES = dict(type='LoadMultiViewImages', cam_names=CAMERAS)
AUGMENT_IMAGES = [dict(type='ResizeImages', width=176, scale_range=(0.94, 1.11)), dict(type='RotateImages'),
                  dict(type='CropImages', size=(64, 176), horizontal=(0, 1)), dict(type='FlipImages')]


def preprocessor():
    return ClipDataPreprocessor(mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32)


@pytest.fixture(scope='module')
def camera_clips(clips):
    """camera_clips(split, images=[...], after_augmentation=False, **arguments): the nano data set with cameras."""
    def make(split='train', images=(), augment=True, images_last=False, **changes):
        test = split == 'val'
        pipeline = list(TEST_PIPELINE if test else TRAIN_PIPELINE)
        inner = [AUGMENT] if augment and not test else []
        cameras = [LOAD_IMAGES, *images]
        pipeline[-1:-1] = [*inner, *cameras] if images_last else [*cameras, *inner]
        return clips(split, **dict(dict(pipeline=pipeline, modality=dict(use_lidar=True, use_camera=True), data_prefix=PREFIX),
                                   **changes))
    return make


# -- LiDAR-side augmentation --------------------------------------------------------
def lidar_frame(seed=0, boxes=12):
    g = torch.Generator().manual_seed(seed)
    tensor = torch.rand(boxes, 9, generator=g) * torch.tensor([16.0, 20, 2, 3, 1, 1, 6, 2, 2]) \
        + torch.tensor([-8.0, 8, -2, 1, 1, 1, -3, -1, -1])
    hw = (90, 160)
    return frame([np.zeros((*hw, 3), np.uint8)] * 2, rig(hw, hw), bev_aug=np.eye(4), clip_seed=seed,
                 points=LiDARPoints(torch.rand(20, 5, generator=g) * 10, points_dim=5),
                 gt_bboxes_3d=LiDARInstance3DBoxes(tensor, box_dim=9), gt_labels_3d=np.zeros(boxes, np.int64))


@pytest.mark.parametrize('seed', range(6))
def test_box_corners_hit_the_same_pixels_under_any_bev_augmentation(seed):
    transforms = [ResizeImages(size=(64, 96)), CropImages((60, 90)), FlipImages()]
    augment = ClipBEVAugmentation(rot_range=(-3.1, 3.1), scale_ratio_range=(0.8, 1.2), translation_std=(1.0, 1.0, 0.3))
    pack = PackClipFrame(keys=('points', 'gt_bboxes_3d', 'gt_labels_3d'))
    before = lidar_frame(seed)['gt_bboxes_3d']
    packed = {}
    for name, order in dict(plain=transforms, first=[augment, *transforms], last=[*transforms, augment]).items():
        np.random.seed(seed)
        packed[name] = Compose([*order, pack])(lidar_frame(seed))
    plain = packed['plain']['inputs']['cameras'].calibration.project(before.corners.reshape(1, -1, 3))
    assert plain[2].sum() > 20
    for name in ('first', 'last'):
        boxes = packed[name]['data_samples'].gt_instances_3d.bboxes_3d
        calibration = packed[name]['inputs']['cameras'].calibration
        uv_px, depth_m, valid = calibration.project(boxes.corners.reshape(1, -1, 3))
        # a mirrored box lists its corners in another order: compare each with the nearest of its box
        pair = [value.reshape(1, 2, -1, 8, value.shape[-1] if value.dim() == 4 else 1) for value in (plain[0], uv_px)]
        off = torch.cdist(pair[0].double(), pair[1].double()).amin(-1)
        seen = plain[2].reshape(1, 2, -1, 8)
        assert off[seen].max() < 1e-2
        velocity = before.tensor[:, 7:9].double() @ torch.from_numpy(packed[name]['data_samples'].bev_aug)[:2, :2].T
        assert (boxes.tensor[:, 7:9] - velocity).abs().max() < 3e-6  # half a step of float32 is 2e-7
    orders = [packed[name]['inputs']['cameras'].calibration for name in ('first', 'last')]
    assert torch.equal(orders[0].bev_aug, orders[1].bev_aug) and not torch.equal(orders[0].bev_aug[0], torch.eye(4))
    points = before.corners.reshape(1, -1, 3)
    assert torch.equal(orders[0].project(points)[0], orders[1].project(points)[0])


def test_order_in_the_pipeline_does_not_matter_on_data(camera_clips):
    for align in ('none', 'loader'):
        items = [camera_clips(images=AUGMENT_IMAGES, images_last=last, seq_len=2, align=align, seed=7)
                 for last in (False, True)]
        for dataset in items:
            dataset.set_epoch(0)
        for first, last in zip(items[0][3], items[1][3]):
            a, b = first['inputs']['cameras'].calibration, last['inputs']['cameras'].calibration
            assert torch.equal(a.bev_aug, b.bev_aug)
            assert torch.equal(a.bev_aug[0], torch.from_numpy(first['data_samples'].bev_aug).float())


def test_aligned_frames_project_with_their_own_images(camera_clips):
    """align='loader' moves the points of earlier frames; their own images still fit: the same points, the same pixels."""
    plain, aligned = (camera_clips(augment=False, seq_len=3, align=align) for align in ('none', 'loader'))
    plain.set_epoch(0)  # so that both load the same sweeps
    aligned.set_epoch(0)
    for one, other in zip(plain[4], aligned[4]):
        if not one['data_samples'].frame_valid:
            continue
        (uv_px, _, valid), moved = (item['inputs']['cameras'].calibration.project(item['inputs']['points'][None, :, :3])
                                    for item in (one, other))
        both = valid & moved[2]
        assert valid.sum() > 500 and both.sum() > 0.999 * valid.sum()
        assert (uv_px - moved[0])[both].abs().max() < 1e-2


def test_mmdet3d_augmentation_that_leaves_no_matrix_is_refused(clips):
    with pytest.raises(ValueError, match='s0.*ClipBEVAugmentation'):
        PackClipFrame(keys=('points',))({**lidar_frame(), 'transformation_3d_flow': ['R', 'S', 'T']})


# -- packing --------------------------------------------------------
def test_packed_images_are_the_loaded_ones_and_labels_follow(monkeypatch):
    data = lidar_frame()
    data['img'] = [np.random.default_rng(n).integers(0, 255, (90, 160, 3), dtype=np.uint8) for n in range(2)]
    boxes = torch.tensor([[20.0, 10.0, 60.0, 50.0]])
    data['img_labels'] = [ImageLabels(boxes, torch.tensor([3]), torch.tensor([7.0])), None]
    packed = Compose([ResizeImages(size=(45, 80)), FlipImages(1.0), PackClipFrame(keys=('points',))])(copy.deepcopy(data))
    cameras = packed['inputs']['cameras']
    assert isinstance(cameras, CameraFrame) and [tuple(image.shape) for image in cameras.images] == [(3, 45, 80)] * 2
    moved = packed['data_samples'].get('gt_img_labels')
    # edges: x from 20 to 60 is (x + 0.5) / 2 - 0.5 = 9.75 to 29.75, mirrored 79 - x
    assert torch.allclose(moved[0].boxes_px, torch.tensor([[49.25, 4.75, 69.25, 24.75]])) and moved[0].labels.tolist() == [3]
    assert len(moved) == 2 and len(moved[1].boxes_px) == 0
    plain = PackClipFrame(keys=('points',))(copy.deepcopy(data))['inputs']['cameras']
    assert np.array_equal(plain.images[1].permute(1, 2, 0).numpy(), data['img'][1])


def test_camera_frame_refuses_images_that_are_not_the_calibrations():
    image = torch.zeros(3, 90, 160, dtype=torch.uint8)
    CameraFrame((image,), rig((90, 160)))
    with pytest.raises(ValueError, match='CAM_0.*with_img_aug'):
        CameraFrame((image[:, :80],), rig((90, 160)))
    with pytest.raises(ValueError, match='CAM_0'):
        CameraFrame((image.float(),), rig((90, 160)))
    with pytest.raises(ValueError, match='2 images'):
        CameraFrame((image, image), rig((90, 160)))


# -- the data preprocessor --------------------------------------------------------
def batch_of(*frames):
    return pseudo_collate([PackClipFrame(keys=('points',))(data) for data in frames])


def test_normalised_padded_and_masked_by_hand():
    sizes = ((20, 40), (33, 24))
    images = [np.random.default_rng(n).integers(0, 255, (*hw, 3), dtype=np.uint8) for n, hw in enumerate(sizes)]
    calibration = rig(*sizes)
    masked = copy.deepcopy(calibration)
    masked.cam_valid[0, 0] = False
    points = LiDARPoints(torch.zeros(1, 5), points_dim=5)
    smaller = rig((16, 16), (16, 16))
    batch = batch_of(frame(images, calibration, points=points), frame(images, masked, points=points),
                     frame([np.full((16, 16, 3), 9, np.uint8)] * 2, smaller, points=points))
    inputs = preprocessor()(batch)['inputs']
    imgs = inputs['imgs']
    assert imgs.shape == (3, 2, 3, 64, 64) and imgs.dtype == torch.float32
    for n, (image, hw) in enumerate(zip(images, sizes)):
        expected = (image[..., ::-1].astype(np.float64) - MEAN) / STD  # RGB
        assert np.abs(imgs[0, n, :, :hw[0], :hw[1]].permute(1, 2, 0).numpy() - expected).max() < 1e-5
        assert not imgs[0, n, :, hw[0]:].any() and not imgs[0, n, :, :, hw[1]:].any()
    assert not imgs[1, 0].any() and torch.equal(imgs[1, 1], imgs[0, 1])
    even = imgs[2, :, 0, :16, :16]  # one value everywhere; a sum of many, as in a deviation, rounds by itself
    assert even.max() - even.min() < 1e-6 and not imgs[2, :, :, 16:].any()
    rigs = inputs['calibration']
    assert rigs.cam_valid.tolist() == [[True, True], [False, True], [True, True]]
    assert rigs.img_hw[:, 1].tolist() == [[33, 24], [33, 24], [16, 16]]
    # padded pixels are never valid: points whose pixel lies in the padding of the smaller camera
    below = points_at(np.array([[10.0, 30.0], [10.0, 19.0]]), calibration)
    valid = rigs.project(below.expand(3, -1, -1))[2]
    assert valid[0, 0].tolist() == [False, True] and not valid[1, 0].any()


def test_frames_of_different_cameras_do_not_mix():
    points = LiDARPoints(torch.zeros(1, 5), points_dim=5)
    one, two = (frame([np.zeros((9, 9, 3), np.uint8)] * n, rig(*[(9, 9)] * n), points=points) for n in (1, 2))
    with pytest.raises(ValueError, match='CAM_1'):
        preprocessor()(batch_of(one, two))


def test_from_the_data_set_to_the_network(camera_clips):
    """Padding and valid frames in one batch, in either order; pixels and calibration of the right frame."""
    dataset = camera_clips(images=[dict(type='ResizeImages', size=(64, 176))], seq_len=2)
    for order in ((0, 4), (4, 0)):
        items = [dataset[i] for i in order]
        inputs = preprocessor()(pseudo_collate(items), training=True)['inputs']
        valid = [item[t]['data_samples'].frame_valid for item in items for t in range(2)]
        assert inputs['frame_valid'] == valid and sum(valid) == 3
        assert inputs['imgs'].shape == (3, 6, 3, 64, 192) and len(inputs['calibration'].bev_aug) == 3 == len(inputs['points'])
        kept = [item[t]['inputs'] for item in items for t in range(2) if item[t]['data_samples'].frame_valid]
        for v, one in enumerate(kept):
            assert torch.equal(inputs['points'][v], one['points'])
            expected = (one['cameras'].images[2].flip(0).double() - torch.tensor(MEAN)[:, None, None]) \
                / torch.tensor(STD)[:, None, None]
            assert (inputs['imgs'][v, 2, :, :, :176] - expected).abs().max() < 1e-5
            assert torch.equal(inputs['calibration'].t_cam[v], one['cameras'].calibration.t_cam[0])


def test_metainfo_counts_masked_cameras_and_keeps_the_rest(camera_clips):
    item = camera_clips('val')[1][-1]['data_samples']
    assert item.num_masked_cameras == 0 and item.is_keyframe and item.frame_valid


def test_sweep_rate_frames_have_masked_cameras(camera_clips):
    dataset = camera_clips('val', images=[dict(type='ResizeImages', size=(32, 64))], frame_rate='sweep')
    frames = [one for one in dataset[2] if one['data_samples'].frame_valid]
    keyframe = [one['data_samples'].is_keyframe for one in frames]
    assert keyframe[-1] and not any(keyframe[:-1]) and len(frames) > 3
    inputs = preprocessor()(pseudo_collate([frames]))['inputs']
    assert inputs['calibration'].cam_valid.all(1).tolist() == keyframe == inputs['calibration'].cam_valid.any(1).tolist()
    assert not inputs['imgs'][:-1].any() and inputs['imgs'][-1].abs().sum() > 0


# -- determinism and checks --------------------------------------------------------
FAULTS = [dict(type='DropCameras', prob=0.5), dict(type='CalibrationNoise', prob=0.5), dict(type='DropLidar', prob=0.2)]
LOOKS = [dict(type='DistortImagesPhotometric'), dict(type='MaskImageGrid')]


def test_draws_depend_on_seed_epoch_and_index_only(camera_clips):
    def item(epoch, index, numpy_seed, before=()):
        dataset = camera_clips(images=[*AUGMENT_IMAGES, *LOOKS, *FAULTS], seq_len=2, seed=11)
        dataset.set_epoch(epoch)
        np.random.seed(numpy_seed)
        for other in before:
            dataset[other]
        return dataset[index][-1]['inputs']

    one, same, next_epoch = item(2, 5, 0), item(2, 5, 99, before=(1, 3)), item(3, 5, 0)
    cameras = one['cameras'], same['cameras'], next_epoch['cameras']
    assert all(torch.equal(a, b) for a, b in zip(cameras[0].images, cameras[1].images))
    assert torch.equal(one['points'], same['points'])
    for name in ('img_aug', 'cam_valid', 'calib_noise', 'bev_aug'):
        assert torch.equal(*(getattr(c.calibration, name) for c in cameras[:2])), name
    assert not torch.equal(cameras[0].calibration.img_aug, cameras[2].calibration.img_aug)


def test_workers_give_what_one_process_gives(camera_clips):
    def load(workers):
        dataset = camera_clips(images=[*AUGMENT_IMAGES, *FAULTS], seq_len=1, seed=3)
        dataset.set_epoch(1)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=2, num_workers=workers, collate_fn=pseudo_collate, sampler=range(4),
            worker_init_fn=(lambda i: worker_init_fn(i, workers, 0, 5)) if workers else None)
        return [batch[0]['inputs']['cameras'] for batch in loader]

    for one, other in zip(load(0), load(2)):
        for a, b in zip(one, other):
            assert all(torch.equal(x, y) for x, y in zip(a.images, b.images))
            assert torch.equal(a.calibration.calib_noise, b.calibration.calib_noise)


IMAGES_FIRST = [*LOADERS, dict(type='FlipImages'), LOAD_IMAGES, dict(type='PackClipFrame', keys=['points'])]


@pytest.mark.parametrize(('pipeline', 'modality', 'words'), [
    (IMAGES_FIRST, True, 'FlipImages must come after LoadMultiViewImages'),
    ([*LOADERS, dict(type='LoadImageLabels', classes=['car']), LOAD_IMAGES, dict(type='PackClipFrame', keys=['points'])], True,
     'LoadImageLabels must come after LoadMultiViewImages'),
    ([*LOADERS, dict(type='DropCameras', prob=1.0), dict(type='PackClipFrame', keys=['points'])], True, 'DropCameras'),
    ([*LOADERS, LOAD_IMAGES, dict(type='PackClipFrame', keys=['points'])], False, 'use_camera'),
    ([*LOADERS, LOAD_IMAGES, LOAD_IMAGES, dict(type='PackClipFrame', keys=['points'])], True, '2 times'),
    ([*LOADERS, LOAD_IMAGES, dict(type='RandomFlip3D'), dict(type='PackClipFrame', keys=['points'])], True, 'RandomFlip3D'),
    ([*LOADERS, LOAD_IMAGES, dict(type='Pack3DDetInputs', keys=['points'])], True, 'use PackClipFrame'),
])
def test_pipelines_that_cannot_be_right(clips, pipeline, modality, words):
    with pytest.raises(ValueError, match=words):
        clips(pipeline=pipeline, modality=dict(use_lidar=True, use_camera=modality), data_prefix=PREFIX)


def test_images_that_are_not_where_the_prefix_says(clips):
    dataset = clips(pipeline=[*LOADERS, LOAD_IMAGES, dict(type='PackClipFrame', keys=['points'])],
                    modality=dict(use_lidar=True, use_camera=True))
    with pytest.raises(ValueError, match='CAM_FRONT of sample .*data_prefix'):
        dataset[0]
