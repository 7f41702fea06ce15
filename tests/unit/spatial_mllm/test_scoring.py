"""Scores of VSI-Bench and SQA3D by their published rules, and what becomes of bad rows and of the wrong files."""

import json

import pytest

from projects.spatial_mllm.score import main, score_file
from projects.spatial_mllm.scoring import sqa3d, vsibench
from projects.spatial_mllm.scoring.report import score
from projects.spatial_mllm.scoring.rows import RefusedFileError, Row, read_rows

GOLDEN = {('10', '10'): (1, 1), ('9', '10'): (.9, .9), ('12', '10'): (.6, .6), ('13', '10'): (.5, .4), ('14', '10'): (.3, .2),
          ('15', '10'): (.1, 0), ('5', '10'): (.1, 0), ('3', '4'): (.6, .5), ('1', '2'): (.1, 0), ('16', '20'): (.6, .6),
          ('3 meters', '3'): (1, 0), ('3,000', '3000'): (0, 1), ('', '3'): (0, 0), ('none', '3'): (0, 0)}


@pytest.mark.parametrize('pair', GOLDEN)
def test_numbers(pair):
    official, spatial_mllm = GOLDEN[pair]
    assert vsibench.score_official('object_counting', *pair) == pytest.approx(official)
    assert vsibench.score_spatial_mllm('object_counting', *pair) == pytest.approx(spatial_mllm)


@pytest.mark.parametrize('prediction, official, spatial_mllm', [
    ('A', 1, 1), ('a', 1, 1), ('A.', 1, 1), ('A. chair', 1, 0), (' A', 0, 1), ('<answer>A</answer>', 0, 1), ('B', 0, 0),
    ('<answer>B</answer><answer>A</answer>', 0, 1), ('(A)', 0, 0)])
def test_choices(prediction, official, spatial_mllm):
    assert vsibench.score_official('route_planning', prediction, 'A') == official
    assert vsibench.score_spatial_mllm('route_planning', prediction, 'A') == spatial_mllm


def vsi(kind, prediction='A', truth='A', **more):
    return dict(question_type=kind, prediction=prediction, ground_truth=truth, scene_name='s', **more)


def rows_of(values):
    return [Row(f'answers.json: row {number}', row) for number, row in enumerate(values, 1)]


ALL = [vsi(kind, '9', '10') for kind in vsibench.NUMBERS] + [vsi(kind) for kind in vsibench.CHOICES]


def test_a_whole_run_has_no_flag_and_made_questions_stand_beside():
    report = score(rows_of([*ALL, vsi('exist', 'B')]), 'vsibench', 'official')
    assert report.flags == report.problems == []
    assert report.scores['overall'] == pytest.approx((4 * 90 + 4 * 100) / 8)
    assert list(report.scores)[0] == 'overall' and len(report.scores) == 9
    assert report.beside == {'exist_accuracy': 0.0} and report.num_rows == 11
    fractions = score(rows_of(ALL), 'vsibench', 'spatial_mllm').scores
    assert fractions['all_macro'] == pytest.approx(0.95) and fractions['all_micro'] == pytest.approx(0.96)


def test_missing_tasks_are_flagged_and_means_are_over_the_rest():
    report = score(rows_of([row for row in ALL if row['question_type'] != 'route_planning']), 'vsibench', 'official')
    assert len(report.flags) == 1 and 'route_planning' in report.flags[0]
    assert report.scores['overall'] == pytest.approx((4 * 90 + 3 * 100) / 7)
    easy = score(rows_of([vsi('object_rel_direction_easy'), vsi('object_rel_distance', 'B')]), 'vsibench', 'official')
    assert 'object_rel_direction_medium_accuracy' in ' '.join(easy.flags)  # the published code stops here
    assert easy.scores['overall'] == 50


def test_bad_rows_are_named_and_never_end_a_run():
    bad = [vsi('room_size_estimation', '5', '0'), vsi('room_size_estimation', '5', 'large'), vsi('sudoku'), vsi('exist', None),
           {**vsi('route_planning'), 'ground_truth': None}, vsi('object_counting', 'none', '0', id=7)]
    report = score(rows_of([*bad, *ALL]), 'vsibench', 'official')
    told = '\n'.join(report.problems)
    assert len(report.problems) == 6 and all(f'row {number}' in told for number in (1, 2, 3, 4, 5, 6)) and 'id 7' in told
    assert report.scores['overall'] == pytest.approx(95) and report.beside == {'exist_accuracy': 0.0}
    assert '... and 4 bad rows more' in report.text(2)
    zero = score(rows_of([vsi('room_size_estimation', '0', '0')]), 'vsibench', 'spatial_mllm')
    assert zero.problems == [] and zero.scores['all_micro'] == 1  # as published


def test_a_question_counts_once():
    report = score(rows_of([vsi('route_planning', 'A', id=1), vsi('route_planning', 'B', id=1)]), 'vsibench', 'official')
    assert report.scores['overall'] == 100 and 'row 2 (id 1)' in report.problems[0] and 'row 1' in report.problems[0]


@pytest.mark.parametrize('question, kind', [('What is it?', 'what'), ('  is it?', 'is'), ('How many', 'how'), ('Can I', 'can'),
                                            ('WHICH', 'which'), ('If I turn', 'other'), ('Whatever', 'what'), ('', 'other')])
def test_types_of_questions(question, kind):
    assert sqa3d.question_type(question) == kind


def test_em_r_is_what_leo_means():
    lamps = ['floor lamp', 'lamp']
    assert sqa3d.leo('lamp', lamps) == (0, 1) and sqa3d.leo('lamp', lamps[::-1]) == (1, 1)  # by the order of the references
    assert sqa3d.strict('lamp', lamps) and sqa3d.refined('lamp', lamps) and not sqa3d.strict('Lamp', lamps)
    assert sqa3d.leo('', ['chair']) == (0, 1) and sqa3d.script('', ['chair'])
    assert not sqa3d.refined('', ['chair']) and not sqa3d.refined('chair', ['']) and not sqa3d.refined('', [''])
    assert sqa3d.refined('A chair.', ['the office chair']) and not sqa3d.refined('light brown', ['dark brown'])


def sqa(number, prediction, question='What is left?', answers=('chair',)):
    return dict(question_id=number, question=question, answers=[dict(answer=one) for one in answers], prediction=prediction)


def test_sqa3d_by_each_protocol():
    rows = rows_of([sqa(1, 'chair'), sqa(2, 'a chair'), sqa(3, ''), sqa(4, None), sqa(5, 'yes', 'Is it?', ['no'])])
    em = score(rows, 'sqa3d', 'em')
    assert em.scores == {'EM@1': .2, 'EM@1 what': .25, 'EM@1 is': 0, 'EM-R': .4, 'EM-R what': .5, 'EM-R is': 0}
    assert len(em.problems) == 1 and 'row 4' in em.problems[0] and 'how, can, which' in em.flags[0]
    assert score(rows, 'sqa3d', 'leo').scores['em_refined_overall'] == .6  # the empty one; but no answer is no empty answer
    assert score(rows, 'sqa3d', 'llm_script').scores == {'accuracy': .6}
    with pytest.raises(ValueError, match="no protocol 'official'"):
        score(rows, 'sqa3d', 'official')


def write(path, text):
    path.write_text(text)
    return path


def test_files_cut_off_name_the_row(tmp_path):
    text = json.dumps(ALL)
    whole, problems = read_rows(write(tmp_path / 'whole.json', text))
    assert len(whole) == len(ALL) and problems == []
    for cut in (len(text) - 1, len(text) - 5, text.index('},') + 1):
        path = write(tmp_path / 'cut.json', text[:cut])
        rows, problems = read_rows(path)
        assert rows == [Row(row.where.replace('whole', 'cut'), row.values) for row in whole[:len(rows)]]
        assert len(problems) == 1 and problems[0].startswith(f'{path}: ') and f'row {max(len(rows), 1)}' in problems[0] \
            or f'row {len(rows) + 1}' in problems[0]
    lines = '\n'.join(map(json.dumps, ALL))
    rows, problems = read_rows(write(tmp_path / 'cut.jsonl', lines[:-5]))
    assert len(rows) == len(ALL) - 1 and f'row {len(ALL)}' in problems[0] and 'cut off' in problems[0]
    rows, problems = read_rows(write(tmp_path / 'hole.jsonl', '{}\n[1]\n{"a": \n{"b": 2}\n'))
    assert [row.values for row in rows] == [{}, {'b': 2}] and ['row 2' in problems[0], 'row 3' in problems[1]] == [True, True]


def test_rows_of_broken_text_or_numbers_are_left_out(tmp_path):
    good = json.dumps(vsi('object_counting', '3', '3', id=1))
    bad = [b'{"id": 2, "prediction": "caf\xe9"}', rb'{"id": 3, "prediction": "\ud83d"}',
           b'{"id": 4, "n": ' + b'1' * 5000 + b'}', b'{"id": 5, "n": ' + b'[' * 100000]
    path = tmp_path / 'odd names, too.jsonl'
    path.write_bytes(b'\xef\xbb\xbf' + b'\n'.join([*bad, good.encode()]))
    report = score_file(path, 'vsibench', 'official')
    assert report.num_rows == 1 and report.scores['overall'] == 100
    assert [problem.split(':')[1].split()[1] for problem in report.problems] == list('1234')
    path.write_bytes(b'[' + good.encode() + b',' + bad[2] + b']')
    assert 'row 2 is not JSON' in score_file(path, 'vsibench', 'official').problems[0]
    path.write_bytes(good.encode('utf-16'))
    with pytest.raises(RefusedFileError, match='too.jsonl: holds neither .* in UTF-8'):
        score_file(path, 'vsibench', 'official')
    report = score(rows_of([vsi('object_counting', '3', truth) for truth in ('nan', 'inf', '3')]), 'vsibench', 'official')
    assert report.num_rows == 1 and all('is no number' in problem for problem in report.problems)


def test_files_of_others_are_refused_by_name(tmp_path, capsys):
    mine = write(tmp_path / 'sqa3d.json', json.dumps([sqa(1, 'chair')]))
    assert main(['vsibench', str(mine)]) == 2
    told = capsys.readouterr().err
    assert 'sqa3d.json: row 1 is an answer to sqa3d' in told and 'score sqa3d FILE' in told
    other = write(tmp_path / 'vsibench.json', json.dumps(ALL))
    with pytest.raises(RefusedFileError, match='row 1 is an answer to vsibench'):
        score_file(other, 'sqa3d', 'em')
    for text, told in {'': 'neither', '[]': 'no row can be scored', '{"questions": []}': 'no row can be scored',
                       '{"a": ': 'cut off', 'id,answer': 'neither'}.items():
        with pytest.raises(RefusedFileError, match=told):
            score_file(write(tmp_path / 'odd', text), 'vsibench', 'official')
    with pytest.raises(RefusedFileError, match='nothing.json: cannot be read'):
        score_file(tmp_path / 'nothing.json', 'vsibench', 'official')


def test_answers_alone_are_joined_with_the_questions(tmp_path, capsys):
    asked = write(tmp_path / 'test.jsonl', '\n'.join(json.dumps({**row, 'id': n}) for n, row in enumerate(ALL)))
    answers = write(tmp_path / 'answers.jsonl', '\n'.join(json.dumps(dict(id=n, prediction='A')) for n in (9, 4, 77, 9)))
    out = tmp_path / 'new' / 'report.json'
    assert main(['vsibench', str(answers), '--questions', str(asked), '--out', str(out)]) == 0
    report = json.loads(out.read_text())
    assert report['num_rows'] == 10 and report['scores']['overall'] == pytest.approx((100 / 3 + 100) / 8)
    assert '77' in report['problems'][0] and 'already' in report['problems'][1] and len(report['problems']) == 10
    assert 'overall' in capsys.readouterr().out
    questions = write(tmp_path / 'q.json', json.dumps(dict(questions=[dict(question_id=5, question='Is it?')])))
    notes = write(tmp_path / 'a.json', json.dumps(dict(annotations=[dict(question_id=5, answers=[dict(answer='yes')])])))
    with open(asked, 'a') as file:
        file.write('\n{"id": 5, "cut')
    report = score_file(answers, 'vsibench', 'official', asked)
    assert report.num_rows == 10 and 'test.jsonl: row 11 is not JSON' in report.problems[0]
    mine = write(tmp_path / 'mine.json', json.dumps([dict(question_id=5, prediction='yes')]))
    assert score_file(mine, 'sqa3d', 'em', questions, notes).scores['EM@1'] == 1
    with pytest.raises(RefusedFileError, match='--annotations'):
        score_file(mine, 'sqa3d', 'em', questions)
    with pytest.raises(RefusedFileError, match="a.json: holds no list under 'questions'"):
        score_file(mine, 'sqa3d', 'em', notes, notes)
