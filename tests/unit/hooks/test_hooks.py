"""Hooks: epochs reach data sets, streaming memory is emptied, random numbers go on after a resume."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel, MMDistributedDataParallel
from torch import nn
from torch.utils.data import Dataset

from projects.common.random_state import random_state, set_random_state
from projects.memfusion.hooks import EpochSeedHook, RandomStateHook, SessionResetHook
from projects.memfusion.runtime import UserError, build_runner, safe_load

needs_allow_list = pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'), reason='torch before 2.4 cannot load a run\'s log safely')


# -- EpochSeedHook --------------------------------------------------------------------------------------------------
class Counting:
    def __init__(self, dataset=None):
        self.epoch = None
        if dataset is not None:
            self.dataset = dataset

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_epoch_reaches_every_wrapped_data_set():
    inner, other = Counting(), Counting()
    outer = SimpleNamespace(dataset=Counting(SimpleNamespace(datasets=[inner, SimpleNamespace(dataset=other)])))
    runner = SimpleNamespace(epoch=3, train_dataloader=SimpleNamespace(dataset=outer))
    EpochSeedHook().before_train_epoch(runner)
    assert (outer.dataset.epoch, inner.epoch, other.epoch) == (3, 3, 3)


# -- SessionResetHook -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('event', ['before_val_epoch', 'after_val_epoch', 'before_test_epoch', 'after_test_epoch'])
def test_session_is_emptied_through_a_wrapper(event):
    model = nn.Linear(1, 1)
    model.session = {'scene': 'memory'}
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    session = model.session
    getattr(SessionResetHook(), event)(SimpleNamespace(model=wrapper))
    assert session == {} and model.session is session


def test_models_without_a_session_are_left_alone():
    SessionResetHook().before_val_epoch(SimpleNamespace(model=nn.Linear(1, 1)))


# -- RandomStateHook ------------------------------------------------------------------------------------------------
def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item(), random.gauss(0, 1)


def test_all_generators_go_on_where_they_were(tmp_path):
    draw()
    torch.save(dict(state=random_state()), tmp_path / 'state.pth')
    expected = draw(), draw()
    draw()
    set_random_state(safe_load(tmp_path / 'state.pth')['state'])
    assert (draw(), draw()) == expected


RUNS = itertools.count()


class Items(Dataset):
    """Careless items are drawn from numpy's global generator, in this process; the others are not drawn."""

    def __init__(self, size, careless):
        self.size, self.careless = size, careless

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {'inputs': torch.tensor([float(index), np.random.rand() if self.careless else 0.5])}


class Noisy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 4)

    def forward(self, inputs, mode='tensor'):
        out = nn.functional.dropout(self.linear(inputs), 0.5, training=True)
        return {'loss': (out - random.random()).square().mean()} if mode == 'loss' else [out]


class Zero(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'zero': 0.0}


def train(work_dir, epochs, by_epoch=True, hook=True, **extra):
    # A loop that counts steps skips through its data after a resume, which would draw.
    loader = dict(batch_size=2, num_workers=0, dataset=Items(6 if by_epoch else 24, careless=by_epoch),
                  collate_fn=dict(type='default_collate'))
    train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1) if by_epoch else dict(
        by_epoch=False, max_iters=3 * epochs, val_interval=3)
    checkpoint = dict(type='CheckpointHook', interval=1 if by_epoch else 3, by_epoch=by_epoch)
    cfg = Config(dict(
        work_dir=str(work_dir), experiment_name=f'test_hooks_{next(RUNS)}', log_level='ERROR',
        train_cfg=train_cfg, val_cfg=dict(), randomness=dict(seed=1), default_hooks=dict(checkpoint=checkpoint),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        custom_hooks=[dict(type='mmdet3d.RandomStateHook')] if hook else [], **extra))
    torch.manual_seed(0)  # of the weights
    cfg._cfg_dict.update(
        model=Noisy(), val_evaluator=Evaluator([Zero()]),
        train_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=True)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)))
    runner = build_runner(cfg)
    return runner.train().linear.weight.detach().clone()


@needs_allow_list
@pytest.mark.parametrize('by_epoch', [True, False])
def test_resumed_training_equals_uninterrupted(tmp_path, monkeypatch, by_epoch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))  # objects in the config have no text
    whole = train(tmp_path / 'whole', 3, by_epoch)
    first = train(tmp_path / 'parts', 2, by_epoch)
    assert not torch.equal(first, whole)
    resumed = train(tmp_path / 'parts', 3, by_epoch, resume=True)
    assert (whole - resumed).abs().max() == 0


@needs_allow_list
def test_without_the_hook_they_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))
    whole = train(tmp_path / 'whole', 3, hook=False)
    train(tmp_path / 'parts', 2, hook=False)
    assert (whole - train(tmp_path / 'parts', 3, hook=False, resume=True)).abs().max() > 0


@needs_allow_list
def test_load_from_does_not_bring_random_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))
    train(tmp_path / 'first', 1)
    saved = safe_load(tmp_path / 'first' / 'epoch_1.pth')
    assert len(saved['memfusion_random_state']) == 1
    hook = RandomStateHook()
    before = torch.get_rng_state()
    runner = SimpleNamespace(_resume=False)
    hook.after_load_checkpoint(runner, saved)
    hook.before_train_epoch(runner)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_number_of_processes_is_told():
    told = []
    runner = SimpleNamespace(_resume=True, logger=SimpleNamespace(warning=told.append))
    hook = RandomStateHook()
    hook.after_load_checkpoint(runner, {'memfusion_random_state': [random_state(), random_state()]})
    hook.after_load_checkpoint(runner, {})
    assert 'of 2 processes and this run has 1' in told[0] and 'no random states' in told[1]
    hook.before_train_epoch(runner)


def test_weights_alone_cannot_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))
    torch.save(dict(state_dict=Noisy().state_dict()), tmp_path / 'weights.pth')
    with pytest.raises(UserError, match=r'weights\.pth: has weights but not the state of a training run'):
        train(tmp_path / 'work', 1, resume=True, load_from=str(tmp_path / 'weights.pth'))
