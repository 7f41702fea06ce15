"""Clips without LiDAR: the same numbers as with it, only no points; and errors where somebody waits for points."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from projects.memfusion.data.clip_preprocessor import ClipDataPreprocessor
from projects.memfusion.data.errors import DataError
from projects.memfusion.data.transforms import PackClipFrame
from projects.memfusion.runtime import UserError, check_run, init_registry

# Harder than the configs: every frame gets an error of its calibration, every clip loses cameras.
NOISE = dict(type='CalibrationNoise', prob=1.0, time_offset_s=0.05)
FAULTS = [dict(type='DropCameras', prob=1.0, num=(1, 3), per='clip'), dict(type='DistortImagesPhotometric')]
OF_LIDAR = {'lidar_path', 'num_pts_feats'}
"""Metainfo that mmdet3d's data sets write with use_lidar=True only."""
LAYER = dict(max_num_points=5, point_cloud_range=[-25.6, -25.6, -5, 25.6, 25.6, 3], voxel_size=[3.2, 3.2, 8],
             max_voxels=(99, 99))


@pytest.fixture(scope='module')
def configs(repo, nano_infos_root):
    """(with LiDAR, without): the tiny data sets' configs on the nano world."""
    init_registry()
    folder = repo / 'configs/_base_/datasets'
    made = [Config.fromfile(folder / f'synthetic_sequence_{name}.py') for name in ('cameras', 'cameras_only')]
    for cfg in made:
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.dataset.update(data_root=f'{nano_infos_root}/', serialize_data=False)  # collects garbage first: slow
            for step in loader.dataset.pipeline:
                if step.type == 'LoadLidarSweeps':
                    step.sweeps_num = 10  # all that there are: choosing some would move numpy's generator on
                if step.type == 'ResizeImages':
                    step.width = 176
                if step.type == 'CropImages':
                    step.size = (64, 176)
                if step.type == 'CalibrationNoise':
                    step.update(NOISE)
        cfg.train_dataloader.dataset.pipeline[-1:-1] = FAULTS
    return made


def pair(configs, split='train', **changes):
    made = [DATASETS.build({**copy.deepcopy(cfg[f'{split}_dataloader'].dataset), **changes}) for cfg in configs]
    for dataset in made:
        dataset.set_epoch(2)
    return made


def assert_equal(one, other):
    """Bit for bit, NaN included; tensors, boxes, arrays or anything that has ==."""
    one, other = (getattr(value, 'tensor', value) for value in (one, other))
    if isinstance(one, (torch.Tensor, np.ndarray, float)):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    else:
        assert one == other


def assert_same_but_for_points(one, other):
    """A packed frame with LiDAR, and the same without."""
    assert set(one['inputs']) - set(other['inputs']) == {'points'} and set(other['inputs']) == {'cameras'}
    cameras = one['inputs']['cameras'], other['inputs']['cameras']
    if None in cameras:
        assert cameras == (None, None)
    else:
        for pixels in zip(*(frame.images for frame in cameras), strict=True):
            assert_equal(*pixels)
        for field in dataclasses.fields(cameras[0].calibration):
            assert_equal(*(getattr(frame.calibration, field.name) for frame in cameras))
    a, b = one['data_samples'], other['data_samples']
    assert {*a.metainfo_keys()} - {*b.metainfo_keys()} <= OF_LIDAR and not {*b.metainfo_keys()} - {*a.metainfo_keys()}
    for key in b.metainfo_keys():
        assert_equal(a.metainfo[key], b.metainfo[key])
    for name in ('bboxes_3d', 'labels_3d'):
        if name in a.gt_instances_3d:
            assert_equal(a.gt_instances_3d[name], b.gt_instances_3d[name])
    truth = a.get('eval_ann_info')
    assert (truth is None) == (b.get('eval_ann_info') is None)
    for name in ('gt_bboxes_3d', 'gt_labels_3d') if truth else ():
        assert_equal(truth[name], b.eval_ann_info[name])


@pytest.mark.parametrize('align', ['none', 'loader'])
def test_training_clips_are_those_of_lidar_and_cameras(configs, align):
    both, cameras = pair(configs, seq_len=3, align=align)
    boxes, dropped = 0, 0
    for index in (0, 4):  # with two frames of padding, and none
        clips = both[index], cameras[index]
        for one, other in zip(*clips, strict=True):
            assert_same_but_for_points(one, other)
        last = clips[1][-1]
        calibration = last['inputs']['cameras'].calibration
        assert (calibration.bev_aug[0] - torch.eye(4)).abs().max() > 0.01
        assert (calibration.calib_noise - torch.eye(4)).abs().amax((0, 2, 3)).min() > 1e-4
        boxes, dropped = boxes + len(last['data_samples'].gt_instances_3d.bboxes_3d), \
            dropped + int((~calibration.cam_valid).sum())
    assert [frame['data_samples'].frame_valid for frame in cameras[0]] == [False, False, True]
    assert boxes > 5 and 0 < dropped < 12


@pytest.mark.parametrize('changes', [dict(), dict(seq_len=2, align='loader')], ids=['streaming', 'window'])
def test_test_clips_are_those_of_lidar_and_cameras(configs, changes):
    both, cameras = pair(configs, 'val', **changes)
    assert len(both) == len(cameras)
    for index in (0, 1):
        for one, other in zip(both[index], cameras[index], strict=True):
            assert_same_but_for_points(one, other)
    assert len(cameras[1][-1]['data_samples'].eval_ann_info['gt_bboxes_3d']) > 0


def test_preprocessed_batch_has_images_and_no_voxels(configs):
    batches = [pseudo_collate([dataset[0], dataset[4]]) for dataset in pair(configs, seq_len=2)]
    settings = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32)
    both, cameras = (ClipDataPreprocessor(**settings, voxel=voxel, voxel_layer=LAYER if voxel else None)(batch, training=True)
                     for batch, voxel in zip(batches, (True, False)))
    assert set(both['inputs']) - set(cameras['inputs']) == {'points', 'voxels'}
    assert set(cameras['inputs']) == {'imgs', 'calibration', 'clip_shape', 'frame_valid'}
    assert cameras['inputs']['frame_valid'] == [False, True, True, True] and cameras['inputs']['clip_shape'] == (2, 2)
    assert_equal(both['inputs']['imgs'], cameras['inputs']['imgs'])
    assert_equal(both['inputs']['calibration'].bev_aug, cameras['inputs']['calibration'].bev_aug)
    assert len(cameras['inputs']['imgs']) == 3 and len(cameras['data_samples']) == 4
    with pytest.raises(ValueError, match=r'voxel_layer.*no points.*use_lidar=True.*model.data_preprocessor.voxel=False'):
        ClipDataPreprocessor(**settings, voxel=True, voxel_layer=LAYER)(batches[1], training=True)


def test_streamed_by_a_data_loader(configs):
    settings = {**configs[1].val_dataloader, 'batch_size': 2, 'num_workers': 0, 'persistent_workers': False}
    loader = Runner.build_dataloader(copy.deepcopy(settings))
    seen = []
    for batch in loader:
        (step,) = batch
        assert set(step['inputs']) == {'cameras'}
        seen += [sample.sample_token for sample in step['data_samples']]
        if len(seen) == len(batch[0]['data_samples']):
            assert ClipDataPreprocessor()(batch)['inputs']['imgs'].shape[:3] == (len(seen), 6, 3)
    assert sorted(seen) == sorted(info['token'] for info in map(loader.dataset.get_data_info, range(len(loader.dataset))))


def test_a_frame_whose_images_are_broken_is_padding_without_points(configs):
    prefix = {**configs[1].val_dataloader.dataset.data_prefix, 'CAM_BACK': 'no_folder'}
    dataset = pair(configs, 'val', data_prefix=prefix, on_bad_frame='drop')[1]
    batch = pseudo_collate([dataset[0], dataset[1]])
    assert batch[0]['inputs'] == {'cameras': [None, None]} and dataset.num_dropped_frames == 2
    assert ClipDataPreprocessor()(batch)['inputs'] == dict(clip_shape=(2, 1), frame_valid=[False, False])


# -- who waits for points -----------------------------------------------------------------------------------------------
def test_packing_points_that_nobody_loaded_names_the_key():
    with pytest.raises(DataError, match="sample s0: PackClipFrame has 'points' in its keys.*use_lidar=True"):
        PackClipFrame(keys=('points', 'gt_labels_3d'))(dict(sample_token='s0'))


def test_a_run_without_lidar_is_checked(configs, repo):
    fusion = Config.fromfile(repo / 'configs/fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py')
    cfg = copy.deepcopy(configs[1])
    cfg.model = copy.deepcopy(fusion.model)
    with pytest.raises(UserError, match=r"train_dataloader.dataset.pipeline.\d+.keys=\['gt_bboxes_3d', 'gt_labels_3d'\] "
                                        r'has no points.*\(model.data_preprocessor.voxel, model.pts_voxel_encoder\)'):
        check_run(cfg, 'train')
    cfg.model.data_preprocessor.update(voxel=False, voxel_layer=None)
    with pytest.raises(UserError, match=r'test_dataloader.*keys=\[\] has no points.*\(model.pts_voxel_encoder\)'):
        check_run(cfg, 'test')
    for slot in ('pts_voxel_encoder', 'pts_middle_encoder'):
        cfg.model.pop(slot)
    assert [check_run(cfg, phase) for phase in ('train', 'val', 'test')] == [[], [], []]
    assert cfg.test_evaluator.modality == dict(use_lidar=False, use_camera=True)
