"""The published multi-head PointPillars, rebuilt from a reference file's settings: it says no where a number is another."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest


@pytest.fixture
def replays(repo, monkeypatch):
    monkeypatch.syspath_prepend(repo / 'tests')
    return importlib.import_module('replays.openpcdet_multihead')


def test_changed_numbers_and_settings_are_told_and_all_others_agree(replays, repo, tmp_path):
    with np.load(repo / 'tests/reference/openpcdet_multihead.npz') as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays['settings']))
    settings['model']['POST_PROCESSING']['NMS_CONFIG']['NMS_THRESH'] = 0.6
    settings['dir_dense_head']['LOSS_CONFIG']['LOSS_WEIGHTS']['dir_weight'] = 0.25
    arrays['settings'] = np.array(json.dumps(settings))
    arrays['in/voxel_coords'][5, 3] += 1
    arrays['out/box_cls_labels'][1, 7] -= 1
    arrays['out/batch_box_preds'][0, 3, 6] += 2 * np.pi + 4e-3
    arrays['out/train_grad/vfe.pfn_layers.0.linear.weight'] *= 1.01
    arrays['dir/out/head4_dir_cls_preds'][1, 2, 0] += 1e-3
    np.savez(tmp_path / 'changed.npz', **arrays)
    rows = dict(replays.replay(tmp_path / 'changed.npz'))
    wrong = {'in/voxel_coords', 'out/box_cls_labels', 'out/batch_box_preds', 'dir/out/loss_dir', 'dir/out/loss_total',
             'out/train_grad/vfe.pfn_layers.0.linear.weight', 'dir/out/head4_dir_cls_preds',
             *(f'out/final{frame}_pred_{kind}' for frame in (0, 1) for kind in ('boxes', 'scores', 'labels'))}
    assert {name for name, worst in rows.items() if worst > 1} == wrong
    assert len(rows) == 77 and rows['out/batch_box_preds'] == pytest.approx(2, rel=0.05)
    assert max(worst for name, worst in rows.items() if name not in wrong) < 0.2  # f64 is this far from float32


def test_what_cannot_be_replayed_is_said(replays, repo):
    with np.load(repo / 'tests/reference/openpcdet_multihead.npz') as archive:
        settings = json.loads(str(archive['settings']))
    settings['model']['DENSE_HEAD']['TARGET_ASSIGNER_CONFIG']['MATCH_HEIGHT'] = True
    with pytest.raises(ValueError, match='MATCH_HEIGHT=True: only False can be replayed'):
        replays.detector_config(settings)
