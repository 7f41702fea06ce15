"""Answers that outlive a crash, of several processes, and the metrics that keep and score them."""

import json
import multiprocessing
import os
from types import SimpleNamespace

import pytest
from mmdet3d.registry import METRICS
from mmengine.config import Config

from projects.common.build import build_from
from projects.spatial_mllm.score import score_file
from projects.spatial_mllm.scoring import metrics
from projects.spatial_mllm.scoring.rows import RefusedFileError
from projects.spatial_mllm.scoring.store import AnswerStore
from projects.spatial_mllm.training.hooks import KeptAnswersHook

ROWS = [dict(id=n, question_type='object_counting', ground_truth='10', prediction=answer)
        for n, answer in enumerate(['10', '9', '5', 'many'])]


def test_a_crash_loses_no_finished_answer(tmp_path):
    store = AnswerStore(tmp_path / 'run', settings=dict(frames=8))
    for row in ROWS[:2]:
        store.add(row)
    path, = (tmp_path / 'run').glob('answers_*.jsonl')
    whole = path.read_bytes()
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        again = AnswerStore(tmp_path / 'run', settings=dict(frames=8))
        before = whole[:cut].count(b'\n')
        assert list(again.finished().values()) == ROWS[:before]
        again.add(ROWS[3])
        assert list(again.finished().values()) in ([*ROWS[:before], ROWS[3]], [*ROWS[:before + 1], ROWS[3]])


def _answer(folder, worker):
    store = AnswerStore(folder, worker, settings=dict(frames=8))
    for number in range(20):
        store.add(dict(id=f'{worker}-{number}', prediction='A' * 5000))


def test_several_processes_share_a_folder(tmp_path):
    workers = [multiprocessing.get_context('fork').Process(target=_answer, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = AnswerStore(tmp_path, 0, settings=dict(frames=8)).finished()
    assert sorted(found) == sorted(f'{worker}-{number}' for worker in range(3) for number in range(20))
    AnswerStore(tmp_path, 5).add(dict(id='0-0', prediction='later'))
    assert AnswerStore(tmp_path).finished()['0-0']['prediction'] != 'later'
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == '.json') == ['run.json']


def test_other_settings_and_rows_without_a_key_are_refused(tmp_path):
    AnswerStore(tmp_path, settings=dict(frames=8, sampler='sa'))
    with pytest.raises(ValueError, match='frames = 8, now 16'):
        AnswerStore(tmp_path, settings=dict(frames=16, sampler='sa'))
    with pytest.raises(ValueError, match="'question_id'.*keys"):
        AnswerStore(tmp_path, key='question_id').add(dict(id=1))


def test_what_could_not_be_read_is_never_right_and_is_asked_again(tmp_path):
    row = dict(question_id=1, question='Is it?', answers=['yes'])
    for protocol in ('leo', 'llm_script'):  # by which an empty answer is right
        metric = metrics.SQA3DMetric(protocol, answers=str(tmp_path))
        metric.process(None, [dict(row, problem='film.mp4 was cut off', prediction=None)])
        assert max(value for name, value in metric.evaluate(1).items() if 'overall' in name or 'accuracy' in name) == 0
    assert 'film.mp4 was cut off; it scores 0' in score_file(tmp_path, 'sqa3d', 'em').problems[0]
    AnswerStore(tmp_path, 1, key='question_id').add(dict(row, prediction='yes'))
    AnswerStore(tmp_path, 2, key='question_id').add(dict(row, prediction='no'))
    assert score_file(tmp_path, 'sqa3d', 'em').scores['EM@1'] == 1


def test_answers_of_another_model_are_refused(tmp_path):
    weights = tmp_path / 'epoch_1.pth'
    weights.write_text('')

    def before_test(dataset='answers', evaluator='answers', **model):
        folders = [None if name is None else str(tmp_path / name) for name in (dataset, evaluator)]
        runner = SimpleNamespace(
            test_dataloader=SimpleNamespace(dataset=SimpleNamespace(answers=folders[0])),
            test_evaluator=SimpleNamespace(metrics=[SimpleNamespace(answers=folders[1]), SimpleNamespace()]),
            cfg=Config(dict(load_from=str(weights), model=dict(checkpoint='nowhere', max_new_tokens=8, **model))))
        KeptAnswersHook().before_test(runner)

    before_test()
    before_test()
    before_test('others', 'others', dtype='bfloat16')
    with pytest.raises(ValueError, match="dtype = 'None', now 'bfloat16'"):
        before_test(dtype='bfloat16')
    os.utime(weights, (0, 0))  # trained again
    with pytest.raises(ValueError, match=r'weights = .*epoch_1.pth of .*, now .*epoch_1.pth of 19'):
        before_test()
    before_test(None, None)
    for folders in ((None, 'answers'), ('answers', None), ('answers', 'others')):
        with pytest.raises(ValueError, match='must be one folder'):
            before_test(*folders)


def test_metrics_score_as_the_command_does_and_go_on_where_they_stopped(tmp_path):
    cfg = dict(type='VSIBenchMetric', protocol='official', answers=str(tmp_path / 'run'))
    first = build_from(METRICS, cfg)
    first.process(None, ROWS[:2])
    second = build_from(METRICS, cfg)  # another run, which asks the rest alone
    second.process(None, ROWS[2:])
    found = second.evaluate(2)
    report = score_file(tmp_path / 'run', 'vsibench', 'official')
    assert found['vsibench/overall'] == report.scores['overall'] == pytest.approx((100 + 90 + 10) / 4)
    assert found['vsibench/num_rows'] == 4 and found['vsibench/num_problems'] == 0 and found['vsibench/num_flags'] == 1
    AnswerStore(tmp_path / 'run', worker=1).add({**ROWS[1], 'prediction': '1'})  # the same question in another process
    again = score_file(tmp_path / 'run', 'vsibench', 'official')
    assert again.scores == report.scores and again.problems == []
    with pytest.raises(RefusedFileError, match='no finished answers to sqa3d.*but answers to vsibench'):
        score_file(tmp_path / 'run', 'sqa3d', 'em')
    alone = metrics.VSIBenchMetric(protocol='spatial_mllm')
    alone.process(None, [*ROWS, ROWS[0]])  # the sampler repeats a row to fill the last batch
    assert alone.evaluate(5)['vsibench/all_micro'] == pytest.approx(1.9 / 4)


def test_sqa3d_metric(tmp_path):
    metric = build_from(METRICS, dict(type='SQA3DMetric', answers=str(tmp_path)))
    metric.process(None, [dict(question_id=3, question='Is it?', answers=['yes'], prediction='Yes')])
    found = metric.evaluate(1)
    assert (found['sqa3d/EM@1'], found['sqa3d/EM-R']) == (0, 1)
    assert json.loads((tmp_path / 'answers_0000.jsonl').read_text())['prediction'] == 'Yes'
    with pytest.raises(ValueError, match='no protocol'):
        build_from(METRICS, dict(type='SQA3DMetric', protocol='official'))
