"""The slot: checkpoints of another temporal module are errors, with torch's loader and with MMEngine's."""

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

VARIANTS = {
    'memory': dict(), 'wider': dict(network=dict(extra_channels=0), ego_channels=True), 'gru': dict(kind='ConvGRUFusion'),
    'stack': dict(kind='StackFusion'), 'longer stack': dict(kind='StackFusion', num_frames=5),
}


def inside(build, name):
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    model.temporal = build(**VARIANTS[name])
    return model


@pytest.mark.parametrize('load', [load_state_dict, lambda model, state: model.load_state_dict(state, strict=False)])
def test_weights_of_another_module_are_an_error(load, build):
    for trained in VARIANTS:
        state = inside(build, trained).state_dict()
        for name in VARIANTS:
            model = inside(build, name)
            if name == trained:
                load(model, state)
                assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
            else:
                with pytest.raises(ValueError, match='another temporal module.*Use the config'):
                    load(model, state)


def test_a_detector_without_memory_can_be_loaded(build):
    model = inside(build, 'memory')
    before = {key: value.clone() for key, value in model.temporal.state_dict().items()}
    state = {key: value for key, value in inside(build, 'memory').state_dict().items() if 'temporal' not in key}
    state['backbone.weight'] = torch.full((2, 2), 7.0)
    load_state_dict(model, state)
    assert (model.backbone.weight == 7).all()
    assert all(torch.equal(before[key], value) for key, value in model.temporal.state_dict().items())


def test_readout_and_motion_gate_may_be_added_to_a_trained_memory(build):
    trained = inside(build, 'memory')
    trained.temporal = build(readout='GateReadout', key_position=False, seed=1)
    model = inside(build, 'memory')
    model.temporal = build(readout='ResidualReadout', motion_gate={}, seed=2)
    load_state_dict(model, trained.state_dict())
    assert torch.equal(model.temporal.network.key_proj.weight, trained.temporal.network.key_proj.weight)


def test_the_error_names_what_is_missing(build):
    with pytest.raises(ValueError, match=r'temporal\.reduce\.weight.*temporal\.'):
        load_state_dict(inside(build, 'gru'), inside(build, 'memory').state_dict())
