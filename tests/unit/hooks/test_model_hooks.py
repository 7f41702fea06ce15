"""Hooks that change the model for a run: memory format and frozen statistics."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from torch import nn

from projects.memfusion.hooks import ChannelsLastHook, FreezeBatchNormHook
from projects.memfusion.runtime import MemFusionRunner


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2, stride=2))


def test_channels_last_changes_the_order_in_memory_and_not_the_result():
    model, image = network().eval(), torch.randn(2, 3, 9, 9)
    before, state = model(image), {k: v.clone() for k, v in model.state_dict().items()}
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert (model(image) - before).abs().max() < 1e-5
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_weights_of_other_ranks_keep_their_order():
    """spconv's weights have five axes, of which torch knows no channels-last order of four."""
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Conv1d(2, 4, 3))
    strides = [layer.weight.stride() for layer in model]
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert [layer.weight.stride() for layer in model[::2]] == strides[::2]
    assert model[1].weight.stride() != strides[1]


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def gradients(model):
    model(torch.arange(486.0).view(2, 3, 9, 9) / 486).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_the_first_gradients_of_several_processes_are_not_permuted(one_process, monkeypatch):
    """DistributedDataParallel takes the order in memory that weights have when it is built for the first step's gradients."""
    expected, wrapper = gradients(network().eval()), dict(type='MMDistributedDataParallel', device_ids=None)
    monkeypatch.setenv('LOCAL_RANK', '0')
    runner = MemFusionRunner.__new__(MemFusionRunner)
    runner.cfg, runner._distributed = Config(dict(custom_hooks=[dict(type='ChannelsLastHook')])), True
    runner.model = runner.wrap_model(wrapper, network().eval())
    ChannelsLastHook().before_run(runner)
    assert runner.model.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    for first, second in zip(gradients(runner.model), expected, strict=True):
        assert (first - second).abs().max() < 1e-4 * second.abs().max().clamp(min=1.0)
    with pytest.raises(ValueError, match='would permute gradients'):
        ChannelsLastHook().before_run(SimpleNamespace(model=MMDistributedDataParallel(network())))


def test_frozen_statistics_stay_although_the_model_trains():
    model = nn.ModuleDict(dict(a=network(), b=network())).train()
    FreezeBatchNormHook(prefixes=['a']).before_train_iter(SimpleNamespace(model=model), 0)
    for part in model.values():
        part(torch.randn(4, 3, 9, 9) + 5)
    assert (model['a'][1].running_mean == 0).all() and (model['b'][1].running_mean != 0).all()
    assert model['a'][1].weight.requires_grad and model['a'].training
