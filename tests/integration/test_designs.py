"""Every design of the fusion family, small, on frames made by hand: two processes learn as one, resuming changes nothing."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader
from unit.queries.scenes import Frames, build_small

from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.runtime.runner import MemFusionRunner

from .conftest import largest_difference, load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LEAVES = [f'{name}_r18_pillar04_second_secfpn_tiny-synthetic' for name in (
    'query/petrv2', 'query/sparsebev', 'query/streampetr', 'query/cmt',
    'fusion/petrv2-fusion', 'fusion/bevformer-lite', 'fusion/fastbev', 'fusion/sparsebev-notes')]


@functools.cache
def built(leaf: str, still: bool):
    """A detector in training mode but for BatchNorm, whose statistics are those of its process; a test copies it.

    Args:
        leaf: of configs.
        still: whether nothing is drawn: each process would draw its own.
    """
    init_default_scope('mmdet3d')
    config = Config.fromfile(CONFIGS / f'{leaf}.py')
    head, fusion = config.model.pts_bbox_head, config.model.get('fusion_layer')
    if still and 'denoising' in head:
        head.denoising.update(centre_noise=0.0, split=2.0, **(dict(label_noise=0.0) if head.type == 'SparseBEVHead' else {}))
        head.transformer.dropout = 0.0
        head.pop('masked_modal', None)
    if still and 'select' in (fusion or {}):  # which cells a ranking chooses hangs on the last digits, and those on the batch
        fusion.select.update(active_ratio=1.0)
        fusion.select.pop('random_share', None)
    return freeze_statistics(build_small(config).train())


def freeze_statistics(model):
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def clips(scenes):
    """Clips of two frames, as a data set gives them: one with a masked camera and few boxes, one without points."""
    kinds = dict(a=Frames(masked=(1,), boxes=1), b=Frames(lidar=False, boxes=4))
    return [kinds.get(scene, Frames()).of(scene, 2) for scene in scenes]


def gradients(model, scenes, wrapped=None):
    """{parameter: gradient} of a batch of clips."""
    data = model.data_preprocessor(pseudo_collate(clips(scenes)), True)
    loss, _ = model.parse_losses((wrapped or model)(**data, mode='loss'))
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def run_rank(rank, port, folder):
    """One of two processes, with one clip of each batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    found = {}
    for leaf in LEAVES:
        model = freeze_statistics(copy.deepcopy(built(leaf, still=True)))
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
        found[leaf] = gradients(model, 'ab'[rank], wrapped)
    torch.save(found, folder / f'{rank}.pth')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def of_two(tmp_path_factory):
    """{leaf: gradients} that each of two processes has."""
    folder = tmp_path_factory.mktemp('ranks')
    for leaf in LEAVES:
        built(leaf, still=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')  # not new interpreters: importing mmdet3d takes longer than the steps
    ranks = [context.Process(target=run_rank, args=(rank, port, folder)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(600)
        assert rank.exitcode == 0
    return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(2)]


@pytest.mark.parametrize('leaf', LEAVES)
def test_two_processes_with_one_clip_have_the_gradients_of_one_with_both(leaf, of_two):
    """One clip has a masked camera and one box, the other no points and four."""
    one = gradients(freeze_statistics(copy.deepcopy(built(leaf, still=True))), 'ab')
    first, second = (found[leaf] for found in of_two)
    assert largest_difference(first, second) == 0
    largest = max(value.abs().max() for value in one.values())
    assert largest > 0.1 and all(value.isfinite().all() for value in one.values())
    for name, value in one.items():  # sums in another order; what no box teaches has rounding alone
        assert (value - first[name]).abs().max() < 1e-3 * value.abs().max() + 1e-6 * largest, name


def runner(leaf, folder, **options):
    """Two steps of one clip through the Runner, with all that is drawn."""
    model = freeze_statistics(copy.deepcopy(built(leaf, still=False)))
    data = clips('cd')
    loader = DataLoader(data, batch_size=1, sampler=DefaultSampler(data, shuffle=False), collate_fn=pseudo_collate)
    return MemFusionRunner(
        model, str(folder), train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False), logger=None, param_scheduler=None, timer=None,
            sampler_seed=None),
        custom_hooks=[dict(type='RandomStateHook'), dict(type='FreezeBatchNormHook')], log_level='ERROR',
        default_scope='mmdet3d', randomness=dict(seed=0), experiment_name=f'{leaf.replace("/", "_")}_{folder.name}', **options)


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(leaf, tmp_path):
    first, whole, resumed = tmp_path / 'whole' / 'iter_1.pth', tmp_path / 'whole' / 'iter_2.pth', tmp_path / 'on' / 'iter_2.pth'
    runner(leaf, whole.parent).train()
    runner(leaf, resumed.parent, resume=True, load_from=str(first)).train()
    assert largest_difference(load(whole), load(resumed)) == 0 < 1e-4 < largest_difference(load(first), load(whole))
    moments = [torch.load(path, weights_only=False)['optimizer']['state'] for path in (whole, resumed)]
    assert all(largest_difference(one, other) == 0 for one, other in zip(*(each.values() for each in moments), strict=True))
