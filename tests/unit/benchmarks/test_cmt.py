"""The plain form of CMT's head: it replays the published arrays, so what is timed against it computes the same."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from replays.cmt import apart

from projects.benchmarks.cmt import Case, build
from projects.benchmarks.cmt_plain import PlainCMT, PlainSizes
from projects.convert.cmt import PREFIX, convert

SMALL = PlainSizes(32, 20, 8, 2, 4, 32, 16, 10, 16)


@pytest.mark.parametrize('name', ['cmt_head', 'cmt_image_head'])
def test_the_plain_form_replays(name, repo):
    with np.load(repo / f'tests/reference/{name}.npz') as archive:
        arrays = dict(archive)
    said = json.loads(str(arrays['settings']))
    plain = PlainCMT(PlainSizes(
        said['hidden_dim'], said['num_query'], said['depth_num'], said['decoder_layers'], said['num_heads'],
        said['feedforward_channels'], 64, said['num_classes'], said['in_channels'] if name == 'cmt_head' else None,
        said['pc_range'])).eval()
    weights = convert({PREFIX + key.removeprefix('weights/'): torch.from_numpy(value) for key, value in arrays.items()
                       if key.startswith('weights/')})
    plain.load_state_dict({key.removeprefix(PREFIX): value for key, value in weights.items()})
    matrices = torch.from_numpy(arrays['in/lidar2img'])
    bev = torch.from_numpy(arrays['in/bev_feats']) if 'in/bev_feats' in arrays else None
    with torch.no_grad():
        found = plain(torch.from_numpy(arrays['in/img_feats']).unflatten(0, matrices.shape[:2]), matrices,
                      tuple(arrays['in/pad_shape'].tolist()), bev)
    published = {key.removeprefix('out/'): value for key, value in arrays.items() if key.startswith('out/')}
    assert {key: apart(key, found[key].numpy(), value) for key, value in published.items()
            if apart(key, found[key].numpy(), value) > 1} == {} and found.keys() == published.keys()


@pytest.mark.parametrize('embeddings', [True, False])
@pytest.mark.parametrize('training', [True, False])
def test_what_is_timed_computes_the_same(embeddings, training):
    case = replace(Case('plain', embeddings, training=training).small(), sizes=SMALL)
    with torch.no_grad():
        for kind in ('first', 'again'):
            for one, other in zip(build(case)(), build(replace(case, kind=kind))(), strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
