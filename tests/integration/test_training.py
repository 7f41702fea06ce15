"""The tools on the nano world: training, resuming, two processes, scoring. Exact where exactness can be had."""

import json
from pathlib import Path

import mmdet3d
import numpy as np
import pytest
import torch

from projects.memfusion.runtime import build_runner, prepare_config

from .conftest import largest_difference, load


@pytest.fixture(scope='module')
def trained(run, nano_config, tmp_path_factory):
    """Two epochs without interruption."""
    out = tmp_path_factory.mktemp('trained')
    run('tools/train.py', nano_config, '--work-dir', out)
    return out


def test_resumed_equals_uninterrupted(run, nano_config, trained, tmp_path):
    run('tools/train.py', nano_config, '--work-dir', tmp_path, '--resume', trained / 'epoch_1.pth')
    assert largest_difference(load(tmp_path / 'epoch_2.pth'), load(trained / 'epoch_2.pth')) == 0
    # Otherwise equality would mean nothing: the second epoch did train.
    assert largest_difference(load(trained / 'epoch_1.pth'), load(trained / 'epoch_2.pth')) > 1e-4


def test_resumed_inside_an_epoch_equals_uninterrupted(nano_config, tmp_path):
    """10 steps, two epochs; from iter_8.pth on again, with two workers, augmentation and a cycle of learning rates."""
    options = {'train_dataloader.batch_size': 1, 'train_dataloader.dataset.indices': 5, 'val_cfg': None,
               'val_dataloader': None, 'val_evaluator': None, 'default_hooks.checkpoint.by_epoch': False,
               'default_hooks.checkpoint.interval': 8}
    for name, start in (('whole', {}), ('resumed', dict(resume=True, load_from=str(tmp_path / 'whole/iter_8.pth')))):
        cfg = prepare_config(nano_config, {**options, **start, 'experiment_name': f'inside_an_epoch_{name}'})
        cfg.work_dir = str(tmp_path / name)
        build_runner(cfg).train()
    whole, resumed = (torch.load(tmp_path / name / 'iter_10.pth', weights_only=False) for name in ('whole', 'resumed'))
    assert largest_difference(whole['state_dict'], resumed['state_dict']) == 0
    assert largest_difference(load(tmp_path / 'whole/iter_8.pth'), whole['state_dict']) > 1e-6
    rates = [run['message_hub']['log_scalars']['train/lr'].data[0].tolist() for run in (whole, resumed)]
    assert rates[0] == rates[1] and len(rates[0]) == 10
    assert sorted(path.name for path in (tmp_path / 'resumed').glob('*.pth')) == ['iter_10.pth']


def one_step(config, folder, batch_size):
    """A config for a single SGD step on clips 0 (a scene's start, so half padding) and 1, BatchNorm frozen."""
    path = folder / f'one_step_{batch_size}.py'
    path.write_text(f"""
_base_ = ['{config}']
train_dataloader = dict(batch_size={batch_size}, sampler=dict(shuffle=False), dataset=dict(indices=2))
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01))
param_scheduler = []
custom_hooks = [dict(type='EpochSeedHook'), dict(type='FreezeBatchNormHook')]
""")
    return path


def test_two_processes_with_one_clip_equal_one_process_with_two(run, distributed, nano_config, trained, tmp_path):
    start = f'load_from={trained / "epoch_1.pth"}'
    run('tools/train.py', one_step(nano_config, tmp_path, 2), '--work-dir', tmp_path / 'one', '--cfg-options', start)
    distributed('dist_train.sh', one_step(nano_config, tmp_path, 1), 2, '--work-dir', tmp_path / 'two', '--cfg-options', start)
    before, one, two = (load(p) for p in (trained / 'epoch_1.pth', tmp_path / 'one/epoch_1.pth', tmp_path / 'two/epoch_1.pth'))
    assert largest_difference(one, two) < 1e-5
    assert largest_difference(before, one) > 1e-3
    assert all(not torch.equal(before[name], two[name]) for name in before if name.startswith('temporal.') and 'weight' in name)


def submission(folder):
    path, = folder.rglob('results_nusc.json')
    return path


def test_two_processes_score_as_one_to_the_last_digit(run, distributed, nano_config, trained, tmp_path):
    checkpoint = trained / 'epoch_2.pth'
    # One slot for both scenes, and one slot for each: neither the batch nor the process may matter.
    for name, call in (
        ('one', lambda *a: run('tools/test.py', nano_config, checkpoint, *a)),
        ('two', lambda *a: distributed('dist_test.sh', nano_config, checkpoint, 2, *a)),
    ):
        out = tmp_path / name
        call('--work-dir', out, '--cfg-options', f'test_evaluator.jsonfile_prefix={out}',
             'model.test_cfg.pts.score_threshold=0.0', 'model.pts_bbox_head.bbox_coder.score_threshold=0.01')
    one, two = (json.loads(submission(tmp_path / name).read_text()) for name in ('one', 'two'))
    assert sum(map(len, one['results'].values())) > 0
    assert one['results'] == two['results']
    metrics = [json.loads((submission(tmp_path / name).parent / 'metrics_summary.json').read_text()) for name in ('one', 'two')]
    for summary in metrics:
        summary.pop('eval_time')
    assert json.dumps(metrics[0]) == json.dumps(metrics[1])


def test_submission_is_one_the_devkit_accepts(run, nano_config, nano_infos_root, trained, tmp_path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox
    run('tools/test.py', nano_config, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--cfg-options',
        'test_evaluator.format_only=True', f'test_evaluator.jsonfile_prefix={tmp_path}')
    boxes, meta = load_prediction(str(submission(tmp_path)), 500, DetectionBox)
    assert len(boxes.sample_tokens) == 10 and meta['use_lidar'] and not meta['use_camera']


def test_pictures_of_a_test_run(run, nano_config, trained, tmp_path):
    import cv2
    run('tools/test.py', nano_config, trained / 'epoch_2.pth', '--work-dir', tmp_path, '--show-dir', tmp_path / 'shown',
        '--score-thr', 0.05, '--cfg-options', 'default_hooks.visualization.max_samples=1')
    pictures = sorted((tmp_path / 'shown').glob('*.png'))
    assert [p.stem.rsplit('_', 1)[1] for p in pictures] == ['bev', 'cameras', 'gate']
    for path in pictures:
        assert np.std(cv2.imread(str(path))) > 5


def scores(file):
    """The last line of scores in a log."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {key: value for key, value in lines[-1].items() if key.startswith('NuScenes metric/')}


@pytest.mark.slow
def test_mmdet3ds_own_tools_do_the_same(run, nano_config, trained, tmp_path):
    tools = Path(mmdet3d.__file__).parent / '.mim' / 'tools'
    run(tools / 'train.py', nano_config, '--work-dir', tmp_path / 'train')
    run(tools / 'train.py', nano_config, '--work-dir', tmp_path / 'resume', '--resume', trained / 'epoch_1.pth')
    for name in ('train', 'resume'):
        assert largest_difference(load(tmp_path / name / 'epoch_2.pth'), load(trained / 'epoch_2.pth')) == 0
    run(tools / 'test.py', nano_config, trained / 'epoch_2.pth', '--work-dir', tmp_path / 'test',
        '--show-dir', tmp_path / 'shown', '--task', 'lidar_det', '--cfg-options', 'default_hooks.visualization.max_samples=1')
    validated, = trained.glob('*/vis_data/scalars.json')  # the last epoch is validated, on the same frames
    tested, = (path for path in tmp_path.glob('test/*/*.json'))
    assert len(scores(tested)) > 50
    np.testing.assert_equal(scores(tested), scores(validated))
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 3
