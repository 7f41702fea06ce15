"""The comparison of fusions: its arithmetic by hand, what is skipped, what is not run, the committed files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from projects.benchmarks.full_frames import full_frame
from projects.memfusion.runtime.errors import UserError
from projects.studies.compare import costs, history, results, rows, run, sweep
from projects.studies.compare.report import MARKERS, NOT_RUN, said_of, spread_apart, write_report
from projects.studies.fusion.rows import LOOKALIKES
from projects.studies.fusion.train_row import class_means
from projects.studies.memory.cache import FeatureCache
from projects.studies.memory.rows import Budget

NAMES = ('car', 'bus', *LOOKALIKES)
LIDAR, FUSED = (next(row for row in rows.ROWS if row.name == name) for name in (rows.LIDAR_ONLY, 'fusion_futrpp'))


def world(value):
    """One world in which every class scores `value`."""
    found = dict(mAP=value, NDS=value + 10.0)
    found.update({f'AP/{name}': value for name in NAMES} | {f'boxes/{name}': 10.0 for name in NAMES})
    return {**found, **class_means(found)}


def store(folder, row, seed, values, swept=None):
    """A finished row whose worlds score `values`; `swept`, {condition: mAP in the swept worlds}."""
    content = dict(row=row.name, seed=seed, steps=70, frames_a_step=2, worlds=[world(value) for value in values])
    if swept is not None:
        content['sweep'] = {name: [dict(mAP=value, NDS=value)] * rows.SWEPT_WORLDS for name, value in swept.items()}
    folder.mkdir(exist_ok=True)
    results.result_path(folder, row.name, seed).write_text(json.dumps(content))


def falling(start, step):
    """mAP that falls by `step` a rotation; 5 with another scene's images."""
    return {sweep.OTHER: 5.0, **{sweep.rotation_name(deg): start - step * (i + 1) for i, deg in enumerate(rows.ROTATIONS_DEG)}}


@pytest.fixture
def finished(tmp_path):
    """LiDAR only 20 and 22, FuTr++ 30 and 34 (in the swept worlds 30 and 34, too), falling by 6 a step; the rest not run."""
    folder = tmp_path / 'results'
    for seed in (0, 1):
        store(folder, LIDAR, seed, [20.0 + 2 * seed] * 3)
        store(folder, FUSED, seed, [30.0 + 4 * seed] * 3, falling(30.0 + 4 * seed, 6.0))
    results.cost_path(folder, FUSED.name).write_text(json.dumps(
        dict(parameters=5_000_000, flops=300_000_000_000, cpu_s=1.5, times_reference=2.0, peak_bytes=700_000_000,
             machine='a CPU')))
    return folder


def test_gain_and_break_even_by_hand(finished):
    found = results.read_all(finished, rows.ROWS, (0, 1))
    assert results.gains(found[FUSED.name], found[LIDAR.name], 'mAP') == [10.0, 12.0]
    # Means: 32 at 0, 26 at the first rotation, 20 at the second, which is below 21: 5 of 6 of the way between the two.
    first, second = rows.ROTATIONS_DEG[:2]
    assert results.break_even_deg(found, FUSED.name) == pytest.approx(first + (second - first) * 5 / 6)
    assert results.lost_to_other_images(found[FUSED.name]) == [25.0, 29.0]
    assert said_of(None) == f'above {rows.ROTATIONS_DEG[-1]:g} deg'
    assert (said_of(0.0), said_of(1.26)) == ('no better at 0', '1.3 deg')


@pytest.mark.parametrize('start, step, level', [(40.0, 0.0, None), (19.0, 1.0, 0.0)])
def test_a_gain_that_stays_and_one_that_never_was(finished, start, step, level):
    store(finished, FUSED, 0, [start] * 3, falling(start, step))
    assert results.break_even_deg(results.read_all(finished, rows.ROWS, (0,)), FUSED.name) == level


def test_seeds_are_paired(finished):
    results.result_path(finished, LIDAR.name, 0).unlink()
    found = results.read_all(finished, rows.ROWS, (0, 1))
    assert found[FUSED.name].seeds == (0, 1) and found[LIDAR.name].seeds == (1,)
    assert results.gains(found[FUSED.name], found[LIDAR.name], 'mAP') == [12.0]
    results.result_path(finished, LIDAR.name, 1).unlink()
    with pytest.raises(ValueError, match=f'{FUSED.name}.*{LIDAR.name}'):
        results.break_even_deg(results.read_all(finished, rows.ROWS, (0, 1)), FUSED.name)


def test_report(finished, tmp_path):
    doc = tmp_path / 'fusion.md'
    doc.write_text('no place')
    with pytest.raises(UserError, match='compare: begin'):
        write_report(finished, rows.ROWS, (0, 1), doc)
    doc.write_text(f'before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n')
    write_report(finished, rows.ROWS, (0, 1), doc)
    text = doc.read_text()
    assert text.startswith(f'before\n{MARKERS[0]}\n') and text.endswith(f'{MARKERS[1]}\nafter\n') and 'old' not in text
    assert f'| FuTr++ | 5.0 | 300 | 1.50 | 700 | 2.0x | {FUSED.published} |' in text
    assert f'| LiDAR only | {NOT_RUN} | {NOT_RUN} |' in text
    assert ('| FuTr++ | 70 x 2 | 0, 1 | 32.0 ± 2.0 | 42.0 ± 2.0 | 32.0 ± 2.0 | 32.0 ± 2.0 | '
            '+11.0 ± 1.0 | 1.8 deg | +27.0 ± 2.0 |') in text
    assert '| LiDAR only | 70 x 2 | 0, 1 | 21.0 ± 1.0 |' in text and f'| FuTr | {NOT_RUN} | - |' in text
    assert (tmp_path / 'images' / 'fusion_compare.png').stat().st_size > 5_000
    store(finished, FUSED, 0, [30.0] * 3, falling(30.0, 6.0) | {sweep.OTHER: 29.6})
    write_report(finished, rows.ROWS, (0,), doc)
    assert '| +10.0 | images not used | +0.4 |' in doc.read_text()
    write_report(tmp_path / 'none', rows.ROWS, (0,), doc)
    assert f'| FuTr++ | {NOT_RUN} | - |' in doc.read_text() and '.png' not in doc.read_text()


def test_names_of_rows_that_did_alike_stand_apart():
    np.testing.assert_allclose(spread_apart([0.0, 0.0, 0.0, 1.0, 1.05], 0.1), [-0.1, 0.0, 0.1, 0.975, 1.075], atol=1e-12)
    assert spread_apart([0.2, 0.5], 0.1) == pytest.approx([0.2, 0.5]) and spread_apart([], 0.1) == []


def test_finished_rows_and_costs_are_skipped(finished, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(run, 'run_row', lambda study, row, budget, images, steps, path: ran.append((row.name, path.name)))
    monkeypatch.setattr(run, 'prepare', lambda roots, out, seed: ran.append(('prepared', seed)) or run.Study(
        [], out, seed, {}, None, None))
    run.run_rows([], tmp_path, finished, (0, 2), (LIDAR, FUSED), Budget(), 0)
    assert ran == [('prepared', 2), (LIDAR.name, f'{LIDAR.name}-2.json'), (FUSED.name, f'{FUSED.name}-2.json')]
    costs.count_costs(finished, (LIDAR, FUSED), lambda config: ran.append(config) or dict(flops=2))
    assert ran[-1] == LIDAR.full and results.read_cost(finished, LIDAR.name)['flops'] == 2


def test_the_first_worlds_frames():
    cache = FeatureCache(torch.arange(6.0).view(1, 6, 1, 1, 1), torch.ones(1, 6, 1, 1, 1, dtype=torch.bool), [list('abcdef')],
                         {'0/s': [0, 1], '1/s': [2, 3], '2/s': [4, 5]})
    kept = sweep.first_worlds(cache, 2, 3)
    assert kept.bev.flatten().tolist() == [0, 1, 2, 3] and kept.samples == [list('abcd')]
    assert list(kept.scenes) == ['0/s', '1/s']


def test_conditions_draw_from_their_own_world(tmp_path):
    other, *turned = sweep.conditions_of(tmp_path)
    assert other.images[0]['ann_file'] == f'{tmp_path}/nuscenes_infos_val.pkl'
    assert [condition.images[0]['rotation_deg'] for condition in turned] == list(rows.ROTATIONS_DEG)


def test_rows_have_their_configs_and_committed_results_their_rows(repo):
    assert len({row.name for row in rows.ROWS}) == len(rows.ROWS) and rows.ROWS[0] == LIDAR
    assert [path for row in rows.ROWS for path in (row.config, row.full) if not (repo / path).is_file()] == []
    assert rows.choose_rows([FUSED.name]) == (FUSED,)
    known = {row.name for row in (*rows.ROWS, *history.ROWS)}
    for path in (repo / 'docs' / 'results' / 'fusion').glob('*.json'):
        assert json.loads(path.read_text())['row'] in known, path


def test_stored_numbers_are_short():
    assert run.rounded(dict(a=[1.234567891, 2], b='x')) == dict(a=[1.23457, 2], b='x')


def test_full_frames_are_of_the_published_size():
    frame, = full_frame(points=1000)
    images = frame['inputs']['cameras'].images
    assert len(images) == 6 and images[0].shape == (3, 256, 704)
    points = frame['inputs']['points']
    assert points.shape == (1000, 5) and float(points[:, :2].norm(dim=1).max()) < 51.2
    near = float((points[:, :2].norm(dim=1) < 25.6).float().mean())
    assert 0.6 < near < 0.8  # sqrt(0.5) of them
    assert replace(FUSED, group='queries').writes_bev is False
