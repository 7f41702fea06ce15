"""Unit and end to end: hidden objects that memory finds again are counted, chosen and drawn where they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS

from projects.demos.demo import Demo
from projects.demos.hidden_pictures import Outcome, choose_object, count_line, draw_hidden, moved_boxes, outcome_of
from projects.demos.read_pictures import CROP_PX
from projects.demos.recorded_steps import MemoryFrame, stream_memory
from projects.demos.streaming import find_scene, load_detector
from projects.memfusion.metrics import evaluate_memory
from projects.memfusion.metrics.box_tables import TruthTable
from projects.memfusion.metrics.hidden_strata import HiddenFacts
from projects.memfusion.runtime import prepare_config
from projects.memfusion.visualization import BoxSet
from projects.memfusion.visualization.image_files import read_rgb
from projects.memfusion.visualization.memory import GAP_PX, HEADER_ROW_PX, MARK, PANEL_TITLE_PX
from projects.memfusion.visualization.reads import BAR_PX
from projects.memfusion.visualization.style import BACKGROUND, PREDICTION

CLASSES = ['car', 'bus']
CATEGORIES = dict(bus=0, car=1)
SIZE = [4.0, 2.0, 1.5]


def by_hand(detected: list[bool], score: list[float]) -> Outcome:
    """Five truth boxes: seen now, and hidden for 1, 3, 3 and 9 keyframes, the last too long ago to count."""
    gaps = np.array([1, 1, 3, 3, 9])
    zero = np.zeros(5, np.int64)
    facts = HiddenFacts(gaps * 500_000, gaps, *np.zeros((3, 5)))
    truth = TruthTable(zero, zero, np.arange(5), zero, np.zeros((5, 3)), np.array([8, 0, 0, 0, 0]), zero, gaps <= 4, facts)
    return Outcome(truth, np.array(detected), np.array(score), np.zeros((5, 3)), 0.2)


def test_the_object_that_memory_alone_finds_and_is_hidden_longest() -> None:
    remembers = by_hand([True, True, True, True, True], [0.9, 0.9, 0.3, 0.4, 0.9])
    assert choose_object(remembers, by_hand([True, False, False, False, False], [0.9, 0, 0, 0, 0])) == 3
    assert choose_object(remembers, by_hand([True, False, False, True, False], [0.9, 0, 0, 0.5, 0])) == 2
    assert choose_object(remembers, by_hand([True, False, True, True, False], [0.9, 0, 0.3, 0.5, 0])) == 1
    assert choose_object(remembers, remembers) is None
    assert choose_object(by_hand([True] + [False] * 4, [0.9, 0, 0, 0, 0]), by_hand([False] * 5, [0.0] * 5)) is None
    assert count_line(remembers, by_hand([True, False, True, False, True], [0.9, 0, 0.5, 0, 0.9])) == (
        'hidden objects found: with memory 3 of 3, without 1 of 3')


def test_boxes_turn_by_hand() -> None:
    quarter = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 1], [0, 0, 0, 1]])
    turned = moved_boxes(BoxSet([[3.0, 4, 5, *SIZE, 0.5]], [1], [0.7]), quarter)
    assert turned is not None and turned.scores is not None and moved_boxes(None, quarter) is None
    np.testing.assert_allclose(turned.boxes, [[6, 23, 6, *SIZE, 0.5 + np.pi / 2]])
    assert turned.scores.tolist() == [0.7]


# -- a drive by hand: the ego goes 2 m along x a frame; a car stands at x 10, y 3 of the world, seen in frame 0 alone -----
def frame(index: int, points: int, predictions: list[list[float]]) -> MemoryFrame:
    """Predictions: x, y in the world, score."""
    pose = np.eye(4)
    pose[0, 3] = 2.0 * index
    instance = dict(instance_token='car', bbox_3d=[10.0 - 2 * index, 3.0, 0.75, *SIZE, 0.0], bbox_label_3d=CATEGORIES['car'],
                    num_lidar_pts=points, num_radar_pts=0)
    lidar = dict(timestamp=100 + 0.5 * index, lidar2ego=np.eye(4).tolist())
    info = dict(token=f'{index}', scene_token='scene', scene_name='yard', frame_index=index, ego2global=pose.tolist(),
                global_from_lidar=pose.tolist(), lidar_points=lidar, instances=[instance])
    boxes = BoxSet([[x - 2 * index, y, 0, *SIZE, 0.0, 0.0, 0.0] for x, y, _ in predictions], [0] * len(predictions),
                   [score for _, _, score in predictions])
    truth = BoxSet([[10.0 - 2 * index, 3.0, 0, *SIZE, 0.0]], [0])
    cloud = np.array([[12.0 - 2 * index, 5.0, 0.5, 0, 0]])
    return MemoryFrame(info, cloud, truth.keep(np.array([points > 0])), boxes, None, '', None, {})


def drive(*found: list[list[float]]) -> list[MemoryFrame]:
    return [frame(index, 6 if index == 0 else 0, predictions) for index, predictions in enumerate(found)]


REMEMBERED = drive([[10, 3, 0.9]], [[10, 3, 0.8]], [[10.5, 3, 0.7], [0, -9, 0.1]])
FORGOTTEN = drive([[10, 3, 0.9]], [[0, -9, 0.3]], [[10, 20, 0.3]])


def test_counts_are_those_of_the_metric() -> None:
    remembers, forgets = (outcome_of(frames, CLASSES, CATEGORIES, 25.0) for frames in (REMEMBERED, FORGOTTEN))
    assert remembers.detected.tolist() == [True] * 3 and forgets.detected.tolist() == [True, False, False]
    assert remembers.hidden.tolist() == [False, True, True]
    assert count_line(remembers, forgets) == 'hidden objects found: with memory 2 of 2, without 0 of 2'
    assert choose_object(remembers, forgets) == 2
    np.testing.assert_allclose(remembers.finder_m[2, :2], [10.5, 3])
    from mmdet3d.structures import LiDARInstance3DBoxes
    values = evaluate_memory([one.info for one in REMEMBERED], [dict(
        bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(one.predictions.boxes).float(), box_dim=9),
        scores_3d=torch.from_numpy(one.predictions.scores), labels_3d=torch.from_numpy(one.predictions.labels))
        for one in REMEMBERED], CLASSES, CATEGORIES, range_m=25.0)
    assert (values['recall_0pts_seen'], values['num_0pts_seen'], values['score_threshold']) == (1.0, 2, remembers.threshold)


def near(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - color).sum(axis=2) < 60


def test_the_sheet_shows_the_object_where_it_is(tmp_path: Path) -> None:
    remembers, forgets = (outcome_of(frames, CLASSES, CATEGORIES, 25.0) for frames in (REMEMBERED, FORGOTTEN))
    model: Any = SimpleNamespace(temporal=None)
    words = draw_hidden(model, REMEMBERED, FORGOTTEN, remembers, forgets, 2, CLASSES, tmp_path / 'hidden.png')
    assert words == 'yard, frame 2: car without a point, seen last 1.0 s before; found with memory (0.70), not without'
    sheet = read_rgb(tmp_path / 'hidden.png')
    top = HEADER_ROW_PX + PANEL_TITLE_PX
    assert sheet.shape == (top + 400, 3 * 400 + 2 * GAP_PX, 3)
    then, without, with_memory = (sheet[top:, left:left + 400] for left in (0, 406, 812))
    # 12 m are 400 px around the car, whose sides lie 1 m above and below the middle: rows 167 and 233
    for panel in (then, without, with_memory):
        assert near(panel, MARK)[165:169, 210:255].all(axis=1).any()
        assert (panel[132:135, 265:268] != BACKGROUND).any()  # the point, 2 m to the right of the middle and 2 m above
    assert not near(without, PREDICTION).any()
    assert near(with_memory, PREDICTION)[150:250, 280:285].any()  # its front lies half a metre farther, at 2.5 m


# -- end to end -----------------------------------------------------------------------------------------------------------
def test_the_demo_draws_and_counts(copying: tuple[Path, Path], repo: Path, nano_infos_root: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    """On the nano world, whose detector of random weights finds something or not."""
    pictures = tmp_path / 'pictures'
    one_scene = ['test_dataloader.dataset.indices=5']
    Demo(repo, tmp_path, nano_infos_root, 'nano', one_scene, str(copying[0]), None, nano_infos_root).draw(copying[1], pictures)
    made = {path.name for path in pictures.iterdir()} - {'hidden.png'}
    assert made == {*[f'frame2_{name}.png' for name in ('bev', 'cameras', 'gate', 'overview')], 'scene.gif', 'scene_sheet.png'}
    said = capsys.readouterr().out
    counts = re.search(r'hidden objects found: with memory (\d+) of (\d+), without (\d+) of (\d+)', said)
    assert counts is not None
    found, total, alone, same = map(int, counts.groups())
    assert 0 < total == same and found <= total and alone <= total
    assert ('there is none to draw' in said) != (pictures / 'hidden.png').exists()


def test_the_sheet_has_what_the_cell_reads(copying: tuple[Path, Path], tmp_path: Path) -> None:
    cfg = prepare_config(copying[0])
    model, dataset = load_detector(cfg, str(copying[1])), DATASETS.build(cfg.test_dataloader.dataset)
    frames = list(stream_memory(model, dataset, find_scene(dataset, None)[1]))
    names, categories = dataset.metainfo['classes'], dataset.metainfo['categories']
    outcome = outcome_of(frames, names, categories, 25.0)
    row = int(np.flatnonzero(outcome.hidden & (outcome.truth.frame == 3))[0])  # as if found in its place
    outcome = replace(outcome, finder_m=outcome.truth.centre_m, threshold=1.0)
    draw_hidden(model, frames, frames, outcome, outcome, row, names, tmp_path / 'hidden.png')
    sheet = read_rgb(tmp_path / 'hidden.png')
    # below three large crops: now, two slots, the world's map, null
    assert sheet.shape[1] == 5 * CROP_PX + 4 * GAP_PX
    assert sheet.shape[0] == 2 * (HEADER_ROW_PX + PANEL_TITLE_PX) + 400 + GAP_PX + CROP_PX + BAR_PX
    assert near(sheet[-3:-2], MARK).sum() == pytest.approx(CROP_PX, abs=3)
