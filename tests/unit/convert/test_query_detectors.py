"""Official query detectors: whole checkpoints fill the published configs, replays survive the way through the converter."""

from __future__ import annotations

import importlib
import json
import re
import zlib

import pytest
import replay
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.convert import CONVERTERS, convert_checkpoint
from projects.convert.converter import skeleton
from projects.convert.detector_names import matches_any
from projects.convert.head_entries import GROUPS, expanded, missing_entries
from projects.convert.query_detectors import CONFIGS, DESIGNS, config_of
from projects.memfusion.runtime import UserError, safe_load

FILES = dict(
    petrv2=(966, 1), streampetr=(591, 21), sparsebev=(385, 1), cmt_camera_vov=(781, 0), cmt_fusion_r50=(479, 0))
"""Entries of whole detectors, and how many have no use here."""
HEADS = ('petrv2_multiview', 'petrv2_perview', 'streampetr_head', 'sparsebev_transformer', 'cmt_head', 'cmt_image_head')
"""Replay files of heads alone."""


@pytest.fixture(autouse=True)
def quick_text(monkeypatch):
    """A config's text as it comes: to set it well takes longer than all the rest."""
    text = property(lambda config: '\n'.join(f'{key} = {value!r}' for key, value in config.to_dict().items()))
    monkeypatch.setattr(Config, 'pretty_text', text)


def design_of(name):
    return next(design for design in DESIGNS if name.startswith(design))


@pytest.fixture(scope='module')
def checkpoint(repo):
    """checkpoint(name): a state dict of the published size. Each entry is one number, by its name but for layers that share."""
    def make(name):
        shapes = json.loads((repo / f'tests/reference/{name}_state_dict.json').read_text())
        return {key: torch.tensor(float(zlib.crc32(re.sub(r'branches\.\d+', 'branches', key).encode()) % 2 ** 20)).expand(shape)
                for key, shape in shapes.items()}
    return make


@pytest.mark.parametrize('name', FILES)
def test_a_published_checkpoint_fills_its_detector(name, checkpoint, repo, tmp_path):
    design, official, (count, unused) = design_of(name), checkpoint(name), FILES[name]
    torch.save(dict(state_dict=official, meta=dict(epoch=24)), tmp_path / 'official.pth')
    said = convert_checkpoint(design, tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert f'{count - unused} of {count} entries' in said[0] and f'({unused} have no use here)' in said[0]
    assert ('no use here: ' in ''.join(said[1:])) == (unused > 0)
    ours = safe_load(str(tmp_path / 'ours.pth'))
    config = Config.fromstring(ours['meta']['cfg'], '.py')
    assert ours['meta']['dataset_meta']['classes'] == config.class_names
    model = skeleton(config.model)
    lidar = [slot for slot in CONVERTERS[design].optional if hasattr(model, slot)]
    missing, unexpected = model.load_state_dict(ours['state_dict'], strict=False, assign=True)
    assert unexpected == [] and {key.split('.')[0] for key in missing} <= set(lidar)
    assert (said[-1].startswith('nothing of pts_middle_encoder, pts_backbone, pts_neck')) == bool(lidar)
    # Every number that has a use has arrived, and no other.
    dropped = CONVERTERS[design].no_use
    used = {float(value.flatten()[0]) for key, value in official.items() if not matches_any(dropped, key)}
    assert {float(value.flatten()[0]) for value in ours['state_dict'].values()} == used


@pytest.mark.parametrize('name', HEADS)
def test_replays_go_through_the_converter_of_whole_detectors(name, repo, monkeypatch, capsys):
    path = repo / f'tests/reference/{name}.npz'
    module = importlib.import_module(f'replays.{replay.family_of(path)}')
    monkeypatch.setattr(module, 'convert', CONVERTERS[design_of(name)].weights)
    assert replay.main([str(path)]) == 0, capsys.readouterr()


@pytest.mark.parametrize('out_first', [True, False])
def test_sparse_kernels_of_either_layout_arrive(out_first, checkpoint, repo, tmp_path):
    config = Config.fromfile(repo / config_of('cmt', checkpoint('cmt_fusion_r50')))
    encoder = MODELS.build(dict(config.model.pts_middle_encoder, sparse_shape=[41, 16, 16]))
    ours = {name: torch.randn(value.shape) if value.is_floating_point() else value
            for name, value in encoder.state_dict().items()}
    kernels = [name for name, value in ours.items() if value.dim() == 5]
    official = checkpoint('cmt_fusion_r50')
    for name, value in skeleton(config.model).state_dict().items():
        if name.startswith(('pts_backbone', 'pts_neck')):
            official[name] = torch.zeros(()).expand(value.shape)
    for name, value in ours.items():
        official[f'pts_middle_encoder.{name}'] = value.permute(1, 2, 3, 4, 0) if name in kernels and not out_first else value
    torch.save(official, tmp_path / 'official.pth')
    said = convert_checkpoint('cmt', tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert len(said) == 1 and kernels
    converted = safe_load(str(tmp_path / 'ours.pth'))['state_dict']
    encoder.load_state_dict({name: converted[f'pts_middle_encoder.{name}'] for name in ours})
    assert all(torch.equal(value, ours[name]) for name, value in encoder.state_dict().items())


def refused(design, official, tmp_path, said):
    torch.save(official, tmp_path / 'official.pth')
    with pytest.raises(UserError, match=said):
        convert_checkpoint(design, tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert not (tmp_path / 'ours.pth').exists()


def test_what_does_not_fit_is_named(checkpoint, tmp_path):
    official = checkpoint('cmt_camera_vov')
    del official['img_backbone.stage2.OSA2_1.ese.fc.weight']
    official['img_backbone.stem.stem_4/conv.weight'] = torch.zeros(1)
    official['img_neck.fpn_convs.0.conv.bias'] = torch.zeros(128)
    refused('cmt', official, tmp_path,
            r'official.pth: does not fit configs/query/cmt-camera-published_v99_640x1600_\S+.py: 1 missing: '
            r'img_backbone.stage2.OSA2_1.ese.fc.weight; 1 not in the model: img_backbone.stem.stem_4/conv.weight; 1 of another '
            r'shape: img_neck.fpn_convs.0.conv.bias is \(128,\) instead of \(256,\). Give .* --config')


@pytest.mark.parametrize('name', FILES)
def test_every_entry_of_an_official_head_is_missed(name, repo):
    shapes = json.loads((repo / f'tests/reference/{name}_state_dict.json').read_text())
    design = design_of(name)
    kept = [key for key in shapes if key.startswith('pts_bbox_head.') and not key.endswith('num_batches_tracked')
            and not matches_any(CONVERTERS[design].no_use, key)]
    for key in kept:
        assert missing_entries(design, [other for other in kept if other != key]) == [key]
    assert missing_entries(design, kept) == []
    written = {'pts_bbox_head.' + entry for group in GROUPS[design] for pattern in group for entry in expanded(pattern, 6)}
    assert set(kept) <= written


@pytest.mark.parametrize(('design', 'names', 'said'), [
    ('cmt', ['pts_bbox_head.rv_embedding.1.a'], "1 entries that CMT's head does not have: pts_bbox_head.rv_embedding.1.a"),
    ('cmt', ['pts_bbox_head.init_query_bbox.weight'], 'it has the entries of sparsebev: convert it with `.* sparsebev`'),
    ('petrv2', ['pts_bbox_head.fpe.conv_reduce.bias', 'pts_bbox_head.fpe.conv_expand.bias'],
     'a head without 2 of its entries: pts_bbox_head.fpe.conv_reduce.weight, pts_bbox_head.fpe.conv_expand.weight'),
    ('sparsebev', ['pts_bbox_head.rv_embedding.1.weight'], 'it has the entries of cmt: convert it'),
    ('cmt', ['img_roi_head.cls.bias', 'a'], 'it has 2 entries that are of no part of this detector: img_roi_head.cls.bias, a'),
    ('cmt', ['img_neck.lateral_convs.0.conv.bias'], 'has weights that are NaN or infinite: img_neck.lateral_convs.0.conv.bias'),
])
def test_foreign_and_broken_entries_are_named(design, names, said, tmp_path):
    refused(design, {name: torch.full((2,), float('nan')) for name in names}, tmp_path, said)


def test_the_config_is_that_of_the_encoder_and_the_queries(repo, checkpoint):
    assert all((repo / f'configs/query/{name}.py').is_file() for configs in CONFIGS.values() for name in configs.values())
    official = checkpoint('streampetr')
    assert '24e' in config_of('streampetr', official)
    official['pts_bbox_head.reference_points.weight'] = torch.zeros(300, 3)
    assert '60e' in config_of('streampetr', official)
    assert 'v99' in config_of('streampetr', {name: torch.zeros(0) for name in checkpoint('petrv2')})
    assert 'v99' in config_of('petrv2', {})  # there is one


def test_branches_of_streampetr_that_differ_are_refused(checkpoint):
    official = checkpoint('streampetr')
    official['pts_bbox_head.cls_branches.4.6.bias'] = torch.zeros(10)
    with pytest.raises(ValueError, match='cls_branches.4.6.bias, which is not that of layer 0'):
        CONVERTERS['streampetr'].weights(official)
