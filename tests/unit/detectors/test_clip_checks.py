"""What a clip may not be, whatever made it; tiles that lie inside an item; learning rates of the second phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS


def training(model, collated, clips):
    model.train()
    return model(**collated(model, clips, True), mode='loss')


def test_a_clip_of_two_scenes(small_detector, collated, predicted, make_frame):
    clip = [make_frame('a', 1), make_frame('b', 2)]
    with pytest.raises(ValueError, match='crosses scenes.*a-1.*b-2'):
        training(small_detector(), collated, [clip])
    with pytest.raises(ValueError, match='crosses scenes'):
        predicted(small_detector(), [[make_frame('a', 0), make_frame('b', 1)]])


def test_a_clip_backwards_in_time(small_detector, collated, predicted, make_frame):
    with pytest.raises(ValueError, match='not in time order.*a-2.*a-1'):
        training(small_detector(), collated, [[make_frame('a', 2), make_frame('a', 1)]])
    with pytest.raises(ValueError, match='not in time order'):
        predicted(small_detector(), [[make_frame('a', 1), make_frame('a', 0)]])


def test_a_scene_twice_in_a_batch(small_detector, predicted, make_frame):
    with pytest.raises(ValueError, match='scene a is in the batch twice'):
        predicted(small_detector(), [[make_frame('a', 0)], [make_frame('a', 0)]])


@pytest.mark.parametrize('spoil', [lambda pose: pose * 1.1, lambda pose: pose * np.nan])
def test_a_pose_that_is_not_rigid(small_detector, predicted, make_frame, spoil):
    frame = make_frame('a', 0)
    pose = frame['data_samples'].metainfo['global_from_lidar'].copy()
    pose[:3, :3] = spoil(pose[:3, :3])
    frame['data_samples'].set_metainfo(dict(global_from_lidar=pose))
    with pytest.raises(ValueError, match='a-0.*not a rigid transform'):
        predicted(small_detector(), [[frame]])


def test_tiles_end_inside_an_item_too(small_detector, predicted, make_frame):
    model = small_detector(test_cfg=dict(mode='window', seq_len=3, stride=3))
    frames = [make_frame('a', i) for i in range(8)]
    for start in (0, 2, 4, 6):  # items of two frames, as clips of sweeps are; tiles are 0-2, 3-5, 6-7
        last, _ = predicted(model, [frames[start:start + 2]])
    fresh = small_detector(test_cfg=dict(mode='streaming'))
    data = frames[6:]
    data[0]['data_samples'].set_metainfo(dict(is_scene_start=True))
    expected, _ = predicted(fresh, [data])
    torch.testing.assert_close(last, expected, atol=1e-6, rtol=1e-6)


PHASE_TWO = ['configs/temporal/xmem-gate_pillar02_second_secfpn_8xb4-phase2-10e_nus-3d.py',
             'configs/temporal/xmem-gate_pillar04_tiny-phase2_synthetic.py']


@pytest.mark.parametrize('path', PHASE_TWO)
def test_the_detector_learns_ten_times_slower_throughout(repo, path):
    cfg = Config.fromfile(repo / path)
    model = torch.nn.ModuleDict(dict(pts_backbone=torch.nn.Linear(2, 2), temporal=torch.nn.Linear(2, 2)))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    schedules = [PARAM_SCHEDULERS.get(one.pop('type')).build_iter_from_epoch(
        optimizer=optimizer, epoch_length=5, **{k: v for k, v in one.items() if k != 'convert_to_iter_based'})
        for one in cfg.param_scheduler]
    seen = []
    for _ in range(5 * cfg.train_cfg.max_epochs - 1):
        rates = {names[id(group['params'][0])].split('.')[0]: group['lr'] for group in optimizer.param_groups}
        assert rates['pts_backbone'] == pytest.approx(0.1 * rates['temporal'])
        seen.append(rates['temporal'])
        optimizer.step()
        for schedule in schedules:
            schedule.step()
    peak = cfg.optim_wrapper.optimizer.lr
    assert seen[0] == pytest.approx(0.1 * peak) and max(seen) == pytest.approx(peak) and seen[-1] < 0.2 * peak
