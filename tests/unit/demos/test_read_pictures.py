"""Unit and end to end: pictures of what a copying memory reads, of hidden objects and who found them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from projects.demos.hidden_objects import HiddenObjects, box_of, finders, hidden_objects
from projects.demos.memory_pictures import build_remembering, draw_memory
from projects.demos.read_pictures import CROP_PX, best_found, cell_reads, in_words, moved
from projects.demos.recorded_steps import stream_memory
from projects.demos.streaming import find_scene
from projects.memfusion.runtime import UserError, prepare_config
from projects.memfusion.visualization import BoxSet
from projects.memfusion.visualization.image_files import read_rgb
from projects.memfusion.visualization.memory import GAP_PX, HEADER_ROW_PX, MARK, PANEL_TITLE_PX
from projects.memfusion.visualization.reads import BAR_PX, Panel, draw_crop, draw_panels, stack_rows
from projects.memfusion.visualization.style import BACKGROUND, FAINT, HIDDEN, PREDICTION, TRUTH

RANGE_M = (-10.0, -10.0, -5.0, 10.0, 10.0, 3.0)
CAR = [4.0, 2.0, 1.5, 0.0]  # length, width, height, yaw


def near(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - color).sum(axis=2) < 60


# -- a crop: 10 px per metre around (20, 5), so column 100 + 10 (x - 20), row 100 - 10 (y - 5) --------------------------
def test_crop_shows_things_where_they_are() -> None:
    points = np.array([[25.0, 5.0, 0.5, 0, 0], [31.0, 5.0, 0.5, 0, 0]])
    image = draw_crop(points, np.array([20.0, 5.0]), 10.0, BoxSet([[20, 11, 0, *CAR]], [0]),
                      BoxSet([[14, 5, 0, *CAR], [20, -1, 0, *CAR]], [0, 0], [0.9, 0.8], [0.7, 0.2]), ['car'],
                      BoxSet([[20, 5, 0, 1.0, 1.0, 1.0, 0.0]], [0]), (2.0, 2.0), 200)
    assert image.shape == (200, 200, 3)
    assert (image[99:101, 149:151] != BACKGROUND).any(axis=2).any()
    assert near(image, TRUTH)[29:32, 100:115].all(axis=1).any()  # its right side, at y 10, the front half
    assert near(image, PREDICTION)[108:112, 22:38].any() and not near(image, PREDICTION)[130:].any()
    assert near(image, HIDDEN)[168:172, 102:118].any() and not near(image, HIDDEN)[:120].any()
    assert near(image, MARK)[90, 95:105].all() and near(image, MARK)[95:105, 110].all()  # a metre to each side of the middle
    assert near(image, MARK)[94:96, 96:104].all(axis=1).any()  # the box of half a metre to each side


def test_panels_have_bars_as_wide_as_their_weights() -> None:
    blank = np.zeros((50, 80, 3), dtype=np.uint8)
    image = draw_panels([Panel('now', blank + 9), Panel('a', blank, 0.25), Panel('null', blank, 1.0)], ['one', 'two'])
    top = 2 * HEADER_ROW_PX + PANEL_TITLE_PX
    assert image.shape == (top + 50 + BAR_PX, 3 * 80 + 2 * GAP_PX, 3)
    assert (image[top:top + 50, :80] == 9).all()
    bar = image[top + 50 + BAR_PX // 2]
    assert (bar[:80] == BACKGROUND).all()
    second, third = bar[86:166], bar[172:]
    assert (second[:20] == MARK).all() and (second[20:] == FAINT).all() and (third == MARK).all()
    rows = stack_rows([image, draw_panels([Panel('alone', blank + 9)])])
    assert rows.shape == (image.shape[0] + GAP_PX + PANEL_TITLE_PX + 50, image.shape[1], 3)
    assert (rows[-1, :80] == 9).all() and (rows[-1, 80:] == BACKGROUND).all()


# -- what is hidden -----------------------------------------------------------------------------------------------------
def info(frame: int, *instances: tuple[str, int, int]) -> dict[str, Any]:
    """Instances: token, class of the file, points."""
    return dict(scene_token='s', frame_index=frame, lidar_points=dict(timestamp=100 + 0.5 * frame), instances=[
        dict(instance_token=token, bbox_label_3d=label, num_lidar_pts=points, bbox_3d=[2.0, frame, 1.0, *CAR])
        for token, label, points in instances])


def test_hidden_is_what_held_a_point_and_holds_none() -> None:
    infos = [info(0, ('a', 3, 7), ('b', 3, 0)), info(1, ('b', 3, 0), ('a', 3, 0), ('c', 5, 1)),
             info(2, ('c', 5, 0), ('a', 3, 0))]
    none, one, two = hidden_objects(infos, {3: 0})  # class 5 is not the detector's
    assert [len(none), len(one), len(two)] == [0, 1, 1]
    assert (one.gap_frames.tolist(), one.gap_s.tolist(), two.gap_frames.tolist()) == ([1], [0.5], [2])
    np.testing.assert_allclose(two.boxes.boxes, [[2, 2, 0.25, *CAR]])  # the middle lies at height 1, the bottom at 0.25
    assert box_of(infos[0]['instances'][0])[2] == 0.25
    unnamed = [{**infos[0], 'instances': [{**infos[0]['instances'][0]}]}, dict(infos[1])]
    del unnamed[0]['instances'][0]['instance_token']
    assert [len(hidden) for hidden in hidden_objects(unnamed, {3: 0})] == [0, 0]
    without = [{key: value for key, value in infos[0].items() if key != 'instances'}]
    assert [len(hidden) for hidden in hidden_objects(without, {3: 0})] == [0]


def some_hidden(*places: tuple[float, float], gaps: tuple[int, ...] = (1, 1)) -> HiddenObjects:
    boxes = BoxSet([[x, y, 0, *CAR] for x, y in places], [0] * len(places))
    return HiddenObjects(boxes, np.array(gaps), np.array(gaps) / 2)


def test_each_object_is_found_once_and_by_its_class() -> None:
    hidden = some_hidden((0, 0), (8, 0))
    predictions = BoxSet([[8.0, 0, 0, *CAR], [0.5, 0, 0, *CAR], [1, 0, 0, *CAR], [4, 0, 0, *CAR]], [1, 0, 0, 0],
                         [0.9, 0.3, 0.6, 0.8])
    assert finders(hidden, None, predictions).tolist() == [2, -1]  # the surest; (8, 0) is of another class
    visible = BoxSet([[1.2, 0, 0, *CAR]], [0])
    assert finders(hidden, visible, predictions).tolist() == [1, -1]  # the surest finds what is visible
    assert finders(some_hidden(gaps=()), None, predictions).tolist() == []
    assert finders(hidden, None, BoxSet(np.zeros((0, 7)), [], [])).tolist() == [-1, -1]


def test_the_object_hidden_longest_is_chosen() -> None:
    hidden = some_hidden((0, 0), (8, 0), (-8, 0), (-9.5, 9), gaps=(1, 3, 3, 9))
    seen: Any = SimpleNamespace(truth=None, predictions=BoxSet(
        [[0.0, 0, 0, *CAR], [8, 0, 0, *CAR], [-8, 0, 0, *CAR], [-10.5, 9, 0, *CAR]], [0] * 4, [0.9, 0.4, 0.5, 0.9]))
    best = best_found(hidden, seen, 0.1, RANGE_M)  # the last lies beyond the map
    assert best is not None and (best.row, best.prediction, best.gap_frames) == (2, 2, 3)
    assert in_words(best, hidden, seen.predictions, ['car']) == (
        'hidden car: no point now, last seen 1.5 s ago, found with 0.50')
    only = best_found(hidden, seen, 0.6, RANGE_M)
    assert only is not None and only.row == 0
    assert best_found(hidden, seen, 0.95, RANGE_M) is None


def test_points_move_by_hand() -> None:
    quarter = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 1], [0, 0, 0, 1]])
    np.testing.assert_allclose(moved(np.array([[3.0, 4, 5, 77]]), quarter), [[6, 23, 6, 77]])


# -- end to end ---------------------------------------------------------------------------------------------------------
def test_what_is_drawn_is_what_the_cell_reads(copying: tuple[Path, Path]) -> None:
    from mmdet3d.registry import DATASETS
    cfg = prepare_config(copying[0])
    model = build_remembering(cfg, str(copying[1]))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    _, positions = find_scene(dataset, None)
    frames = list(stream_memory(model, dataset, positions))
    temporal, first, last = model.temporal, frames[0], frames[4]
    assert first.gate is not None and not first.gate.any() and last.gate_name == 'share that is remembered'
    assert len(cell_reads(temporal, first, 3, 3).weights) == 0
    # row 16, column 20 of 32 cells of 1.6 m: x 6.4 to 8, y 0 to 1.6
    reads = cell_reads(temporal, last, 16, 20)
    np.testing.assert_allclose(reads.ages_s, [0.5, 1.0], atol=1e-3)
    assert reads.world is not None and reads.weights.sum() + reads.world + reads.null == pytest.approx(1, abs=1e-5)
    assert last.gate is not None and last.step is not None
    observed = bool(last.step.features.observed[0, 0, 16, 20])
    assert reads.gate == pytest.approx((1 - reads.null) * (0.1192 if observed else 0.8808), abs=1e-3)  # untrained gate
    now, then = (np.asarray(frame.info['global_from_lidar'], dtype=np.float64) for frame in (last, frames[3]))
    assert reads.points[0] is not None
    np.testing.assert_allclose(reads.points[0][:, :3], moved(frames[3].points, np.linalg.inv(now) @ then)[:, :3], atol=1e-3)
    # without history it is the detector on one frame, and the record ends
    alone = list(stream_memory(model, dataset, positions[:2], forgets=True))[1]
    assert alone.step is not None and not alone.step.before.slot_valid.any()
    assert alone.gate is not None and not alone.gate.any() and 'step' not in vars(model)


def test_pictures_of_a_copying_memory(copying: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = draw_memory(prepare_config(copying[0]), str(copying[1]), tmp_path, frame=3, cell_m=(7.0, 1.0))
    assert {path.name for path in paths} == {*[f'gate_{i:02d}.png' for i in range(5)], 'attention_03.png', 'gate.gif',
                                             'gate_sheet.png'}
    # now, two slots, the world's map, null; two lines above
    picture = read_rgb(tmp_path / 'attention_03.png')
    assert picture.shape == (2 * HEADER_ROW_PX + PANEL_TITLE_PX + CROP_PX + BAR_PX, 5 * CROP_PX + 4 * GAP_PX, 3)
    bars = [near(picture[-3:-2, left:left + CROP_PX], MARK).sum() for left in range(0, picture.shape[1], CROP_PX + GAP_PX)]
    assert bars[0] == 0 and sum(bars) == pytest.approx(CROP_PX, abs=3)
    said = capsys.readouterr().out
    assert 'frame 5/5' in said and '2 frames in memory' in said and 'row 16, column 20' in said and 'the one asked for' in said


def test_errors_are_those_of_every_memory(copying: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match='StackFusion, which has no attention .* CopyMemory'):
        draw_memory(prepare_config(copying[0], {'model.temporal': dict(type='StackFusion', _delete_=True)}), str(copying[1]),
                    tmp_path / 'out')
