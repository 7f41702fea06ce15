"""The tracker by hand, what it writes, and the devkit's scores of tracks that are right, broken and exchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tool_mains import main_of

from projects.demos.track import track
from projects.demos.viewer.scene import read_infos
from projects.memfusion.data.sequence_fields import load_info_file
from projects.memfusion.metrics.tracking.submission import track_results
from projects.memfusion.metrics.tracking.tracker import GreedyTracker
from projects.memfusion.runtime import UserError


def step(tracker: GreedyTracker, *boxes: tuple[str, float, float, float], gap_s: float = 0.5) -> list[int]:
    """Boxes: class, x, speed along x, score."""
    return tracker.step([name for name, *_ in boxes], np.array([[x, 0.0] for _, x, _, _ in boxes]).reshape(-1, 2),
                        np.array([[speed, 0.0] for _, _, speed, _ in boxes]).reshape(-1, 2),
                        np.array([score for *_, score in boxes]), gap_s).tolist()


def test_boxes_are_linked_by_where_they_came_from() -> None:
    tracker = GreedyTracker()
    assert step(tracker, ('car', 0, 8, 0.5), ('car', 10, 0, 0.9), ('barrier', 0, 0, 0.9)) == [1, 0, -1]
    # the first was at 0: 4.5 m are nearer to it by its speed than to the one that stands at 10
    assert step(tracker, ('car', 4.5, 8, 0.9), ('car', 10.5, 0, 0.8)) == [1, 0]
    # a pedestrian is another class; two boxes at one place: the surest has it, the other begins
    assert step(tracker, ('pedestrian', 10.5, 0, 0.9), ('car', 10.5, 0, 0.3), ('car', 10.6, 0, 0.4)) == [2, 3, 0]
    assert step(tracker) == []


def test_an_object_that_is_not_found_goes_on_for_a_while() -> None:
    tracker = GreedyTracker(dict(car=1.0), max_age=2)
    assert step(tracker, ('car', 0, 4, 0.9)) == [0]
    assert step(tracker) == [] and step(tracker) == []
    assert step(tracker, ('car', 6.4, 4, 0.9)) == [0]  # 2 m a frame: at 6, and 1 m is allowed
    assert [step(tracker) for _ in range(3)] == [[]] * 3
    assert step(tracker, ('car', 14.4, 4, 0.9)) == [1]  # forgotten after two
    assert step(tracker, ('car', 17.5, 4, 0.9)) == [2]  # 2 m back it is 1.1 m off
    assert step(tracker, ('car', 17.5, float('nan'), 0.9), gap_s=9.0) == [2]  # an unknown speed is none
    for wrong in (dict(max_age=-1), dict(max_distance_m=dict(car=0.0))):
        with pytest.raises(ValueError, match='max_'):
            GreedyTracker(**wrong)  # type: ignore[arg-type]


def test_speed_counts_from_the_first_frame_on_whose_stamp_may_be_zero() -> None:
    infos = [dict(token=token, scene_token='s', timestamp=float(stamp)) for token, stamp in (('b', 1), ('a', 0))]
    results = {token: [dict(sample_token=token, translation=[x, 0.0, 0.0], size=[1, 1, 1], rotation=[1, 0, 0, 0],
                            velocity=[10.0, 0.0], detection_name='car', detection_score=0.5)]
               for token, x in dict(a=0, b=10).items()}
    tracked = track_results(results, infos, dict(car=4.0))
    assert list(tracked) == ['a', 'b'] and {one['tracking_id'] for [one] in tracked.values()} == {'0_0'}


def truth_results(infos: list[dict[str, Any]], categories: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """A submission of all truth with points, every score its own."""
    names, results = {label: name for name, label in categories.items()}, {}
    for info in infos:
        pose = np.array(info['global_from_lidar'])
        entries = [
            dict(sample_token=info['token'], translation=(pose[:3, :3] @ one['bbox_3d'][:3] + pose[:3, 3]).tolist(),
                 size=[one['bbox_3d'][4], one['bbox_3d'][3], one['bbox_3d'][5]], rotation=[1.0, 0.0, 0.0, 0.0],
                 velocity=(pose[:3, :3] @ [*np.nan_to_num(one['velocity']), 0.0])[:2].tolist(), attribute_name='',
                 detection_name=names[one['bbox_label_3d']], detection_score=0.9 - 0.001 * row)
            for row, one in enumerate(info['instances']) if one['num_lidar_pts'] > 0 and one['bbox_label_3d'] >= 0]
        results[info['token']] = entries
    return results


def test_the_devkit_scores_tracks(nano_infos_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    infos, metainfo = load_info_file(nano_infos_root / 'nuscenes_infos_val.pkl')
    right = truth_results(infos, metainfo['categories'])
    right = {token: [one for one in entries if one['detection_name'] == 'car'] for token, entries in right.items()}
    lacking = {token: [one for row, one in enumerate(entries) if row % 2] for token, entries in right.items()}
    for name, results in dict(right=right, lacking=lacking).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'results_nusc.json').write_text(json.dumps(dict(meta={}, results=results)))
    main_of('track')([tmp_path / 'right', tmp_path / 'lacking', '--names', 'right', 'lacking', '--data', nano_infos_root,
                      '--out', tmp_path / 'out'])
    assert capsys.readouterr().out.splitlines() == (tmp_path / 'out' / 'tracking.txt').read_text().splitlines()
    scores = json.loads((tmp_path / 'out' / 'tracking.json').read_text())
    cars = {name: {metric: values['car'] for metric, values in one['label_metrics'].items()} for name, one in scores.items()}
    # every car is right; what could be wrong is what the tracker linked
    assert cars['right']['recall'] == 1 and cars['right']['fp'] == cars['right']['fn'] == cars['right']['ids'] == 0
    assert cars['right']['amota'] > 0.9 and cars['right']['motp'] < 1e-3
    assert cars['right']['amota'] > cars['lacking']['amota'] and cars['lacking']['recall'] < 0.7
    assert scores['right']['amota'] < cars['right']['amota']  # the mean over all classes that are there
    written = json.loads((tmp_path / 'out' / 'right' / 'tracking_results.json').read_text())['results']
    assert written.keys() == right.keys() and all(
        len({one['tracking_id'] for one in entries}) == len(entries) for entries in written.values())
    found = read_infos(nano_infos_root, right.keys())
    assert track_results(right, found.infos, dict(bus=4.0)) == {token: [] for token in right}
    alone = track_results(right, found.infos, dict(car=4.0), score_thr=0.88)
    assert min(one['tracking_score'] for entries in alone.values() for one in entries) >= 0.88
    with pytest.raises(UserError, match='--names a a: give each'):
        track([tmp_path / 'right'] * 2, ['a', 'a'], nano_infos_root, tmp_path / 'out')
    with pytest.raises(UserError, match='holds tracks already'):
        track([tmp_path / 'out' / 'right'], ['a'], nano_infos_root, tmp_path / 'out')
    (tmp_path / 'part.json').write_text(json.dumps(dict(results=dict([next(iter(right.items()))]))))
    with pytest.raises(UserError, match='lacks 4 keyframes of its scenes'):
        track([tmp_path / 'part.json'], ['a'], nano_infos_root, tmp_path / 'out')
