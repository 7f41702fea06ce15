"""The plain forms of BEVFormer's attention: they replay the published arrays, so what is timed against them is the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from projects.benchmarks.bevformer import Case, build
from projects.benchmarks.bevformer_plain import PlainSpatial, PlainTemporal


@torch.no_grad()
def test_the_plain_forms_replay(repo):
    with np.load(repo / 'tests/reference/bevformer_attention.npz') as archive:
        arrays = {name: torch.from_numpy(value) for name, value in archive.items() if name != 'settings'}
        said = json.loads(str(archive['settings']))
    spatial = PlainSpatial(said['embed_dims'], len(said['level_sizes']), said['num_heads'], said['sca_num_points'])
    temporal = PlainTemporal(said['embed_dims'], said['num_heads'], said['tsa_num_points'])
    for name, part in (('sca', spatial), ('tsa', temporal)):
        start = f'weights/{name}.'
        part.load_state_dict({key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)})
    places, visible = (arrays[f'out/{name}'].transpose(0, 1) for name in ('ref_cam', 'bev_mask'))
    levels = [arrays[f'in/feat{i}'] for i in range(len(said['level_sizes']))]
    read = spatial(arrays['in/sca_query'], levels, places, visible.bool())
    torch.testing.assert_close(read, arrays['out/sca_out'], atol=1e-5, rtol=0)
    shape, past, shift = (said['bev_h'], said['bev_w']), arrays['in/tsa_prev_bev'], arrays['in/tsa_shift']
    read = temporal(arrays['in/tsa_query'], arrays['in/tsa_query_pos'], shape, past, shift)
    torch.testing.assert_close(read, arrays['out/tsa_out'], atol=1e-5, rtol=0)


@pytest.mark.parametrize('temporal', [False, True])
def test_ours_computes_what_the_published_order_does(temporal):
    plain, ours = (build(Case(temporal, plain, 10, training=True))() for plain in (True, False))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)
