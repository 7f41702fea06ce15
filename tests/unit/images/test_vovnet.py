"""VoVNet and PETR's FPN: names and numbers of the published ones."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS

from projects.common.build import build_from
from projects.memfusion.detectors.unread_levels import parameters_beside
from projects.memfusion.images import CPFPN, VoVNet
from projects.memfusion.runtime.fuse import fuse_for_inference

SPEC = dict(stem_channels=(4, 4, 6), block_channels=(4, 5, 6, 7), out_channels=(8, 10, 12, 14), layers=2, blocks=(1, 2, 1, 2))


def make(**changes):
    torch.manual_seed(0)
    network = VoVNet(**{'spec': SPEC, 'out_features': ('stage4', 'stage5'), **changes})
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.dtype.is_floating_point and value.dim() == 1:
                value.uniform_(0.5, 1.5)
            elif value.dim() == 4:
                value.normal_(std=0.3)
    return network


def by_hand(weights, images):
    """The network written down once more, from the state dict alone."""

    def unit(name, x, stride=1):
        kernel = weights[f'{name}/conv.weight']
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, variance = weights[f'{name}/norm.running_mean'], weights[f'{name}/norm.running_var']
        scale = weights[f'{name}/norm.weight'] / (variance + 1e-5).sqrt()
        return torch.relu((x - mean[:, None, None]) * scale[:, None, None] + weights[f'{name}/norm.bias'][:, None, None])

    x = unit('stem.stem_3', unit('stem.stem_2', unit('stem.stem_1', images, 2)), 2)
    found = [x]
    for stage, count in enumerate(SPEC['blocks'], start=2):
        if stage > 2:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for block in range(1, count + 1):
            name, parts = f'stage{stage}.OSA{stage}_{block}', [x]
            for layer in range(SPEC['layers']):
                parts.append(unit(f'{name}.layers.{layer}.OSA{stage}_{block}_{layer}', parts[-1]))
            y = unit(f'{name}.concat.OSA{stage}_{block}_concat', torch.cat(parts, 1))
            pooled = y.mean((2, 3))
            gate = pooled @ weights[f'{name}.ese.fc.weight'][:, :, 0, 0].T + weights[f'{name}.ese.fc.bias']
            y = y * (((gate + 3).clamp(0, 6)) / 6)[:, :, None, None]
            x = y + x if block > 1 else y
        found.append(x)
    return found


def test_numbers_are_those_of_the_network_written_by_hand():
    network = make(out_features=('stem', 'stage2', 'stage3', 'stage4', 'stage5')).eval()
    images = torch.randn(2, 3, 44, 72, generator=torch.Generator().manual_seed(1))  # odd sizes further up
    expected = by_hand(network.state_dict(), images)
    found = network(images)
    assert [tuple(level.shape[2:]) for level in found] == [(11, 18), (11, 18), (5, 9), (2, 4), (1, 2)]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(network(images[:1]), found, strict=True):
        assert torch.allclose(ours, theirs[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', ['petrv2', 'cmt_camera_vov'])
def test_published_names_and_shapes_at_full_width(name, repo):
    published = json.loads((repo / f'tests/reference/{name}_state_dict.json').read_text())
    with torch.device('meta'):
        parts = dict(
            img_backbone=build_from(MODELS, dict(type='VoVNet', spec='V-99-eSE')),
            img_neck=build_from(MODELS, dict(type='CPFPN', in_channels=[768, 1024], out_channels=256, num_outs=2)))
    ours = {f'{slot}.{key}': list(value.shape) for slot, part in parts.items() for key, value in part.state_dict().items()}
    assert ours == {key: shape for key, shape in published.items() if key.startswith('img_')}


def test_checkpointed_blocks_have_the_same_gradients():
    images, gradients = torch.randn(2, 3, 64, 64), []
    for with_cp in (False, True):
        network = make(with_cp=with_cp).train()
        sum(level.square().sum() for level in network(images)).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_frozen_stages_and_norms_stay():
    network = make(frozen_stages=1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = sum(level.square().mean() for level in network(torch.randn(2, 3, 64, 64)))
    loss.backward()
    frozen = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert frozen == [name for name, _ in network.named_parameters() if name.startswith(('stem', 'stage2'))]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())  # no statistics
    assert not network.stem.training and network.stage3.training
    moving = make(norm_eval=False).train()
    moving(torch.randn(2, 3, 64, 64))
    assert int(moving.state_dict()['stage5.OSA5_1.concat.OSA5_1_concat/norm.num_batches_tracked']) == 1


def test_pretrained_weights_under_a_prefix_are_loaded(tmp_path):
    whole = make(out_features=('stage5',))
    torch.save(dict(state_dict={f'img_backbone.{name}': value for name, value in whole.state_dict().items()}),
               tmp_path / 'remapped.pth')
    fresh = VoVNet(SPEC, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'remapped.pth'), prefix='img_backbone'))
    fresh.init_weights()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_inference_without_batch_norm_gives_the_same():
    network, images = make().eval(), torch.randn(1, 3, 64, 96)
    before = network(images)
    fused = fuse_for_inference(network)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())
    for ours, theirs in zip(fused(images), before, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()))


def test_what_nobody_reads_is_known_under_checkpoints():
    network, neck = make(with_cp=True), CPFPN(in_channels=[12, 14], out_channels=4, num_outs=2)
    assert parameters_beside(network, neck, {0}) == ()
    beside = parameters_beside(network, neck, {1})
    assert {name.split('.')[2] for name in beside} == {'0'} and all(name.startswith('img_neck') for name in beside)
    assert len(beside) == 4  # the finer level's two convolutions


def test_only_the_stages_that_are_wanted_are_built():
    assert [name for name, _ in make(out_features=('stage3',)).named_children()] == ['stem', 'stage2', 'stage3']


@pytest.mark.parametrize(('changes', 'said'), [
    (dict(spec='V-100'), "spec='V-100': there are V-19-eSE, .*V-99-eSE"),
    (dict(spec={**SPEC, 'blocks': (1, 2)}), 'three stem_channels, and block_channels'),
    (dict(spec={**SPEC, 'layers': 0}), 'at least 1'),
    (dict(out_features=('stage6',)), r"out_features must be among stem, stage2, .* got \['stage6'\]"),
    (dict(frozen_stages=5), 'frozen_stages must lie within -1 to 4, got 5'),
    (dict(with_cp=True, norm_eval=False), 'with_cp=True needs norm_eval=True'),
])
def test_bad_settings_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        make(**changes)


def test_neck_adds_coarser_levels_and_smooths_the_finest_alone():
    torch.manual_seed(0)
    neck = CPFPN(in_channels=[3, 5, 2], out_channels=4, num_outs=3)
    levels = [torch.randn(2, 3, 5, 9), torch.randn(2, 5, 3, 5), torch.randn(2, 2, 2, 3)]
    weights = neck.state_dict()
    sides = [F.conv2d(level, weights[f'lateral_convs.{i}.conv.weight'], weights[f'lateral_convs.{i}.conv.bias'])
             for i, level in enumerate(levels)]

    def nearest(level, height, width):
        rows = torch.arange(height) * level.shape[2] // height
        columns = torch.arange(width) * level.shape[3] // width
        return level[:, :, rows][..., columns]

    middle = sides[1] + nearest(sides[2], 3, 5)
    finest = F.conv2d(sides[0] + nearest(middle, 5, 9), weights['fpn_convs.0.conv.weight'], weights['fpn_convs.0.conv.bias'],
                      padding=1)
    for ours, theirs in zip(neck(levels), (finest, middle, sides[2]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    with pytest.raises(ValueError, match='in_channels says 3 levels, img_backbone gives 2'):
        neck(levels[:2])
    with pytest.raises(ValueError, match='num_outs=4 must be the number of levels'):
        CPFPN(in_channels=[3, 5], out_channels=4, num_outs=4)
