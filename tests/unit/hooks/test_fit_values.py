"""FitValuesHook: features in a plane are stored without loss, whatever the random start; nothing else of the run changes."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from projects.memfusion import memory
from projects.memfusion.hooks import FitValuesHook

RANGE = (-4.0, -3.0, -5.0, 4.0, 3.0, 3.0)


class Detector(nn.Module):
    """Clips are BEV features already; padding holds what would spoil a fit."""

    def __init__(self, type, **temporal):
        super().__init__()
        torch.manual_seed(0)
        self.temporal = getattr(memory, type)(in_channels=6, point_cloud_range=RANGE, **temporal)
        self.modes = []

    def data_preprocessor(self, data):
        return dict(inputs=data)

    def encode(self, clip):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return SimpleNamespace(bev=torch.stack([bev[0] for bev, _ in clip])[None], valid=(tuple(ok[0] for _, ok in clip),))


def plane(seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, generator=torch.Generator().manual_seed(9)), torch.randn(48, 2, generator=draw)


class Clips:
    """Pairs of a frame and padding; reading one draws random numbers, as augmentation does."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        np.random.rand()
        axes, weights = plane(index)
        return [((weights @ axes + 3.0).T.reshape(6, 6, 8), True), (torch.randn(6, 6, 8) * 100, False)]


def runner(model, iteration=0):
    return SimpleNamespace(model=model, iter=iteration, logger=logging.getLogger('test'),
                           train_dataloader=SimpleNamespace(dataset=Clips()))


def lost(model):
    axes, weights = plane(77)
    bev = (weights @ axes + 3.0).T.reshape(1, 6, 6, 8)
    value = getattr(model.temporal, 'value', None) or model.temporal.reduce
    return float(value.loss(bev)['loss_value'].detach())


@pytest.mark.parametrize('temporal', [
    dict(type='CopyMemory', value_dim=2), dict(type='CopyGRU', hidden_dim=2),
    dict(type='StackFusion', hidden_dim=2, observed=True, copy=True)], ids=lambda settings: settings['type'])
def test_what_lies_in_a_plane_is_stored_without_loss_from_the_first_step_on(temporal):
    model = Detector(**temporal).train()
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    assert lost(model) > 0.1
    FitValuesHook(num_clips=3, num_cells=300).before_train(runner(model))
    assert lost(model) < 1e-9
    assert model.modes == [(False, False)] * 3 and model.training
    assert (np.random.get_state()[1] == numpy_state).all() and torch.equal(torch.random.get_rng_state(), torch_state)


def test_a_resumed_run_keeps_what_it_has_and_a_wrapped_model_is_fitted():
    model = Detector(type='CopyMemory', value_dim=2)
    before = lost(model)
    FitValuesHook().before_train(runner(model, iteration=7))
    assert lost(model) == before and not model.modes
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    FitValuesHook().before_train(runner(wrapper))
    assert lost(model) < 1e-9 and len(model.modes) == 5


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(ValueError, match=r'FitValuesHook: model.temporal \(ConvGRUFusion\)'):
        FitValuesHook().before_train(runner(Detector(type='ConvGRUFusion', hidden_dim=2)))
    with pytest.raises(ValueError, match='num_clips'):
        FitValuesHook(num_clips=0)
