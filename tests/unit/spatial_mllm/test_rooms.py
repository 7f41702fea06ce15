"""Made rooms: exact depth and poses, the same rooms for the same seed, folders that can be finished, refused or replaced."""

import hashlib
import json
import time

import cv2
import numpy as np
import pytest
from unit.spatial_mllm.made_rooms import rooms

from projects.spatial_mllm.rooms import generate as generation
from projects.spatial_mllm.rooms.cli import main
from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.generate import generate, make_room
from projects.spatial_mllm.rooms.layout import Pieces, corners, distances
from projects.spatial_mllm.rooms.render import furniture_boxes, render
from projects.spatial_mllm.rooms.settings import make_settings
from projects.spatial_mllm.score import score_file


def slow_depth(scene, frame, row, column):
    """One pixel in float64, one box after another."""
    pose, k = scene.cameras.world_from_cam[frame], scene.cameras.intrinsics
    ray = pose[:3, :3] @ np.linalg.inv(k) @ [column, row, 1]
    found = {-1: min((side * limit - start) / step for limit, start, step in zip(scene.size[:2] / 2, pose[:2, 3], ray)
                     for side in (-1, 1) if (side * limit - start) / step > 0)}
    found[-1] = min(found[-1], ((scene.size[2] if ray[2] > 0 else 0) - pose[2, 3]) / ray[2])
    for piece, kind in enumerate(scene.category):
        size, yaw = scene.pieces.size[piece], scene.pieces.yaw[piece]
        turn = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        start, step = turn @ (pose[:3, 3] - [*scene.pieces.centre[piece], 0]), turn @ ray
        for part in CATEGORIES[kind].parts.astype(float):
            cuts = np.sort((np.stack([part[:3] * size, part[3:] * size]) - start) / step, axis=0)
            near, far = cuts[0].max(), cuts[1].min()
            if 0 < near < far:
                found[piece] = min(found.get(piece, np.inf), near)
    return min(found.items(), key=lambda item: item[1])


def test_depth_and_owner_are_those_of_a_slow_ray_caster():
    scene = rooms(1)[0][0]
    _, depth, owner = render(scene.size, furniture_boxes(scene.pieces, scene.category), scene.cameras, 28)
    np.testing.assert_array_equal(depth, scene.depth)
    rng = np.random.default_rng(0)
    wrong = 0
    for frame, row, column in zip(*(rng.integers(size, size=150) for size in depth.shape)):
        whose, metres = slow_depth(scene, frame, row, column)
        same = abs(depth[frame, row, column] - metres) < 1e-4 and owner[frame, row, column] == whose
        wrong += not same
    assert wrong <= 1  # a ray along an edge may pass on either side
    assert set(np.unique(owner)) == {-1, *range(len(scene.category))}


def test_pixels_of_a_piece_unproject_into_its_box_from_every_frame():
    scene = rooms(1)[0][0]
    _, depth, owner = render(scene.size, furniture_boxes(scene.pieces, scene.category), scene.cameras, 28)
    for frame, pose in enumerate(scene.cameras.world_from_cam):
        row, column = np.nonzero(owner[frame] >= 0)
        pixels = np.stack([column, row, np.ones(len(row))])
        points = (pose[:3, :3] @ (np.linalg.inv(scene.cameras.intrinsics) @ pixels * depth[frame, row, column])).T + pose[:3, 3]
        piece = owner[frame, row, column]
        away = points[:, :2] - scene.pieces.centre[piece]
        cos, sin = np.cos(scene.pieces.yaw[piece]), np.sin(scene.pieces.yaw[piece])
        local = np.stack([cos * away[:, 0] + sin * away[:, 1], cos * away[:, 1] - sin * away[:, 0]], axis=1)
        assert (abs(local) <= scene.pieces.size[piece, :2] / 2 + 1e-3).all()
        assert (points[:, 2] > -1e-3).all() and (points[:, 2] < scene.pieces.size[piece, 2] + 1e-3).all()


def test_distances_by_hand():
    pieces = Pieces(np.array([[0.0, 0], [4, 0], [0, 3]]), np.array([[1.0, 1, 1], [2, 2, 1], [1, 1, 1]]),
                    np.array([0, np.pi / 4, np.pi / 2]), np.zeros(3, int))
    expected = [[0, 3.5 - np.sqrt(2), 2], [3.5 - np.sqrt(2), 0, 0], [2, 0, 0]]
    found = distances(corners(pieces))
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[:, 0], expected[0], atol=1e-12)
    many = corners(rooms(1)[0][0].pieces)
    side = np.linspace(0, 1, 400)[:, None]
    outline = [np.concatenate([a + side * (b - a) for a, b in zip(foot, np.roll(foot, -1, axis=0))]) for foot in many[:3]]
    slow = np.linalg.norm(outline[0][:, None] - outline[2][None], axis=-1).min()
    assert distances(many)[0, 2] == pytest.approx(slow, abs=2e-3)


def test_rooms_are_what_they_say():
    made = rooms(108)
    areas = [scene.area_m2 for scene, _, _ in made]
    assert {area: areas.count(area) for area in areas} == {16: 27, 20: 27, 25: 27, 30: 27}
    totals = set()
    for scene, asked, situated in made:
        assert scene.size[0] * scene.size[1] == pytest.approx(scene.area_m2)
        counts = np.bincount(scene.category)
        totals.add(len(scene.category))
        assert sorted(counts[counts > 1]) in ([4], [2, 3])
        assert (abs(corners(scene.pieces)) <= scene.size[:2] / 2).all()
        gap = distances(corners(scene.pieces)) + 9 * np.eye(len(scene.category))
        assert gap.min() > 0.1 and scene.pixels.max(axis=0).min() >= scene.least
        assert {one.kind for one in asked} >= {'object_counting', 'room_size_estimation', 'exist'} and situated
    assert totals == {12, 13}


def test_every_path_and_size_makes_rooms():
    for changes in (dict(path='pairs', num_frames=16), dict(path='walk'), dict(num_frames=16), dict(areas_m2=(40.0,)),
                    dict(view_deg=60.0)):
        scene, asked, situated = make_room(make_settings('nano', 1, image_size=28, **changes), 'test', 3)
        assert len(scene.frames) == changes.get('num_frames', 8) and asked and situated
    near = make_room(make_settings('nano', 1, image_size=28, path='pairs', num_frames=16), 'test', 3)[0].cameras.cam_from_world
    turn = np.degrees(np.arccos(np.einsum('ti,ti->t', near[:-1, 2, :3], near[1:, 2, :3])))
    assert turn[::2].max() < 12 < turn[1::2].min()


def digest(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob('*'))
            if path.is_file()}


def test_a_set_is_the_same_for_any_number_of_processes_and_after_a_crash(tmp_path, monkeypatch):
    settings = make_settings('nano', 5, rooms=(3, 1, 1), image_size=28)
    assert generate(tmp_path / 'one', settings)
    assert generate(tmp_path / 'two', settings, workers=2)
    assert not generate(tmp_path / 'one', settings)
    write, left = generation._write_room, iter(range(2))

    def dying(task):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(task)

    monkeypatch.setattr(generation, '_write_room', dying)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / 'cut', settings)
    monkeypatch.setattr(generation, '_write_room', write)
    seen = []
    assert generate(tmp_path / 'cut', settings, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert digest(tmp_path / 'one') == digest(tmp_path / 'two') == digest(tmp_path / 'cut')
    other = make_room(make_settings('nano', 6, rooms=(3, 1, 1), image_size=28), 'train', 0)[0]
    assert (other.depth != make_room(settings, 'train', 0)[0].depth).any()


def test_the_command_writes_both_formats_and_refuses_to_overwrite(tmp_path, capsys):
    out = tmp_path / 'qa'
    arguments = ['--out', str(out), '--rooms', '2', '1', '1', '--image-size', '28', '--workers', '1', '--sheets', '1']
    assert main([*arguments, '--seed', '1']) == 0 and 'rooms 4/4' in capsys.readouterr().out
    assert main([*arguments, '--seed', '1']) == 0 and 'was there already' in capsys.readouterr().out
    assert main([*arguments, '--seed', '2']) == 1 and 'seed 1 -> 2' in capsys.readouterr().err
    assert main([*arguments, '--seed', '2', '--force']) == 0
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('')
    assert main(['--out', str(tmp_path / 'mine'), '--force']) == 1 and (tmp_path / 'mine' / 'thesis.txt').exists()
    for wrong in (['--preset', 'huge'], ['--view-deg', '90'], ['--path', 'spiral'], ['--num-frames', '7'], ['--seed', '-1']):
        assert main([*arguments, *wrong]) == 2
    assert cv2.imread(str(out / 'sheets' / 'train_000000.png')).std() > 20

    rows = [json.loads(line) for line in (out / 'train' / 'vsibench.jsonl').read_text().splitlines()]
    assert [row['id'] for row in rows] == list(range(len(rows)))
    assert {row['scene_name'] for row in rows} == {'train_000000', 'train_000001'}
    for row in rows:
        frames = sorted((out / row['dataset'] / row['scene_name']).glob('*.png'))
        assert len(frames) == 8 and cv2.imread(str(frames[0])).shape == (28, 28, 3)
        if row['options']:
            assert row['options']['ABCD'.index(row['ground_truth'])] == f'{row["ground_truth"]}. {row["answer"]}'
    with np.load(out / 'rooms' / 'train_000000.npz') as beside:
        assert beside['world_from_cam'].shape == (8, 4, 4) and beside['depth'].shape == (8, 28, 28)

    right = out / 'right.jsonl'
    right.write_text('\n'.join(json.dumps({**row, 'prediction': row['ground_truth']}) for row in rows))
    report = score_file(right, 'vsibench', 'official')
    assert report.scores['overall'] == 100 and report.beside == {'exist_accuracy': 100}
    questions, notes = out / 'test' / 'sqa3d_questions.json', out / 'test' / 'sqa3d_annotations.json'
    truth = [dict(question_id=row['question_id'], prediction=row['answers'][0]['answer'])
             for row in json.loads(notes.read_text())['annotations']]
    right.write_text(json.dumps(truth))
    assert score_file(right, 'sqa3d', 'em', questions, notes).scores['EM@1'] == 1
    talks = [json.loads(line) for line in (out / 'val' / 'sft.jsonl').read_text().splitlines()]
    assert {(row['conversations'][0]['value'][:8], row['video']) for row in talks} == {('<video>\n', 'rooms/val_000000')}


def test_a_room_takes_a_fiftieth_of_a_second_per_frame_at_most():
    """A hundred rooms of eight frames in ten seconds on two cores leave twice that."""
    start = time.process_time()
    for index in range(6):
        make_room(make_settings('nano', 1), 'train', index)
    assert (time.process_time() - start) / 6 / 8 < 0.02
