"""By hand: who found what in which stratum, what was taken for what; end to end on the nano world: tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tool_mains import main_of

from projects.demos.compare_results import CompareOptions, compare
from projects.memfusion.data.sequence_fields import load_info_file
from projects.memfusion.metrics.box_tables import PredictionTable, TruthTable
from projects.memfusion.metrics.error_breakdown import confusion, error_strata, judge
from projects.memfusion.metrics.hidden_strata import HiddenFacts
from projects.memfusion.runtime import UserError
from projects.memfusion.visualization.image_files import read_rgb


def truth_of(*rows: tuple[int, int, float, int, bool, float]) -> TruthTable:
    """Rows: frame, label, x, points, seen before, speed."""
    frame, label, x, points, seen, speed = (np.array(values) for values in zip(*rows))
    zero = np.zeros(len(rows), np.int64)
    facts = HiddenFacts(zero, zero, speed.astype(float), zero.astype(float), zero.astype(float))
    centre_m = np.stack([x, 0 * x, 0 * x], axis=1).astype(float)
    return TruthTable(frame, frame, np.arange(len(rows)), label, centre_m, points, zero, seen, facts)


def predicted_of(*rows: tuple[int, int, float, float]) -> PredictionTable:
    """Rows: frame, label, x, score."""
    frame, label, x, score = (np.array(values) for values in zip(*rows))
    return PredictionTable(frame, label, np.stack([x, 0 * x, 0 * x], axis=1).astype(float), score)


TRUTH = truth_of((0, 0, 5, 9, False, 0.1), (0, 1, 15, 3, False, 9.0), (0, 0, 25, 0, True, 3.0), (0, 1, 60, 0, False, 0.0))


def test_strata_by_hand() -> None:
    groups = error_strata(TRUTH, np.array([5.0, 15, 25, 60]), ['car', 'bus'], np.array([4, 1, 0, 2]))
    chosen = {name: np.flatnonzero(inside).tolist() for strata in groups.values() for name, inside in strata.items()
              if inside.any()}
    assert chosen == {  # the last box never held a point: it does not count
        'all': [0, 1, 2], 'car': [0, 2], 'bus': [1], '0-10 m': [0], '10-20 m': [1], '20-30 m': [2], 'no point': [2],
        '1-5 points': [1], '6-20 points': [0], 'visible 80-100 %': [0], 'visible 0-40 %': [1], 'standing': [0], 'fast': [1],
        'slow': [2]}
    assert 'visibility' not in error_strata(TRUTH, np.zeros(4), ['car', 'bus'])


def test_judging_and_confusion_by_hand() -> None:
    predicted = predicted_of((0, 0, 5.5, 0.9), (0, 0, 15.0, 0.8), (0, 0, 40.0, 0.7), (0, 1, 60.0, 0.6), (0, 0, 25.0, 0.1))
    judged = judge(TRUTH, predicted, 1, false_positives_per_frame=2.0)
    assert judged.detected.tolist() == [True, False, True, False] and judged.finder.tolist() == [0, -1, 4, -1]
    assert judged.is_false.tolist() == [False, True, True, False, False]  # what never held a point only excuses
    assert confusion(TRUTH, judged, 2).tolist() == [[2, 0, 0], [1, 0, 0], [1, 0, 0]]  # the bus was taken for a car
    strict = judge(TRUTH, predicted, 1, false_positives_per_frame=1.0)
    assert strict.threshold == 0.8 and strict.detected.tolist() == [True, False, False, False]
    assert confusion(TRUTH, strict, 2).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    nothing = judge(TRUTH, PredictionTable(*(values[:0] for values in (
        predicted.frame, predicted.label, predicted.centre_m, predicted.score))), 1)
    assert confusion(TRUTH, nothing, 2).tolist() == [[0, 0, 2], [0, 0, 1], [0, 0, 0]]


@pytest.fixture(scope='module')
def files(nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Cars of the val set with points: the first file finds those at even rows, the second those whose row 3 divides."""
    infos, metainfo = load_info_file(nano_infos_root / 'nuscenes_infos_val.pkl')
    assert metainfo['categories']['car'] == 0
    paths = []
    for number, every in enumerate((2, 3)):
        results: dict[str, list[dict[str, Any]]] = {}
        for info in infos:
            pose = np.array(info['global_from_lidar'])
            results[info['token']] = [
                dict(sample_token=info['token'], translation=(pose[:3, :3] @ one['bbox_3d'][:3] + pose[:3, 3]).tolist(),
                     size=[one['bbox_3d'][4], one['bbox_3d'][3], one['bbox_3d'][5]], rotation=[1.0, 0.0, 0.0, 0.0],
                     velocity=[0.0, 0.0], detection_name='car', detection_score=0.5, attribute_name='')
                for row, one in enumerate(info['instances'])
                if row % every == 0 and one['num_lidar_pts'] > 0 and one['bbox_label_3d'] == 0]
        paths.append(tmp_path_factory.mktemp('compared') / f'{number}.json')
        paths[-1].write_text(json.dumps(dict(results=results)))
    return paths[0], paths[1]


def test_two_files_side_by_side(nano_infos_root: Path, files: tuple[Path, Path], tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    options = CompareOptions(('plain', 'memory'), pictures=2)
    found = compare(files, nano_infos_root, options)
    points = [found.data.infos[frame]['instances'][row]['num_lidar_pts'] for frame, row in zip(found.truth.frame, found.rows)]
    assert (np.array(points) == found.truth.num_lidar_pts).all()  # each truth is its own instance
    wins = (found.judged[1].detected & ~found.judged[0].detected)
    assert 0 < wins.sum() and (found.rows[wins] % 3 == 0).all() and (found.rows[wins] % 2 == 1).all()
    (tmp_path / 'only_plain_77.png').touch()
    main_of('compare_results')([
        *files, '--data', nano_infos_root, '--out', tmp_path, '--names', 'plain', 'memory', '--pictures', 2])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['breakdown.png', 'breakdown.txt'] + [
        f'only_{name}_0{number}.png' for name in ('memory', 'plain') for number in range(2)]
    table = {line[:24].strip(): line[24:].split() for line in reversed(lines) if len(line) > 24}  # recall stands first
    cars = found.truth.has_lidar_or_seen & (found.truth.label == 0)
    assert table['car'][0] == str(int(cars.sum())) and table['car'][4] == str(int(wins.sum()))
    assert sum(int(table[name][0]) for name in table if name.startswith('visible')) == int(found.truth.has_lidar_or_seen.sum())
    picture = read_rgb(tmp_path / 'only_memory_00.png').astype(int)
    orange = np.abs(picture - [255, 140, 30]).sum(axis=2) < 60
    middle = picture.shape[1] // 2
    # nothing is predicted at the crop's middle in the first panel, a box is in the second
    near = slice(picture.shape[0] // 2 - 60, picture.shape[0] // 2 + 90)
    assert orange[near, middle + 130:middle + 300].sum() > orange[near, 130:300].sum()


def test_what_cannot_be_compared_is_named(nano_infos_root: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    results = json.loads(files[0].read_text())['results']
    part, foreign, odd = (tmp_path / name for name in ('part.json', 'foreign.json', 'odd.json'))
    part.write_text(json.dumps(dict(results=dict(list(results.items())[:3]))))
    foreign.write_text(json.dumps(dict(results={**results, 'x': []})))
    token = next(iter(results))
    odd.write_text(json.dumps(dict(results={**results, token: [{**results[token][0], 'detection_name': 'tram'}]})))
    options = CompareOptions()
    with pytest.raises(UserError, match='not of the same samples'):
        compare((files[0], part), nano_infos_root, options)
    with pytest.raises(UserError, match='lacks 1 of the 11 samples'):
        compare((foreign, foreign), nano_infos_root, options)
    with pytest.raises(ValueError, match="class 'tram'"):
        compare((files[0], odd), nano_infos_root, options)
    with pytest.raises(UserError, match='none of its info files'):
        compare(files, nano_infos_root / 'nuscenes_infos_train.pkl', options)
    with pytest.raises(UserError, match='--names a a: give the two result files names of their own'):
        CompareOptions(('a', 'a'))
    with pytest.raises(UserError, match='--match-m must be above 0'):
        CompareOptions(match_m=0)
