"""The study of pose encodings: its scores by hand, its order, what it says was not run, and a tiny row of the nano world."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.studies.encodings import memory, report, rows, run
from projects.studies.encodings.frames import PosedFrames, objects_of
from projects.studies.encodings.images import load_or_see
from projects.studies.encodings.look import Look, Objects, shown_tokens
from projects.studies.fusion.rows import LOOKALIKES
from projects.studies.fusion.run import Study, load_row
from projects.studies.fusion.train_row import new_model
from projects.studies.memory.cache import encode_split
from projects.studies.memory.rows import Budget

CLASSES = ('car', 'motorcycle', 'truck', 'bicycle', 'construction_vehicle')


def test_look_alikes_of_truth():
    """Near ones with points, by their place among the look-alikes; gravity centres."""
    sample, empty = Det3DDataSample(), Det3DDataSample()
    boxes = torch.tensor([[x, 0.0, -1.0, 4.0, 2.0, 1.5, 0.3, 0.0, 0.0] for x in (1.0, 2.0, 3.0, 40.0, 5.0)])
    for one, count in ((sample, 5), (empty, 0)):
        one.gt_instances_3d = InstanceData()
        one.eval_ann_info = dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(boxes[:count], box_dim=9), gt_labels_3d=np.array([2, 0, 1, 4, 3])[:count],
            num_lidar_pts=np.array([5, 5, 5, 5, 0])[:count])
    found = objects_of([empty, sample], CLASSES)
    assert found.there.tolist() == [[False, False], [True, True]]
    assert found.labels[1].tolist() == [LOOKALIKES.index('truck'), LOOKALIKES.index('motorcycle')]
    assert found.centres[1].tolist() == [[1.0, 0.0, -0.25], [3.0, 0.0, -0.25]]
    assert found.loss(torch.zeros(2, 2, 4)).item() == pytest.approx(np.log(4))


def test_what_attention_finds_by_hand():
    """Two cameras of 2 x 3 tokens; the object is seen by the second, in its row 1, column 2."""
    places = torch.full((1, 2, 1, 2), torch.nan)
    places[0, 1, 0] = torch.tensor([0.9, 0.6])
    assert shown_tokens(places, (2, 3)).nonzero().tolist() == [[0, 0, 1, 1, 2]]
    objects = Objects(torch.zeros(1, 1, 9), torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
    for token, found in (((1, 1, 2), True), ((1, 0, 1), True), ((1, 0, 0), False), ((0, 1, 2), False)):
        weights = torch.full((1, 1, 2, 2, 3), 0.05)
        weights[(0, 0, *token)] = 0.45
        look = Look(torch.zeros(1, 1, 4), weights, 2.0)
        assert look.found(places).tolist() == [[found]]
        assert look.loss(objects, places).item() == pytest.approx(np.log(4) - np.log(0.45 if token == (1, 1, 2) else 0.05) + 2)


def test_rows_of_two_seeds_come_first():
    plan = [(row.name, seed) for row, seed in rows.planned()]
    both = ['none', 'ray', 'prope', 'frustum']
    assert plan == [(name, seed) for seed in (0, 1) for name in both] + [
        (name, 0) for name in ('gta', 'cape6', 'thwp', 'alibi')]
    assert [(row.name, seed) for row, seed in rows.planned(['gta', 'ray'], [1])] == [('ray', 1), ('gta', 1)]
    with pytest.raises(UserError, match="no rows \\['prop'\\]"):
        rows.planned(['prop'])


def test_what_was_run_and_what_was_not(tmp_path):
    doc, results = tmp_path / 'encodings.md', tmp_path / 'results'
    doc.write_text('before\n' + '\n'.join(report.MARKERS) + '\nafter\n')
    results.mkdir()
    report.write_report(results, doc)
    assert doc.read_text().count('| not run |') == 2 * len(rows.ROWS) + len(memory.ROWS)
    for seed in (0, 1):
        scores = {condition: dict(found=80.0 + 2 * seed - 4 * number, accuracy=60.0, objects=700.0)
                  for number, condition in enumerate(rows.CONDITIONS)}
        run.result_path(results, 'prope', seed).write_text(json.dumps(
            dict(row='prope', seed=seed, steps=9, frames_a_step=2, **{design: scores for design in rows.DESIGNS})))
    memory.memory_path(results, 'residual', 0).write_text(json.dumps(dict(seed=0, steps=5, clips=4, scores={
        'memory/recall_0pts_seen': 0.25, 'memory/num_0pts_seen': 40, 'memory/num_0pts_seen_ego_turning': 12})))
    report.write_report(results, doc)
    text = doc.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and '9 steps of 2 frames' in text
    cells = ' | '.join(['81.0 ± 1.0', '77.0 ± 1.0', '73.0 ± 1.0', '69.0 ± 1.0', *['60.0 ± 0.0'] * 4, '8.0 ± 0.0'])
    assert text.count(f'| PRoPE | 0, 1 | {cells} |') == 2
    assert '| ray, added | not run |' in text
    assert '| XMem, distance between cells | 0 | 25.0 | - |' in text and '40, of these 12 in frames' in text


def test_committed_rows_are_of_the_study(repo):
    known = {row.name for row in (*rows.ROWS, *memory.ROWS)}
    for path in (repo / 'docs/results/encodings').glob('*.json'):
        assert json.loads(path.read_text())['row'] in known, path


@pytest.fixture(scope='module')
def study(nano_infos_root, tmp_path_factory):
    """Two frames of the nano world, LiDAR part and image branch untrained."""
    init_registry()
    torch.manual_seed(0)
    root, folder = nano_infos_root, tmp_path_factory.mktemp('encodings')
    cfg = load_row(rows.config_of(rows.FUSION), root)
    cfg.test_dataloader.dataset.indices = 2
    model = new_model(cfg, 0).eval()
    cache = encode_split(model, cfg.test_dataloader.dataset, 1, 0, batch_size=2)
    images = load_or_see(folder / 'images.pt', model, cfg.test_dataloader.dataset, [root], cache.samples[0], 1, 0)
    return Study([root], folder, 0, {}, cache, cache), run.Seen(images, images, images)


def test_a_tiny_row_is_trained_tested_and_stored(study, tmp_path, monkeypatch):
    studied, seen = study
    path, prope = tmp_path / 'prope-0.json', rows.planned(['prope'], [0])[0][0]
    run.run_row(studied, seen, prope, Budget(iterations=2, clips=1, variants=1), path)
    stored = json.loads(path.read_text())
    for design in rows.DESIGNS:
        assert set(stored[design]) == {'train_seconds', *rows.CONDITIONS}
        assert all(0 <= stored[design][condition]['accuracy'] <= 100 for condition in rows.CONDITIONS)
        assert stored[design]['own']['objects'] > 0 and 0 <= stored[design]['own']['found'] <= 100
    assert stored['row'] == 'prope' and stored['steps'] == 2
    monkeypatch.setattr(run, 'prepare_seed', lambda *args: pytest.fail('a finished row is run again'))
    run.run_rows([], [], tmp_path, tmp_path, [(prope, 0)], Budget(), 0)


def test_stored_features_are_the_frames_own(study):
    """Read back from the file; other frames' images come with their rig, errors are told to the rig alone."""
    studied, seen = study
    plain, donated = PosedFrames(studied.training, seen.training, CLASSES_OF_NUSCENES), PosedFrames(
        studied.training, seen.training, CLASSES_OF_NUSCENES, torch.eye(4, dtype=torch.float64).expand(2, 6, 4, 4), [1, 0])
    one, other = plain.batch([0, 0], [1, 0]), donated.batch([0, 0], [0, 1])
    for mine, theirs in zip(one.levels, other.levels):
        assert torch.equal(mine, theirs) and mine.dtype == torch.float32
    assert torch.equal(one.rig.cam_from_lidar, other.rig.cam_from_lidar)
    assert torch.equal(one.rig.t_cam[0], seen.training.rigs[0].t_cam[1])
    assert torch.equal(one.objects.boxes[0][one.objects.there[0]], other.objects.boxes[1][other.objects.there[1]])
    seen = ~one.places[..., 0].isnan().all(1)
    assert seen[one.objects.there].float().mean() > 0.9, 'six cameras see nearly all around'


CLASSES_OF_NUSCENES = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
                       'pedestrian', 'traffic_cone')
