"""The plain form that PETRv2's embeddings are measured against replays what was published, and the measured calls agree."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from projects.benchmarks import peak_memory
from projects.benchmarks.petr import Case, build
from projects.benchmarks.petr_plain import PlainEmbedding

REFERENCE = Path(__file__).resolve().parents[2] / 'reference'


@pytest.mark.parametrize('name', ['multiview', 'perview'])
def test_the_plain_form_replays(name):
    with np.load(REFERENCE / f'petrv2_{name}.npz', allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    said = json.loads(str(arrays['settings']))
    plain = PlainEmbedding(said['embed_dims'], said['depth_num'], said['position_range'], said['depth_start'], said['LID'],
                           said['with_multiview'])
    weights = {key.removeprefix('weights/'): torch.from_numpy(value) for key, value in arrays.items() if 'weights/' in key}
    plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
    features = torch.from_numpy(arrays['in/feats'])
    projected = torch.conv2d(features.flatten(0, 1), weights['input_proj.weight'], weights['input_proj.bias'])
    with torch.no_grad():
        steps = plain(projected.view_as(features), torch.from_numpy(arrays['in/lidar2img']),
                      torch.from_numpy(arrays['out/mask']).bool(), tuple(arrays['in/pad_shape'].tolist()))
    for key, value in vars(steps).items():
        assert np.abs(value.numpy() - arrays[f'out/{key}']).max() < 2e-5, key


def test_what_is_measured_runs():
    small = Case('plain', cameras=1, size=(2, 3))
    shapes = {build(replace(small, kind=kind, training=training))().shape
              for kind in ('plain', 'first', 'again') for training in (False, True)}
    assert shapes == {(1, 12, 256)}


def test_cases_are_timed_and_weighed_against_the_baseline(monkeypatch):
    monkeypatch.setattr(peak_memory, 'peak_bytes', lambda warm_up, make: 1_000_000 * warm_up()() * make()())
    rows = peak_memory.measure_cases(dict(one=3, two=6), lambda case: partial(int, case), lambda case: 1, 'one', 'forward', 2)
    assert [(row.name, row.relative_to) for row in rows] == [('one', 'one'), ('two', 'one')] and rows[0].ratio == 1
    assert [row.note for row in rows] == ['forward; 3 MB (1.00x)', 'forward; 6 MB (2.00x)']
