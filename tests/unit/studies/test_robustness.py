"""Robustness: what is put into the pipeline, break-evens and verdicts by hand, results that are not mixed up."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config, ConfigDict

from projects.memfusion.runtime.errors import UserError
from projects.studies.robustness.conditions import CLEAN, Condition, make_conditions, with_condition
from projects.studies.robustness.report import break_even, curve, draw, judge, summary_of, write_markdown
from projects.studies.robustness.run import ResultFile, config_id, file_id, official, rig_of


def loader(*types):
    return ConfigDict(persistent_workers=True, dataset=dict(pipeline=[dict(type=t) for t in types]))


def test_faults_of_images_follow_their_loading_and_those_of_points_come_last():
    given = loader('LoadLidarPoints', 'LoadMultiViewImages', 'ResizeImages', 'PackClipFrame')
    condition = Condition('x', 'x', 1.0, (dict(type='CalibrationNoise'),), (dict(type='DropLidar'),))
    steps = [step['type'] for step in with_condition(given, condition)['dataset']['pipeline']]
    assert steps == ['LoadLidarPoints', 'LoadMultiViewImages', 'CalibrationNoise', 'ResizeImages', 'DropLidar', 'PackClipFrame']
    assert len(given['dataset']['pipeline']) == 4
    with pytest.raises(UserError, match='LoadMultiViewImages'):
        with_condition(loader('LoadLidarPoints', 'PackClipFrame'), condition)


def test_conditions_have_their_own_names_and_build():
    from mmdet3d.registry import TRANSFORMS

    from projects.memfusion import register  # noqa: F401
    conditions = make_conditions(6, 'infos.pkl', ('rotation_deg', 'cameras_dropped', 'lidar_dropped', 'grid'))
    assert len({c.name for c in conditions}) == len(conditions) == 1 + 3 + 5 + 20 + 6 + 3
    assert conditions[0].name == CLEAN and not conditions[0].images
    for condition in conditions:
        for step in (*condition.images, *condition.points):
            if step.get('ann_file') is None:  # the others read their file when built
                TRANSFORMS.build(step)


@pytest.mark.parametrize('values, floor, level', [
    ((40.0, 30.0, 10.0), 20.0, 1.5),  # half way from 30 to 10
    ((40.0, 30.0, 10.0), 30.0, 1.0),
    ((40.0, 30.0, 10.0), 5.0, None),
    ((40.0, 30.0, 10.0), 45.0, 0.0),
])
def test_break_even_by_hand(values, floor, level):
    assert break_even((0.0, 1.0, 2.0), values, floor) == level


def scores_of(clean, other, blank, masked, rotation=()):
    named = {CLEAN: clean, 'images other_scene': other, 'images blank': blank, 'images masked': masked}
    named.update({f'rotation {level:g} deg': value for level, value in rotation})
    return {name: dict(mAP=value, NDS=value / 2) for name, value in named.items()}


def test_verdicts():
    assert judge(scores_of(40.0, 30.0, 31.0, 32.0), None).used
    unused = judge(scores_of(40.0, 39.8, 39.9, 40.0), None)
    assert not unused.used and 'NOT used' in unused.lines[0]
    assert 'no worse' in judge(scores_of(40.0, 30.0, 31.0, 32.0), dict(mAP=32.3, NDS=1.0)).lines[1]
    assert 'WORSE' in judge(scores_of(40.0, 30.0, 31.0, 32.0), dict(mAP=33.0, NDS=1.0)).lines[1]


def test_report_names_the_break_even(tmp_path):
    conditions = make_conditions(2, 'infos.pkl', ('rotation_deg',))
    levels = [(c.level, 40 - 10 * c.level) for c in conditions if c.group == 'rotation_deg']
    scores = scores_of(40.0, 20.0, 20.0, 25.0, levels)
    assert curve(conditions, scores, 'rotation_deg', 'NDS') == ([0, 0.25, 0.5, 1, 2, 4], [20, 18.75, 17.5, 15, 10, 0])
    write_markdown(tmp_path / 'r.md', 'x', conditions, scores, dict(mAP=25.0, NDS=30.0))
    text = (tmp_path / 'r.md').read_text()
    assert 'break-even of rotation error with the LiDAR-only detector: mAP (25.0) at 1.5 deg' in text
    assert '| rotation 2 deg | 20.0 | 10.0 | -20.0 |' in text
    summary = summary_of(conditions, scores, None)
    assert summary['floor'] == dict(name='all cameras masked', mAP=25.0, NDS=12.5) and summary['used']
    assert summary['break_even'] == dict(rotation_deg=dict(mAP=1.5, NDS=1.5))
    assert summary['gains'] == dict(other_scene=20.0, blank=20.0, masked=15.0)
    draw(tmp_path / 'r.png', 'x', conditions, scores, None)
    assert (tmp_path / 'r.png').stat().st_size > 10_000


def test_lost_lidar_frames_have_no_break_even(tmp_path):
    """A LiDAR-only detector would lose them as well, so its clean score is nothing to compare with."""
    conditions = make_conditions(2, 'infos.pkl', ('lidar_dropped',))
    scores = {**scores_of(40.0, 20.0, 20.0, 25.0), **{c.name: dict(mAP=5.0, NDS=5.0) for c in conditions if c.points}}
    assert summary_of(conditions, scores, dict(mAP=25.0, NDS=30.0))['break_even'] == {}
    write_markdown(tmp_path / 'r.md', 'x', conditions, scores, None)
    text = (tmp_path / 'r.md').read_text()
    assert 'break-even' not in text and '| 50 % of LiDAR frames dropped | 5.0 | 5.0 | -35.0 |' in text
    draw(tmp_path / 'r.png', 'x', conditions, scores, None)


def test_scores_are_read_by_their_official_names():
    metrics = {'NuScenes metric/pred_instances_3d_NuScenes/mAP': 0.25, 'NuScenes metric/pred_instances_3d_NuScenes/NDS': 0.5,
               'memory/mAP': 0.9}
    assert official(metrics) == official({'image_bbox/mAP': 0.7, **metrics}) == dict(mAP=25.0, NDS=50.0)
    with pytest.raises(UserError, match='OrderedNuScenesMetric'):
        official({'image_seg/mIoU': 0.5})


def test_checkpoints_and_configs_are_known_by_what_they_say(tmp_path):
    one, other = (Config(dict(test_dataloader=dict(batch_size=size))) for size in (1, 2))
    with pytest.raises(UserError, match='no.pth: cannot be read'):
        file_id(tmp_path / 'no.pth')
    assert config_id(one) == config_id(Config(dict(test_dataloader=dict(batch_size=1)))) != config_id(other)


@pytest.mark.parametrize('pipeline, words', [
    ([dict(type='LoadLidarPoints')], 'no LoadMultiViewImages.*configs/fusion'),
    ([dict(type='LoadMultiViewImages')], 'cam_names is not set')])
def test_rigs_that_cannot_be_tested(pipeline, words):
    dataset = dict(data_root='data', ann_file='infos.pkl', pipeline=pipeline)
    with pytest.raises(UserError, match=words):
        rig_of(Config(dict(test_dataloader=dict(dataset=dataset))))


def test_results_of_two_detectors_are_not_mixed(tmp_path):
    path = tmp_path / 'out' / 'robustness.json'
    results = ResultFile(path, dict(weights='a'))
    results.scores['clean'] = dict(mAP=1.0, NDS=2.0)
    results.save()
    assert ResultFile(path, dict(weights='a')).scores == {'clean': dict(mAP=1.0, NDS=2.0)}
    with pytest.raises(UserError, match='another --out'):
        ResultFile(path, dict(weights='b'))
    assert json.loads(path.read_text())['detector'] == dict(weights='a')
    path.write_text('{')
    with pytest.raises(UserError, match='robustness.json'):
        ResultFile(path, dict(weights='a'))
