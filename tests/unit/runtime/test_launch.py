"""Configs, switches and processes are prepared, or refused with a reason."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from projects.memfusion.runtime import (
    UserError,
    apply_amp,
    apply_auto_scale_lr,
    apply_seed,
    apply_tta,
    apply_visualization,
    prepare_config,
    prepare_distributed,
    safe_load,
    set_work_dir,
)
from projects.memfusion.runtime.runner import check_frozen

CONFIG = """
model = dict(type='Toy', head=dict(type='Head', width=4, extra=None), layers=[dict(depth=1), dict(depth=2)])
train_cfg = dict(max_epochs=2, by_epoch=True)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
train_dataloader = dict(
    dataset=dict(type='SeededCBGSDataset', dataset=dict(type='SeededNuScenesDataset', ann_file='x')))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    return path


def test_options_are_merged(config):
    cfg = prepare_config(config, {'model.head.width': 8, 'model.layers.1.depth': 5, 'model.head.extra': 1})
    assert (cfg.model.head.width, cfg.model.layers[1].depth, cfg.model.head.extra) == (8, 5, 1)


@pytest.mark.parametrize(('option', 'message'), [
    ('modle.head.width', r'has no "modle"; did you mean "model"'),
    ('model.haed.width', r'has no "model.haed"; did you mean "model.head"'),
    ('model.layers.7.depth', r'is a list of 2: "7" is not an index'),
    ('train_cfg.max_epochs.x', r'"train_cfg.max_epochs" is 2, it has no parts'),
    ('model.head.extra.x', r'"model.head.extra" is None, it has no parts'),
])
def test_misspelled_parents_are_errors(config, option, message):
    with pytest.raises(UserError, match=message):
        prepare_config(config, {option: 1})


def test_new_last_parts_are_allowed_with_a_warning(config, capsys):
    assert prepare_config(config, {'train_cfg.max_epoch': 1}).train_cfg.max_epoch == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ['warning: --cfg-options train_cfg.max_epoch: is new to the config; did you mean '
                     '"train_cfg.max_epochs"?']
    prepare_config(config, {'model.head.dropout': 0.1})  # an argument of the head's type with a default
    assert capsys.readouterr().err == ''


def test_bad_config_files(tmp_path):
    with pytest.raises(UserError, match='none.py: there is no such config file'):
        prepare_config(tmp_path / 'none.py')
    (tmp_path / 'orphan.py').write_text("_base_ = './gone.py'\n")
    with pytest.raises(UserError, match=r'orphan\.py: .*missing.*gone\.py'):
        prepare_config(tmp_path / 'orphan.py')
    (tmp_path / 'wrong.py').write_text('model = dict(\n')
    with pytest.raises(UserError, match=r'wrong\.py: cannot be read as a config'):
        prepare_config(tmp_path / 'wrong.py')
    (tmp_path / 'absent.py').write_text("custom_imports = dict(imports=['no_such_module_at_all'])\n")
    with pytest.raises(UserError, match=r'absent\.py: cannot import.*no_such_module_at_all'):
        prepare_config(tmp_path / 'absent.py')


def test_amp_needs_cuda(config, monkeypatch):
    cfg = prepare_config(config)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    apply_amp(cfg, False)
    with pytest.raises(UserError, match='--amp: .*CUDA'):
        apply_amp(cfg, True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    apply_amp(cfg, True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match='optim_wrapper.type'):
        apply_amp(cfg, False)


def test_auto_scale_lr_needs_its_batch_size(config):
    cfg = prepare_config(config)
    apply_auto_scale_lr(cfg, False)
    with pytest.raises(UserError, match='--auto-scale-lr: .*base_batch_size'):
        apply_auto_scale_lr(cfg, True)
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=16)
    apply_auto_scale_lr(cfg, True)
    assert cfg.auto_scale_lr.enable


def test_seed_reaches_the_data_sets_that_take_one(config, monkeypatch):
    from projects.memfusion.runtime import init_registry
    init_registry()
    cfg = prepare_config(config)
    apply_seed(cfg, 7, False)
    assert cfg.randomness == dict(seed=7)
    assert cfg.train_dataloader.dataset.seed == 7 and cfg.train_dataloader.dataset.dataset.seed == 7
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    apply_seed(cfg, None, True)
    assert cfg.randomness == dict(seed=7, deterministic=True)
    assert os.environ.pop('CUBLAS_WORKSPACE_CONFIG') == ':4096:8'
    with pytest.raises(UserError, match='--seed -1'):
        apply_seed(cfg, -1, False)


def test_work_dir_priority(config):
    cfg = prepare_config(config)
    set_work_dir(cfg, config, None)
    assert cfg.work_dir == './work_dirs/toy'
    set_work_dir(cfg, config, None)
    assert cfg.work_dir == './work_dirs/toy'
    set_work_dir(cfg, config, 'elsewhere')
    assert cfg.work_dir == 'elsewhere'


def test_visualization_needs_a_hook():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='BEVVisualizationHook'))))
    apply_visualization(cfg, False, 'out', 0.3, None, 2)
    assert cfg.default_hooks.visualization == dict(
        type='BEVVisualizationHook', draw=True, score_thr=0.3, test_out_dir='out')
    cfg.default_hooks.visualization.type = 'Det3DVisualizationHook'
    with pytest.raises(UserError, match='--task'):
        apply_visualization(cfg, False, 'out', 0.3, None, 2)
    apply_visualization(cfg, False, 'out', 0.3, 'lidar_det', 2)
    assert cfg.default_hooks.visualization.vis_task == 'lidar_det'
    with pytest.raises(UserError, match='default_hooks.visualization'):
        apply_visualization(Config(dict(default_hooks=dict())), False, 'out', 0.3, None, 2)


def test_tta_is_refused_where_it_cannot_work():
    cfg = Config(dict(model=dict(type='A'), test_dataloader=dict(dataset=dict(pipeline=[1]))))
    with pytest.raises(UserError, match='tta_model and no tta_pipeline'):
        apply_tta(cfg)
    cfg.tta_model, cfg.tta_pipeline = dict(type='TTA'), [2]
    with_memory = Config(dict(cfg.to_dict(), model=dict(type='A', temporal=dict(type='M'))))
    with pytest.raises(UserError, match='model.temporal'):
        apply_tta(with_memory)
    apply_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == [2] and cfg.model == dict(type='TTA', module=dict(type='A'))


def test_missing_launcher_environment(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='--launcher pytorch: RANK, WORLD_SIZE.*dist_train.sh'):
        prepare_distributed(Config(), 'pytorch')
    with pytest.raises(UserError, match='--launcher slurm: SLURM_PROCID'):
        prepare_distributed(Config(), 'slurm')
    cfg = Config(dict(a=1))
    prepare_distributed(cfg, 'none')
    assert cfg.launcher == 'none' and 'model_wrapper_cfg' not in cfg


TOY = """
import sys, torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from projects.memfusion.runtime import build_runner, prepare_distributed
torch.cuda.is_available = lambda: False

@MODELS.register_module()
class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1, bias=False)
    def forward(self, inputs, mode='tensor'):
        return {'loss': self.linear(inputs).mean()}

@DATASETS.register_module()
class OneThree:
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return {'inputs': torch.tensor([1.0 + 2 * index])}

cfg = Config(dict(
    model=dict(type='Toy'), work_dir=sys.argv[1], log_level='WARNING',
    train_cfg=dict(by_epoch=True, max_epochs=1), optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
    randomness=dict(seed=0), model_wrapper_cfg=dict(type='MMDistributedDataParallel', find_unused_parameters=True),
    train_dataloader=dict(batch_size=1, num_workers=0, dataset=dict(type='OneThree'),
                          collate_fn=dict(type='default_collate'),
                          sampler=dict(type='DefaultSampler', shuffle=False))))
prepare_distributed(cfg, 'pytorch')
runner = build_runner(cfg)
before = runner.model.module.linear.weight.item()
runner.train()
moved = before - runner.model.module.linear.weight.item()
assert runner.world_size == 2 and runner.model.find_unused_parameters and runner.model.device_ids is None
assert abs(moved - 2.0) < 1e-6, moved  # the mean of both ranks' gradients, 1 and 3
print(f'rank {runner.rank} done\\n', end='', flush=True)  # one write: the other process prints to the same pipe
"""


@pytest.mark.skipif(not hasattr(torch.serialization, 'add_safe_globals'), reason='torch before 2.4')
def test_two_processes_on_the_cpu_share_gradients(repo, tmp_path):
    script = tmp_path / 'toy.py'
    script.write_text(TOY)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', script,
         tmp_path / 'work'], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(repo), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'rank 0 done' in done.stdout and 'rank 1 done' in done.stdout
    saved = safe_load(tmp_path / 'work' / 'epoch_1.pth')
    assert saved['meta']['epoch'] == 1
    assert not list((tmp_path / 'work').glob('*.unfinished'))


def test_frozen_parts_need_weights(repo):
    """A row of a study on its own: the study gives it its seed's detector, nobody gives it another seed's."""
    cfg = Config.fromfile(repo / 'configs/study/fusion_futrpp.py')
    assert cfg.load_from is None
    with pytest.raises(UserError, match=r'train_cfg.frozen=.*pts_voxel_encoder.* would keep random weights.*load_from=FILE'):
        check_frozen(cfg.model)
    cfg.model.train_cfg.frozen = ['img_backbone.layer1']
    cfg.model.img_backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    check_frozen(cfg.model)
    check_frozen(dict(train_cfg=dict(frozen=[])))
    check_frozen(dict(train_cfg=None))
    check_frozen(torch.nn.Linear(1, 1))
