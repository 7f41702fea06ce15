"""A query detector with LiDAR, cameras and memory on the nano world: two processes, resuming, pictures."""

import numpy as np
import pytest
import torch

from projects.memfusion.runtime import build_runner, prepare_config

from .conftest import largest_difference, load

STREAM = """
_base_ = ['{repo}/configs/query/streampetr_r18_pillar04_second_secfpn_tiny-synthetic.py']
model = dict(
    grid=dict(voxel_size=[0.8, 0.8, 8.0]), img_backbone=dict(base_channels=8), img_neck=dict(in_channels=[16, 32]))


def smaller(pipeline):
    sizes = dict(ResizeImages=dict(width=176), CropImages=dict(size=(96, 176)))
    return [dict(step, **sizes.get(step['type'], dict())) for step in pipeline]


alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, sampler=dict(shuffle=False), **alone, dataset=dict(
    data_root='{root}', pipeline=smaller(_base_.train_pipeline), seq_len=2, indices=4))
val_dataloader = dict(dataset=dict(data_root='{root}', pipeline=smaller(_base_.test_pipeline)), **alone)
test_dataloader = val_dataloader
del smaller
val_evaluator = dict(data_root='{root}', ann_file='{root}nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=10)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01))
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=1, by_epoch=False, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
custom_hooks = [dict(type='EpochSeedHook'), dict(type='FreezeBatchNormHook'), dict(type='RandomStateHook')]
"""
STILL = ['model.pts_bbox_head.transformer.dropout=0', 'model.pts_bbox_head.denoising.centre_noise=0.0',
         'model.pts_bbox_head.denoising.split=2.0']
"""Options without which each process would draw its own numbers."""


@pytest.fixture(scope='module')
def config(repo, nano_infos_root, tmp_path_factory):
    path = tmp_path_factory.mktemp('query') / 'streampetr_nano.py'
    path.write_text(STREAM.format(repo=repo, root=f'{nano_infos_root}/'))
    return path


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
    """Two steps with two clips each, random numbers and all, in this process."""
    return train(config, tmp_path_factory.mktemp('whole'))


def train(config, folder, **options):
    cfg = prepare_config(config, {**options, 'experiment_name': f'query_{folder.name}', 'val_cfg': None, 'val_dataloader': None,
                                  'val_evaluator': None})
    cfg.work_dir = str(folder)
    build_runner(cfg).train()
    return folder


def test_resumed_equals_uninterrupted(config, trained, tmp_path):
    resumed = train(config, tmp_path, resume=True, load_from=str(trained / 'iter_1.pth'))
    assert largest_difference(load(resumed / 'iter_2.pth'), load(trained / 'iter_2.pth')) == 0
    assert largest_difference(load(trained / 'iter_1.pth'), load(trained / 'iter_2.pth')) > 1e-4


@pytest.mark.slow
def test_two_processes_with_one_clip_equal_one_process_with_two(distributed, config, trained, tmp_path):
    still = dict(option.split('=') for option in STILL)
    start = str(trained / 'iter_2.pth')
    one = train(config, tmp_path / 'one', load_from=start, **{key: float(value) for key, value in still.items()})
    distributed('dist_train.sh', config, 2, '--work-dir', tmp_path / 'two', '--cfg-options', f'load_from={start}',
                'train_dataloader.batch_size=1', *STILL)
    before, one, two = (load(path) for path in (start, one / 'iter_2.pth', tmp_path / 'two/iter_2.pth'))
    assert largest_difference(one, two) < 1e-5
    assert largest_difference(before, one) > 1e-3
    assert all(torch.isfinite(value).all() for value in one.values())
    still = [name for name in before if name.endswith('weight') and torch.equal(before[name], one[name])]
    assert len(still) < 10, still


def test_pictures_of_a_test_run(run, config, trained, tmp_path):
    import cv2
    run('tools/test.py', config, trained / 'iter_2.pth', '--work-dir', tmp_path, '--show-dir', tmp_path / 'shown',
        '--cfg-options', 'default_hooks.visualization.max_samples=1')
    pictures = sorted((tmp_path / 'shown').glob('*.png'))
    assert {'bev', 'cameras'} <= {path.stem.rsplit('_', 1)[1] for path in pictures}
    assert all(np.std(cv2.imread(str(path))) > 5 for path in pictures)
