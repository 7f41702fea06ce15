"""The study of poses: labels of the renderer, batches that share a video, controls, rows that are kept and put into a table."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.settings import make_settings
from projects.spatial_mllm.study.batches import Batcher
from projects.spatial_mllm.study.data import load_rooms
from projects.spatial_mllm.study.learning import HIDDEN, KINDS, Learner, all_asked, build_network
from projects.spatial_mllm.study.report import table
from projects.spatial_mllm.study.rows import ROWS, choose_rows

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'study_spatial.py'


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    return load_rooms(tmp_path_factory.mktemp('study'), make_settings('nano', 0, image_size=56), 'train', 3, 1)


@pytest.fixture(scope='module')
def words(rooms):
    return all_asked(rooms)


def test_labels_are_where_the_colours_are(rooms):
    assert rooms.there.shape == (3, 8, 4, len(CATEGORIES))
    frame, cell = rooms.frames[0, 0], 28
    for place in range(4):
        part = frame[place // 2 * cell:, place % 2 * cell:][:cell, :cell].astype(float)
        for number, category in enumerate(CATEGORIES):
            colour = np.array(category.colour) / np.linalg.norm(category.colour)
            hue = (part @ colour) / np.linalg.norm(part, axis=-1) > 0.9999
            if rooms.there[0, 0, place, number] > 0.05:
                assert hue.mean() == pytest.approx(float(rooms.there[0, 0, place, number]), abs=0.02)
                row = (np.argwhere(hue)[:, 0].mean() + 0.5) / cell
                assert row == pytest.approx(float(rooms.place[0, 0, place, number, 0]), abs=0.03)


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)
def test_questions_that_share_a_video_are_answered_as_if_alone(rooms, words, row):
    tokens = torch.randn(3, 32, HIDDEN, generator=torch.Generator().manual_seed(0)).half()
    learner = Learner(build_network(words, row, 0), 4).eval()
    batcher = Batcher(rooms, tokens, words, row)
    kinds = tuple(KINDS)
    together = batcher(np.array([1, 2]), kinds, 6)
    with torch.no_grad():
        scores = learner(together)
        count = 0
        for room in (1, 2):
            questions = [one for one in rooms.asked[room] if one.kind in kinds][:6]
            for one in questions[::3]:
                rooms_alone = batcher(np.array([room]), (one.kind,), 1)
                same = [each.kind for each in questions].index(one.kind)
                torch.testing.assert_close(learner(rooms_alone)[0, :len(one.candidates)],
                                           scores[count + same, :len(one.candidates)], atol=2e-5, rtol=1e-4)
            count += len(questions)
    assert len(scores) == len(together.answers) == count


def test_controls(rooms, words):
    rows = choose_rows(['poses', 'other', 'permuted'])
    own, other, permuted = (Batcher(rooms, torch.zeros(3, 32, 8), words, row) for row in rows)
    pose = own.poses.cam_from_world
    torch.testing.assert_close(other.poses.cam_from_world[1], pose[0])
    assert (permuted.poses.cam_from_world[:, 0] == pose[:, 0]).all() and (permuted.poses.cam_from_world != pose).any()
    assert sorted(permuted.poses.cam_from_world[2, :, 0, 0].tolist()) == sorted(pose[2, :, 0, 0].tolist())
    assert Batcher(rooms, torch.ones(3, 32, 8), words, *choose_rows(['poses_alone'])).tokens.abs().max() == 0
    with pytest.raises(ValueError, match='no such rows: best'):
        choose_rows(['best'])


def test_the_tool_keeps_rows_and_writes_their_table(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('study_spatial', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    document = tmp_path / 'doc.md'
    document.write_text('# A\n<!-- study: begin -->\nold\n<!-- study: end -->\nrest\n')
    folders = ['--work', str(tmp_path / 'work'), '--results', str(tmp_path / 'rows'), '--doc', str(document)]
    arguments = [*folders, '--rooms', '4', '2', '2', '--steps', '1', '1', '--tower-steps', '2', '--workers', '1',
                 '--seeds', '0', '--rows', 'blind', 'poses']
    assert tool.main(arguments[:-1]) == tool.main(arguments) == 0  # the second takes rooms, tower and tokens from the first
    assert 'poses, seed 0: other' in capsys.readouterr().out
    stored = json.loads((tmp_path / 'rows' / 'poses-0.json').read_text())
    assert set(stored['test']) <= set(KINDS) and stored['settings']['rooms'] == [4, 2, 2]
    text = document.read_text()
    assert text.startswith('# A\n') and text.endswith('-->\nrest\n') and 'old' not in text and table(tmp_path / 'rows') in text
    assert tool.main(arguments) == 0 and capsys.readouterr().out == ''
    assert tool.main([*arguments, '--steps', '2', '2']) == 2 and 'other settings' in capsys.readouterr().err
