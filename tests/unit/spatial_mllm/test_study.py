"""The study of poses: labels of the renderer, batches that share a video, controls, rows that are kept and put into a table."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.settings import make_settings
from projects.spatial_mllm.study.batches import Batcher
from projects.spatial_mllm.study.data import LONG, SAMPLERS, load_rooms
from projects.spatial_mllm.study.learning import HIDDEN, KINDS, Learner, build_network
from projects.spatial_mllm.study.merging import merged
from projects.spatial_mllm.study.report import table
from projects.spatial_mllm.study.rows import ROWS, choose_rows
from projects.spatial_mllm.study.tower import Whitening
from projects.spatial_mllm.study.words import Vocabulary

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'study_spatial.py'


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    return load_rooms(tmp_path_factory.mktemp('study'), make_settings('nano', 0, image_size=56), 'train', 3, 1)


@pytest.fixture(scope='module')
def words():
    return Vocabulary()


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
    together = batcher(np.array([1, 2]), tuple(KINDS))
    with torch.no_grad():
        scores = learner(together)
        for room, others in ((1, 0), (2, sum(one.kind in KINDS for one in rooms.asked[1]))):
            questions = [one for one in rooms.asked[room] if one.kind in KINDS]
            for number, one in list(enumerate(questions))[::5]:
                alone = dataclasses.replace(rooms, asked=[[one] if place == room else [] for place in range(3)])
                apart = learner(Batcher(alone, tokens, words, row)(np.array([room]), (one.kind,)))
                torch.testing.assert_close(apart[0], scores[others + number, :apart.shape[1]], atol=2e-5, rtol=1e-4)
    assert len(scores) == len(together.answers) == sum(one.kind in KINDS for room in (1, 2) for one in rooms.asked[room])


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


def test_whitened_tokens_vary_as_much_in_all_directions():
    rng = torch.Generator().manual_seed(0)
    mixed = torch.randn(40, 50, 6, generator=rng) * torch.tensor([10.0, 5, 3, 2, 1, 1])
    mixed = mixed @ torch.linalg.qr(torch.randn(6, 6, generator=rng))[0] + 4
    found = Whitening(mixed)(mixed).float().flatten(0, 1)
    covariance = found.T @ found / len(found)
    assert found.mean(0).abs().max() < 0.01 and torch.linalg.cond(mixed.flatten(0, 1).T.cov()) > 50
    assert covariance.diagonal().mean() == pytest.approx(1, abs=0.01)
    assert torch.linalg.cond(covariance) < 1.5  # not 1: the floor


def test_a_sampler_takes_frames_with_their_tokens_and_poses(tmp_path):
    rooms = load_rooms(tmp_path, make_settings('nano', 0, image_size=28, num_frames=LONG), 'train', 1, 1)
    taken, tokens = rooms.take('sa_8')
    index = rooms.chosen['sa_8'][0]
    assert set(rooms.chosen) == set(SAMPLERS) and len(set(index)) == 8
    np.testing.assert_array_equal(taken.frames[0], rooms.frames[0, index])
    torch.testing.assert_close(taken.poses.cam_from_world[0], rooms.poses.cam_from_world[0, index])
    torch.testing.assert_close(taken.points[0], rooms.points[0, tokens[0]])
    assert tokens.tolist() == [index.tolist()] and taken.asked == rooms.asked  # one token a frame


def test_two_frames_become_one_step(rooms):
    def look(pixels, grid):  # two tokens of 28 x 28 pixels a frame: their mean colour of both frames
        return pixels.unflatten(0, (-1, 4)).unflatten(-1, (3, 2, -1)).mean((1, 4)).flatten(1)

    for how in ('second', 'first', 'midpoint'):
        half, tokens = merged(rooms, how, look)
        assert half.asked == rooms.asked and tokens.shape == (3, 4 * 4, 6)
        torch.testing.assert_close(half.poses.img_from_cam, rooms.poses.img_from_cam[:, ::2])
        torch.testing.assert_close(half.points[:, 4:8], rooms.points[:, 8:12])
        alone = merged(dataclasses.replace(rooms, frames=rooms.frames), 'duplicate', look)[1].unflatten(1, (8, 4))
        first, second = tokens.unflatten(1, (4, 4)).unflatten(-1, (3, 2)).unbind(-1)
        own = alone.unflatten(-1, (3, 2))[..., 0]
        torch.testing.assert_close(first, own[:, ::2])
        torch.testing.assert_close(second, own[:, ::2] if how == 'second' else own[:, 1::2])
        if how != 'midpoint':
            torch.testing.assert_close(half.poses.cam_from_world, rooms.poses.cam_from_world[:, ::2])
    centre = torch.linalg.inv(rooms.poses.cam_from_world)[..., :3, 3]
    torch.testing.assert_close(torch.linalg.inv(half.poses.cam_from_world)[..., :3, 3], (centre[:, ::2] + centre[:, 1::2]) / 2)


def test_the_tool_keeps_rows_and_writes_their_tables(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('study_spatial', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    document = tmp_path / 'doc.md'
    document.write_text('# A\n<!-- study: begin -->\nold\n<!-- study: end -->\nrest\n')
    folders = ['--work', str(tmp_path / 'work'), '--results', str(tmp_path / 'rows'), '--doc', str(document)]
    arguments = [*folders, '--rooms', '4', '2', '2', '--steps', '1', '1', '1', '--tower-steps', '2', '--workers', '1',
                 '--probe-rooms', '1', '--seeds', '0', '--rows', 'blind', 'poses']
    assert tool.main(arguments[:-1]) == tool.main(arguments) == 0  # the second takes rooms, tower and tokens from the first
    assert 'poses-0, test: other' in capsys.readouterr().out
    stored = json.loads((tmp_path / 'rows' / 'poses-0.json').read_text())
    assert set(stored['test']) <= set(KINDS) and stored['settings']['rooms'] == [4, 2, 2]
    assert set(json.loads((tmp_path / 'rows' / 'probes_poses-0.json').read_text())) >= {'large', 'frames', 'narrow', 'wide'}
    assert len(json.loads((tmp_path / 'rows' / 'merged_poses-0.json').read_text())) >= 8
    text = document.read_text()
    assert '| near views | both, the pose half-way |' in text
    assert text.startswith('# A\n') and text.endswith('-->\nrest\n') and 'old' not in text and table(tmp_path / 'rows') in text
    assert '| mergeaware_sa, 16 |' in text and '| 12 frames (8) |' in text and 'Not run: images' in text
    assert tool.main(arguments) == 0 and capsys.readouterr().out == f'report: {tmp_path / "work" / "report.html"}\n'
    assert tool.main([*arguments, '--steps', '2', '2', '2']) == 2 and 'other settings' in capsys.readouterr().err
