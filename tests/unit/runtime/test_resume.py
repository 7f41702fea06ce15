"""Resuming inside an epoch: the run goes on with the next batch and ends as the uninterrupted one, or it is refused."""

import itertools
import multiprocessing
import os
import random
import shutil
import socket

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from torch import nn
from torch.utils.data import BatchSampler, Dataset, RandomSampler

import projects.memfusion.hooks  # noqa: F401 (registers)
from projects.memfusion.runtime import UserError, build_runner, safe_load
from projects.memfusion.runtime.resume import POSITION_KEY, EpochBatches

pytestmark = pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'), reason='torch before 2.4 cannot load a run\'s log safely')
RUNS = itertools.count()
EPOCHS, PER_EPOCH = 3, 5


class Items(Dataset):
    """Items that are drawn from numpy's and torch's global generators in this process, and note who read them."""

    metainfo = dict(classes=('thing',))

    def __init__(self, size=10):
        self.size, self.read = size, []

    def __deepcopy__(self, memo):  # the builder of data loaders copies its config
        return self

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.read.append(index)
        return {'inputs': torch.tensor([float(index), np.random.rand(), torch.rand(1).item()])}


class Noisy(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, inputs, mode='tensor'):
        out = nn.functional.dropout(self.norm(self.linear(inputs)), 0.5, training=True)
        return {'loss': (out - random.random()).square().mean()} if mode == 'loss' else [out]


class Draws(BaseMetric):
    """Validation that draws numbers, and notes when it ran."""

    epochs = []

    def process(self, data_batch, data_samples):
        self.results.append(random.random() + np.random.rand() + torch.rand(1).item())

    def compute_metrics(self, results):
        self.epochs.append(len(results))
        return {'zero': 0.0}


@DATA_SAMPLERS.register_module()
class ThreeThenTwo(BatchSampler):
    """A batch sampler of one's own: sizes 3, 2, 3, 2."""

    def __init__(self, sampler, batch_size):
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self):
        indices, size = list(self.sampler), 3
        while indices:
            yield indices[:size]
            indices, size = indices[size:], 5 - size

    def __len__(self):
        return 4


@DATA_SAMPLERS.register_module()
class Unrepeatable(RandomSampler):
    def __init__(self, dataset, seed):
        super().__init__(dataset)


def train(work_dir, *, data=None, loader=None, loop=None, every=1, optim=None, hook=None, **extra):
    """A run of 3 x 5 batches that saves after every step -> its runner."""
    data = data or Items()
    base = dict(batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'))
    cfg = Config(dict(
        work_dir=str(work_dir), experiment_name=f'test_resume_{next(RUNS)}', log_level='ERROR',
        train_cfg=loop or dict(type='EpochBasedTrainLoop', max_epochs=EPOCHS, val_interval=1), val_cfg=dict(),
        default_hooks=dict(checkpoint={'type': 'CheckpointHook', 'interval': every, 'by_epoch': False, **(hook or {})},
                           logger=dict(type='LoggerHook', interval=1)),
        param_scheduler=[dict(type='OneCycleLR', eta_max=0.1, by_epoch=True, convert_to_iter_based=True, total_steps=EPOCHS)]
        if loop is None else [],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9), **(optim or {})),
        custom_hooks=[dict(type='mmdet3d.RandomStateHook')], **{'randomness': dict(seed=1), **extra}))
    sampler = dict(type='DefaultSampler', shuffle=True)
    cfg._cfg_dict.update(
        model=Noisy(), val_evaluator=Evaluator([Draws()]),
        train_dataloader={**base, 'sampler': sampler, 'dataset': data, **(loader or {})},
        val_dataloader=dict(base, sampler=dict(sampler, shuffle=False), dataset=Items(4)))
    runner = build_runner(cfg)
    runner.train()
    return runner


@pytest.fixture(autouse=True)
def plain_config_text(monkeypatch):
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))  # objects in the config have no text


def saved(work_dir, step):
    return safe_load(work_dir / f'iter_{step}.pth')


def same(a, b):
    """Whether two nested states hold the same numbers; paths and times differ between runs."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def logged(checkpoint):
    scalars = checkpoint['message_hub']['log_scalars']
    return {name: scalars[name]._log_history.tolist() for name in ('train/loss', 'train/lr')}


def assert_ends_alike(whole, resumed, step=EPOCHS * PER_EPOCH):
    a, b = saved(whole, step), saved(resumed, step)
    for key in ('state_dict', 'optimizer', 'param_schedulers', 'memfusion_random_state'):
        assert same(a[key], b[key]), key
    assert logged(a) == logged(b)
    for key in ('epoch', 'iter', POSITION_KEY):
        assert a['meta'][key] == b['meta'][key], key


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The uninterrupted run's folder and what it read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda self: 'a = 1'))
        folder, data = tmp_path_factory.mktemp('whole'), Items()
        train(folder, data=data)
    assert len(data.read) == 30 and saved(folder, 8)['meta'][POSITION_KEY]['batches_done'] == 3
    assert not same(saved(folder, 14)['state_dict'], saved(folder, 15)['state_dict'])
    return folder, data.read


@pytest.mark.parametrize('step', [1, 4, 5, 6, 8, 10, 14, 15])
def test_a_resumed_run_ends_as_the_uninterrupted(tmp_path, whole, step):
    folder, read = whole
    data, Draws.epochs[:] = Items(), []
    shutil.copy(folder / 'iter_15.pth', tmp_path)  # is written anew where a step is left
    train(tmp_path, data=data, resume=True, load_from=str(folder / f'iter_{step}.pth'))
    assert data.read == read[2 * step:]  # nothing is read again, nothing is read to be thrown away
    assert len(Draws.epochs) == EPOCHS - (step - 1) // PER_EPOCH  # an epoch that was saved at its end is still validated
    assert_ends_alike(folder, tmp_path)
    assert not (tmp_path / 'iter_16.pth').exists()


def test_resumed_twice(tmp_path, whole):
    folder, read = whole
    train(tmp_path / 'a', resume=True, load_from=str(folder / 'iter_7.pth'))
    data = Items()
    train(tmp_path / 'b', data=data, resume=True, load_from=str(tmp_path / 'a/iter_8.pth'))
    assert data.read == read[16:]
    assert_ends_alike(folder, tmp_path / 'b')


@pytest.mark.parametrize('change, told', [
    (dict(loader=dict(batch_size=5)), 'train_dataloader.batch_size=2, 1 process, 10 items, 5 batches per epoch; this run has '
     'train_dataloader.batch_size=5, 1 process, 10 items, 2 batches per epoch'),
    (dict(data=Items(12)), '1 process, 10 items, 5 batches per epoch; this run has .* 12 items, 6 batches per epoch'),
    (dict(data=Items(9)), '10 items, 5 batches per epoch; this run has .* 9 items, 5 batches per epoch'),
    (dict(randomness=dict(seed=2)), 'inside an epoch by a run with seed 1; this run has seed 2.* add --seed 1'),
    (dict(loader=dict(sampler=dict(type='DefaultSampler', shuffle=False))), 'first 3 batches of epoch 2 are others'),
    (dict(loop=dict(by_epoch=False, max_iters=15)), 'after 3 of 5 batches of epoch 2, which train_cfg.type IterBasedTrainLoop'),
])
def test_another_cut_of_the_data_is_refused(tmp_path, whole, change, told):
    start = str(whole[0] / 'iter_8.pth')
    with pytest.raises(UserError, match=told):
        train(tmp_path, resume=True, load_from=start, **change)
    assert not list(tmp_path.glob('*.pth'))


def test_another_number_of_processes_is_refused(tmp_path, whole, monkeypatch):
    monkeypatch.setattr('projects.memfusion.runtime.resume.get_world_size', lambda: 2)
    with pytest.raises(UserError, match=r'iter_8.pth.*size=2, 1 process, .*; this run has .*size=2, 2 processes, 10 items'):
        train(tmp_path, resume=True, load_from=str(whole[0] / 'iter_8.pth'))


def test_between_epochs_the_batch_size_may_change(tmp_path, whole):
    """Whether the epoch was counted (epoch_2.pth) or its last step (iter_10.pth); then inside an epoch of the new length."""
    train(tmp_path / 'a', resume=True, load_from=str(whole[0] / 'iter_10.pth'), loader=dict(batch_size=5), loop=dict(
        by_epoch=True, max_epochs=4))
    assert [saved(tmp_path / 'a', step)['meta'][POSITION_KEY]['batches_done'] for step in (11, 12, 13, 14)] == [1, 2, 1, 2]
    data = Items()
    train(tmp_path / 'b', data=data, resume=True, load_from=str(tmp_path / 'a/iter_13.pth'), loader=dict(batch_size=5),
          loop=dict(by_epoch=True, max_epochs=4))
    assert len(data.read) == 5
    assert same(saved(tmp_path / 'a', 14)['state_dict'], saved(tmp_path / 'b', 14)['state_dict'])


# -- checkpoints that do not say where they stand ---------------------------------------------------------------------
def older(source, target, info=(), drop=(), **meta):
    """A copy of a checkpoint as MMEngine alone writes it, with changes in its meta and in its run's notes."""
    checkpoint = torch.load(source, weights_only=False)
    del checkpoint['meta'][POSITION_KEY]
    checkpoint['meta'].update(meta)
    notes = checkpoint['message_hub']['runtime_info']
    notes.update(info)
    for key in drop:
        del notes[key]
    torch.save(checkpoint, target)
    return str(target)


@pytest.mark.parametrize('drop', [(), ('epoch', 'max_epochs', 'max_iters')])
def test_older_checkpoints_go_on_where_their_step_says(tmp_path, whole, drop):
    folder, read = whole
    data = Items()
    train(tmp_path, data=data, resume=True, load_from=older(folder / 'iter_8.pth', tmp_path / 'old.pth', drop=drop))
    assert data.read == read[16:]
    assert_ends_alike(folder, tmp_path)


def test_older_checkpoints_that_contradict_themselves_are_refused(tmp_path, whole):
    source, target = whole[0] / 'iter_8.pth', tmp_path / 'old.pth'
    with pytest.raises(UserError, match=r'old.pth: says epoch 2 and step 8, which does not fit 5 batches per epoch'):
        train(tmp_path, resume=True, load_from=older(source, target, info=dict(epoch=2), epoch=2))
    told = r'old.pth: was saved after 3 of 5 batches of epoch 2 with 5 batches per epoch; this run has .* 2 batches per epoch'
    with pytest.raises(UserError, match=told):
        train(tmp_path, resume=True, load_from=older(source, target), loader=dict(batch_size=5))


def test_older_checkpoints_between_epochs_may_change_the_batch_size(tmp_path, whole):
    start = older(whole[0] / 'iter_5.pth', tmp_path / 'epoch_1.pth', epoch=1)  # as a hook that counts epochs writes it
    data = Items()
    train(tmp_path, data=data, resume=True, load_from=start, loader=dict(batch_size=5), loop=dict(by_epoch=True, max_epochs=2))
    assert len(data.read) == 10


# -- other loaders, loops and optimizers ------------------------------------------------------------------------------
WORKERS = dict(num_workers=1, persistent_workers=True)


class Still(Items):
    """Items without draws, so that workers may read them in any order."""

    def __getitem__(self, index):
        return {'inputs': torch.tensor([float(index), index % 3 - 0.5, 0.25 * (index % 2)])}


@pytest.mark.parametrize('loader', [WORKERS, dict(batch_sampler=dict(type='ThreeThenTwo')), dict(batch_size=4),
                                    dict(batch_size=3, drop_last=True)], ids=['worker', 'own batches', 'rest', 'drop last'])
def test_loaders_of_other_kinds(tmp_path, loader):
    loop = dict(by_epoch=True, max_epochs=3, val_interval=5)
    settings = dict(data=Still(), loader=loader, loop=loop, every=4, hook=dict(save_last=True))
    end = train(tmp_path / 'whole', **settings).max_iters
    train(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'whole/iter_4.pth'), **settings)
    assert_ends_alike(tmp_path / 'whole', tmp_path / 'resumed', end)


def test_an_order_that_cannot_be_repeated_is_refused(tmp_path):
    loader = dict(sampler=dict(type='Unrepeatable'))
    train(tmp_path, loader=loader, loop=dict(by_epoch=True, max_epochs=1, val_interval=5))
    with pytest.raises(UserError, match='the sampler draws a new order each time'):
        train(tmp_path, loader=loader, loop=dict(by_epoch=True, max_epochs=1, val_interval=5), resume=True,
              load_from=str(tmp_path / 'iter_3.pth'))


def test_a_loop_that_counts_steps(tmp_path):
    loader = dict(sampler=dict(type='InfiniteSampler'))
    settings = dict(loop=dict(by_epoch=False, max_iters=12, val_interval=20), loader=loader)
    train(tmp_path / 'whole', data=Still(), **settings)
    start = dict(resume=True, load_from=str(tmp_path / 'whole/iter_7.pth'))
    train(tmp_path / 'resumed', data=Still(), **settings, **start)
    assert_ends_alike(tmp_path / 'whole', tmp_path / 'resumed', 12)
    with pytest.raises(UserError, match=r'after 7 steps of a loop that counts steps with .*size=2.*this run has .*size=5'):
        train(tmp_path, data=Still(), **{**settings, 'loader': dict(loader, batch_size=5)}, **start)
    with pytest.raises(UserError, match='seed 1; this run has seed 3'):
        train(tmp_path, data=Still(), **settings, **start, randomness=dict(seed=3))
    with pytest.raises(UserError, match='a loop that counts steps, which train_cfg.type ResumableTrainLoop cannot go on from'):
        train(tmp_path, data=Still(), loop=dict(by_epoch=True, max_epochs=3), **start)


def test_gradients_that_wait_are_not_lost_in_silence(tmp_path):
    settings = dict(optim=dict(accumulative_counts=2))
    train(tmp_path / 'whole', **settings)
    with pytest.raises(UserError, match=r'iter_7.pth: 1 steps were done since .*accumulative_counts.* divided by 2'):
        train(tmp_path, resume=True, load_from=str(tmp_path / 'whole/iter_7.pth'), **settings)
    train(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'whole/iter_8.pth'), **settings)
    assert_ends_alike(tmp_path / 'whole', tmp_path / 'resumed')


def test_a_checkpoint_without_the_optimizer_cannot_be_resumed(tmp_path):
    train(tmp_path, hook=dict(save_optimizer=False))
    with pytest.raises(UserError, match=r'iter_8.pth: has weights but not the state of a training run, .*no optimizer'):
        train(tmp_path, resume=True, load_from=str(tmp_path / 'iter_8.pth'))


def one_of_two(rank, port, folder):
    """Whole run, then from step 8 on again: both processes of both, in one group."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo')
    settings = dict(launcher='pytorch', every=8, hook=dict(save_last=True),
                    loop=dict(by_epoch=True, max_epochs=2, val_interval=5),
                    model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False))
    train(folder / 'whole', data=Items(20), **settings)
    data = Items(20)
    train(folder / 'resumed', data=data, resume=True, load_from=str(folder / 'whole/iter_8.pth'), **settings)
    (folder / f'read_{rank}.txt').write_text(str(len(data.read)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # gloo's threads, alive when the process ends, may abort it


def test_two_processes(tmp_path):
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        port = str(server.getsockname()[1])
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=one_of_two, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert_ends_alike(tmp_path / 'whole', tmp_path / 'resumed', 10)
    assert [(tmp_path / f'read_{rank}.txt').read_text() for rank in range(2)] == ['4', '4']  # 2 steps of 2
    assert saved(tmp_path / 'whole', 8)['meta'][POSITION_KEY]['num_processes'] == 2


def test_batches_know_their_order():
    sampler = DefaultSampler(Items(7), shuffle=True, seed=3)
    batches = EpochBatches(BatchSampler(sampler, 2, drop_last=False))
    whole = list(batches)
    orders = [batches.order(count) for count in range(5)]
    assert len(batches) == 4 and orders[0] == 0 and len(set(orders)) == 5 and batches.order(5) is None
    assert batches.leave_out(3) == orders[3]
    assert list(batches) == whole[3:] and batches.order(4) == orders[4]
    assert list(batches) == whole  # the next epoch is a whole one
    sampler.set_epoch(1)
    assert batches.leave_out(3) != orders[3] and batches.leave_out(5) is None
