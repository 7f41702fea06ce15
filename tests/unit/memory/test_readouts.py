"""Readouts: where they must be the plain detector, to the bit or to rounding, and hand-made answers where they must not."""

import pytest
import torch
from mmdet3d.registry import MODELS

READOUTS = ('GateReadout', 'ResidualReadout', 'ConcatReadout')


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, 8, 12, generator=g), torch.randn(2, 8, 4, 6, generator=g),
            3 * torch.randn(2, 1, 4, 6, generator=g))


def readout(kind, random_weights=True):
    torch.manual_seed(1)
    module = MODELS.build(dict(type=kind, in_channels=3, decoded_channels=8, upscale=2))
    for parameter in module.parameters() if random_weights else ():
        parameter.data.normal_()
    return module


@pytest.mark.parametrize('kind', READOUTS)
def test_alpha_zero_is_the_bev_bit_for_bit(kind, inputs):
    module = readout(kind)
    assert torch.equal(module(*inputs, alpha=0.0), inputs[0])
    assert (module(*inputs, alpha=1.0) - inputs[0]).abs().max() > 0.1


@pytest.mark.parametrize('kind', READOUTS)
def test_alpha_blends_linearly(kind, inputs):
    module = readout(kind)
    whole, half = module(*inputs, alpha=1.0), module(*inputs, alpha=0.5)
    assert (half - (inputs[0] + whole) / 2).abs().max() < 1e-4


@pytest.mark.parametrize('kind', ['ResidualReadout', 'ConcatReadout'])
def test_training_starts_from_the_plain_detector(kind, inputs):
    assert (readout(kind, random_weights=False)(*inputs, alpha=1.0) - inputs[0]).abs().max() < 1e-6


def test_log_odds_leave_features_alone_and_add_to_heat_maps(inputs):
    bev, decoded, logits = inputs
    module = readout('LogOddsReadout')
    assert torch.equal(module(bev, decoded, logits, alpha=1.0), bev)
    heat = module.heat(torch.full_like(logits, -2.0), bev.shape[-2:], alpha=0.5)
    assert heat.shape == (2, 1, 8, 12) and (heat + 1.0).abs().max() < 1e-6
    assert module.heat(logits, bev.shape[-2:], alpha=0.0).abs().max() == 0
    assert readout('GateReadout').heat(logits, bev.shape[-2:], alpha=1.0) is None


def test_an_open_gate_is_the_bev_and_a_closed_one_is_zero(inputs):
    bev, decoded, logits = inputs
    gate = readout('GateReadout')
    assert (gate(bev, decoded, torch.full_like(logits, 30.0), alpha=1.0) - bev).abs().max() < 1e-6
    assert gate(bev, decoded, torch.full_like(logits, -30.0), alpha=1.0).abs().max() < 1e-6
    # A gate of one half at alpha 0.8: bev * (0.2 + 0.8 * 0.5).
    assert (gate(bev, decoded, torch.zeros_like(logits), alpha=0.8) - 0.6 * bev).abs().max() < 1e-6


def test_the_gate_acts_on_the_cells_its_logits_lie_over():
    logits = torch.full((1, 1, 2, 3), -30.0)
    logits[0, 0, 1, 2] = 30.0
    gated = readout('GateReadout')(torch.ones(1, 3, 8, 12), torch.zeros(1, 8, 2, 3), logits, alpha=1.0)[0, 0]
    assert (gated[6:, 10:] > 0.999).all() and (gated[:4] < 0.01).all() and (gated[:, :8] < 0.01).all()


def test_the_residual_is_the_projected_feature(inputs):
    bev, decoded, logits = inputs
    module = readout('ResidualReadout')
    mixed = torch.einsum('oc,bchw->bohw', module.spread[0].weight[:, :, 0, 0], decoded) + module.spread[0].bias[:, None, None]
    fine = torch.zeros(2, 32, 8, 12)
    for row in range(2):
        for column in range(2):  # channel 4 c + 2 row + column of a memory cell is channel c of its cell (row, column)
            fine[:, :, row::2, column::2] = mixed[:, 2 * row + column::4].clamp(min=0)
    expected = bev + 0.3 * torch.nn.functional.conv2d(fine, module.proj.weight, module.proj.bias, padding=1)
    assert (module(bev, decoded, logits, alpha=0.3) - expected).abs().max() < 1e-4


@pytest.mark.parametrize('kind', READOUTS)
def test_in_the_slot_the_first_frame_and_a_remembered_one_obey_alpha(kind, build, bev, frame, pose, play):
    steps = [frame(t, pose(x=t)) for t in range(3)]
    maps = [bev(t) for t in range(3)]
    off, on = build(readout=kind, alpha=0.0), build(readout=kind, alpha=1.0)
    for t, out in enumerate(play(off, maps, steps)[0]):
        assert torch.equal(out.bev, maps[t])
    assert (play(on, maps, steps)[0][2].bev - maps[2]).abs().max() > 1e-2


@pytest.mark.parametrize('kind', ['ConvGRUFusion', 'StackFusion'])
def test_baselines_start_as_the_plain_detector_and_obey_alpha(kind, build, bev, frame, pose, play):
    steps = [frame(t, pose(x=t)) for t in range(3)]
    maps = [bev(t) for t in range(3)]
    for t, out in enumerate(play(build(kind, random_weights=False), maps, steps)[0]):
        assert torch.equal(out.bev, maps[t]) and not out.aux
    for t, out in enumerate(play(build(kind, alpha=0.0), maps, steps)[0]):
        assert torch.equal(out.bev, maps[t])
    whole, half = (play(build(kind, alpha=alpha), maps, steps)[0][2].bev for alpha in (1.0, 0.5))
    assert (whole - maps[2]).abs().max() > 1e-2
    assert (half - (whole + maps[2]) / 2).abs().max() < 1e-5


def test_alpha_outside_of_zero_to_one_is_an_error_whenever_it_is_set(build):
    module = build(alpha=1.0)
    module.alpha = 0.25
    assert module.alpha == 0.25
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match='temporal.alpha'):
            module.alpha = wrong
