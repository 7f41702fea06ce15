"""tools/convert_checkpoint.py: every official entry lands in the detector, what does not belong is named."""

from __future__ import annotations

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.convert import convert_checkpoint
from projects.convert.openpcdet_multihead import convert, our_names
from projects.memfusion.runtime import UserError, load_weights, safe_load

TINY = 'configs/temporal/multihead_pillar04_second_secfpn_tiny-synthetic.py'
GATED = 'configs/temporal/xmem-gate-multihead_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
GROUPS = [[1], [2, 3], [4, 5], [6], [7, 8], [9, 10]]


@pytest.fixture(scope='module')
def official(repo):
    """A state dict of the published size with numbers of its own in every entry."""
    shapes = json.loads((repo / 'tests/reference/openpcdet_multihead_state_dict.json').read_text())
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith(('num_batches_tracked', 'global_step')):
            weights[name] = torch.zeros(shapes[name], dtype=torch.int64)
        elif name.endswith('head_label_indices'):
            weights[name] = torch.tensor(GROUPS[int(name.split('.')[2])])
    return weights


def test_the_published_checkpoint_fills_the_plain_and_starts_the_gated_detector(official, repo, tmp_path):
    source, target = tmp_path / 'pp_multihead.pth', tmp_path / 'ours.pth'
    rest = dict(epoch=20, it=9, optimizer_state=dict(state={}, param_groups=[]), version='pcdet+0.3.0')
    torch.save(dict(model_state=official, **rest), source)
    said = convert_checkpoint('openpcdet_multihead', source, target)
    assert '414 of 421 entries' in said[0] and '7 have no use' in said[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['ours.pth', 'pp_multihead.pth']
    checkpoint = safe_load(str(target))
    gated_config = Config.fromfile(repo / GATED)
    assert checkpoint['meta']['dataset_meta']['classes'] == gated_config.class_names
    gated = MODELS.build(gated_config.model)
    load_weights(gated, checkpoint, str(target), allow_missing_slots=True)
    with pytest.raises(UserError, match='only in the model: temporal'):
        load_weights(gated, checkpoint, str(target))
    own, names = gated.state_dict(), our_names(official)
    assert sorted(name for name in names.values() if name) == sorted(name for name in own if not name.startswith('temporal.'))
    for theirs, ours in names.items():
        if ours is not None:
            assert torch.equal(own[ours], official[theirs]), theirs

    with pytest.raises(UserError, match='ours.pth: exists already'):
        convert_checkpoint('openpcdet_multihead', source, target)
    torch.save({name: value for name, value in official.items() if 'blocks.1.1.' not in name}, source)  # a bare one
    with pytest.raises(UserError, match=r'pp_multihead.pth: does not fit \S+tiny-synthetic.py: 5 missing: '
                                        r'pts_backbone.blocks.1.0.weight, .* not in the model: .* of another shape: '
                                        r'\S+ is \(64,\) instead of \(32,\)'):
        convert_checkpoint('openpcdet_multihead', source, target, config=repo / TINY, overwrite=True)
    assert torch.equal(safe_load(str(target))['state_dict'][ours], own[ours])  # as it was
    assert sorted(path.name for path in tmp_path.iterdir()) == ['ours.pth', 'pp_multihead.pth']


def test_names_by_hand():
    names = our_names([
        'global_step', 'vfe.pfn_layers.0.linear.weight', 'backbone_2d.blocks.1.16.weight',
        'backbone_2d.deblocks.0.1.running_var',
        'dense_head.shared_conv.1.bias', 'dense_head.rpn_heads.3.conv_dir_cls.weight',
        'dense_head.rpn_heads.2.conv_cls.0.weight', 'dense_head.rpn_heads.2.conv_cls.1.weight',
        'dense_head.rpn_heads.2.conv_cls.3.weight', 'dense_head.rpn_heads.2.conv_cls.4.bias',
        'dense_head.rpn_heads.2.conv_cls.6.bias'])
    assert list(names.values()) == [
        None, 'pts_voxel_encoder.pfn_layers.0.linear.weight', 'pts_backbone.blocks.1.15.weight',
        'pts_neck.deblocks.0.1.running_var',
        'pts_bbox_head.shared_conv.bn.bias', 'pts_bbox_head.group_heads.3.direction.weight',
        'pts_bbox_head.group_heads.2.cls.0.conv.weight', 'pts_bbox_head.group_heads.2.cls.0.bn.weight',
        'pts_bbox_head.group_heads.2.cls.1.conv.weight', 'pts_bbox_head.group_heads.2.cls.1.bn.bias',
        'pts_bbox_head.group_heads.2.cls.2.bias']


@pytest.mark.parametrize('name', [
    'backbone_3d.conv_input.0.weight', 'vfe.pfn_layers.0.norm.scale', 'backbone_2d.blocks.0.0.weight',
    'dense_head.conv_cls.weight', 'dense_head.rpn_heads.0.conv_box.weight'])
def test_foreign_entries_are_named(official, name):
    with pytest.raises(ValueError, match=f'1 entries .*: {name}'):
        convert({**official, name: torch.zeros(1)})


def test_groups_in_another_order_are_refused(official):
    swapped = {**official, 'dense_head.rpn_heads.0.head_label_indices': torch.tensor([4])}
    with pytest.raises(ValueError, match=r'head_label_indices are \[4, 2, 3, 4'):
        convert(swapped)


@pytest.mark.parametrize(('content', 'said'), [
    (dict(state_dict={'a': torch.zeros(1)}), "no weights of openpcdet_multihead.*'model_state'"),
    (dict(model_state={'a.weight': torch.zeros(1)}), 'foreign.pth: is not a checkpoint of openpcdet_multihead.*a.weight'),
])
def test_other_files_are_named(content, said, tmp_path):
    torch.save(content, tmp_path / 'foreign.pth')
    with pytest.raises(UserError, match=said):
        convert_checkpoint('openpcdet_multihead', tmp_path / 'foreign.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_arguments_are_named_before_anything_is_read(tmp_path):
    for arguments, said in (
            (('second', 'a', tmp_path / 'b'), 'second: there is no such converter; there are .*openpcdet_multihead'),
            (('openpcdet_multihead', 'a', tmp_path), 'is a folder'),
            (('openpcdet_multihead', 'a', tmp_path / 'no' / 'b.pth'), 'there is no folder'),
            (('openpcdet_multihead', tmp_path / 'a.pth', tmp_path / 'b.pth'), 'a.pth: there is no such checkpoint file')):
        with pytest.raises(UserError, match=said):
            convert_checkpoint(*arguments)
