"""Hooks that change the model for a run: memory format and frozen statistics."""

from types import SimpleNamespace

import torch
from torch import nn

from projects.memfusion.hooks import ChannelsLastHook, FreezeBatchNormHook


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


def test_frozen_statistics_stay_although_the_model_trains():
    model = nn.ModuleDict(dict(a=network(), b=network())).train()
    FreezeBatchNormHook(prefixes=['a']).before_train_iter(SimpleNamespace(model=model), 0)
    for part in model.values():
        part(torch.randn(4, 3, 9, 9) + 5)
    assert (model['a'][1].running_mean == 0).all() and (model['b'][1].running_mean != 0).all()
    assert model['a'][1].weight.requires_grad and model['a'].training
