"""Unit and end to end: pictures of a memory show what the state holds, at the places where it lies."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from projects.demos.attention_pictures import cell_size_m, choose_cell, places_in_slots
from projects.demos.memory_pictures import build_remembering, draw_memory, usage_of
from projects.demos.recorded_steps import MemoryFrame, stream_memory
from projects.demos.streaming import find_scene
from projects.memfusion.runtime import UserError, init_registry, prepare_config
from projects.memfusion.structures import MemorySizes, MemoryState
from projects.memfusion.visualization import BoxSet, MemoryUsage, StoredFrame, draw_attention, draw_memory_usage, mark_cell
from projects.memfusion.visualization.image_files import read_rgb
from projects.memfusion.visualization.memory import MARK, draw_stored_frame
from projects.memfusion.visualization.memory_usage import memory_usage_figure

RANGE_M = (-10.0, -10.0, -5.0, 10.0, 10.0, 3.0)


def pose(x: float, y: float, yaw_deg: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, 1.8], [0, 0, 0, 1]])


# -- where a place lies in a stored grid ------------------------------------------------------------------------------
def test_place_in_stored_frames_by_hand() -> None:
    # The ego stands at (10, 20) and looks along +y: (3, 4) of its frame is (-4, 3) away, at (6, 23).
    slots = np.stack([pose(4, 20, 0), pose(4, 20, 180), pose(10, 20, 90)])
    np.testing.assert_allclose(places_in_slots(np.array([3.0, 4.0]), pose(10, 20, 90), slots), [[2, 3], [-2, -3], [3, 4]],
                               atol=1e-12)


# -- pixels: 5 per metre, the current frame is 200 px, panels 100 px below titles of 24 px, gaps of 6 px --------------
def stored(row: int, column: int, affinity: float, mark_m: tuple[float, float] = (0.0, 0.0)) -> StoredFrame:
    values = np.zeros((4, 4))
    values[row, column] = affinity
    return StoredFrame(values, 0.5, np.array(mark_m))


def test_each_slot_is_at_its_place_and_all_share_one_scale() -> None:
    current = np.full((200, 200, 3), 90, dtype=np.uint8)
    image = draw_attention(current, [stored(3, 0, 0.2), stored(0, 3, 0.4), stored(0, 0, 0.1)], RANGE_M, ['one', 'two'], 100)
    assert (image[2 * 28:2 * 28 + 200, :200] == 90).all()
    lefts, tops = [206, 312, 206], [56 + 24, 56 + 24, 56 + 24 + 130]  # 130: a panel and a gap
    corners = [(12, 12), (87, 87), (87, 12)]  # row and column of the hot cells: y is up
    brightness = np.array([[int(image[top + y, left + x].astype(int).sum()) for y, x in [*corners, (12, 87)]]
                           for left, top in zip(lefts, tops)])
    hot = brightness.argmax(axis=1)
    assert hot.tolist() == [0, 1, 2]
    assert brightness[1, 1] > brightness[0, 0] > brightness[2, 2] > 60  # 0.4, 0.2, 0.1 on one scale
    brightness[np.arange(3), hot] = 0
    assert brightness.max() < 30


def near(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - color).sum(axis=2) < 40


def test_the_cross_is_at_the_place() -> None:
    grid = draw_stored_frame(stored(0, 0, 0.3, (5.0, -5.0)), RANGE_M, 0.3, 100)[24:]
    found = np.argwhere(near(grid, MARK))  # (5, -5) m is (15, 15) m from the corner x_min, y_max: pixel 74.5
    np.testing.assert_allclose((found.min(axis=0) + found.max(axis=0)) / 2, [74.5, 74.5], atol=1)
    assert near(grid, MARK)[74 + 11, 74 + 11] and near(grid, MARK)[74 - 11, 74 + 11] and not near(grid, MARK)[74, 74]
    outside = near(draw_stored_frame(stored(0, 0, 0.3, (10.1, 0.0)), RANGE_M, 0.3, 100)[24:], MARK)
    assert not outside[:80].any()


def test_marked_cell_is_outlined() -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    mark_cell(image, RANGE_M, np.array([2.5, 7.5]), (5.0, 5.0))  # columns 100 to 150, rows 0 to 50
    marked = near(image, MARK)
    assert marked[25, 99:102].any() and marked[25, 148:152].any() and marked[48:52, 125].any()
    assert not image[10:40, 110:140].any()
    assert not image[120:].any()


# -- usage ------------------------------------------------------------------------------------------------------------
def filled_state(long_term: int) -> MemoryState:
    sizes = MemorySizes(map_shape=(2, 3), key_dim=4, value_dim=5, hidden_dim=2, num_slots=3, num_agents=2, long_term=long_term)
    state = MemoryState.empty(1, sizes, torch.zeros(1))
    cells = torch.zeros(1, 3, 2, 3, dtype=torch.bool)
    cells[0, :2] = True  # the first slot is empty, whatever its cells say
    cells[0, 2, 0, :2] = True
    usage = torch.zeros(1, 3, 2, 3)
    usage[0, 1] = 3.0
    usage[0, 2, 0, 0] = 1.0
    return replace(state, slot_valid=torch.tensor([[False, True, True]]), cell_valid=cells, usage=usage,
                   life=torch.tensor([[0.0, 4.0, 1.0]]))


def test_usage_by_hand() -> None:
    state = filled_state(long_term=4)
    state = replace(
        state, long_valid=torch.tensor([[True, False, True, True]]), long_usage=torch.tensor([[2.0, 9.0, 3.0, 0.0]]),
        long_life=torch.tensor([[4.0, 0.0, 2.0, 0.0]]))
    usage = usage_of(state, 7)
    assert (usage.frame, usage.working, usage.long_term, usage.working_cap, usage.long_term_cap) == (7, 6 + 2, 3, 18, 4)
    # an element is key, shrinkage, selection (not of prototypes), two agents' values, 4 bytes each
    assert usage.filled_bytes == 8 * 4 * (4 + 1 + 4 + 10) + 3 * 4 * (4 + 1 + 10)
    assert usage.held_bytes == state.num_bytes
    assert usage.slot_usage is not None
    np.testing.assert_allclose(usage.slot_usage, [0.5, 0.75, np.nan])  # newest first: 1 / 2 cells, 3 / 4 reads, empty
    assert usage.long_usage == pytest.approx((2 / 4 + 3 / 2) / 2)  # the element that no read has seen does not count


def test_usage_without_long_term_memory() -> None:
    usage = usage_of(filled_state(long_term=0), 0)
    assert usage.slot_usage is None and usage.long_term == usage.long_term_cap == 0 and usage.working == 8


def test_chart_shows_the_numbers() -> None:
    rows = [MemoryUsage(0, 10, 0, 40, 20, 2**19, 2**20, np.array([np.nan, np.nan]), float('nan')),
            MemoryUsage(1, 30, 5, 40, 20, 2**20, 2**20, np.array([np.nan, 0.25]), 0.5)]
    figure = memory_usage_figure(rows, 'scene')
    axes: Any = figure.axes  # matplotlib's types are wider than what it gives
    elements, held, used = axes[:3]
    working, long_term = elements.containers
    assert [bar.get_height() for bar in working] == [10, 30]
    assert [(bar.get_y(), bar.get_height()) for bar in long_term] == [(10, 0), (30, 5)]
    assert [line.get_ydata()[0] for line in elements.lines] == [40, 60]
    assert [bar.get_height() for bar in held.containers[0]] == [0.5, 1.0]
    assert held.lines[0].get_ydata().tolist() == [1.0, 1.0]
    # the newest slot was never read and is left out
    np.testing.assert_array_equal(used.images[0].get_array().filled(np.nan), [[np.nan, 0.25], [np.nan, 0.5]])
    assert [label.get_text() for label in used.get_yticklabels()] == ['slot of age 1', 'long-term']
    off = memory_usage_figure([replace(row, slot_usage=None, long_term_cap=0) for row in rows]).axes
    assert not off[2].images and 'not counted' in off[2].texts[0].get_text() and len(off[0].containers) == 1
    assert draw_memory_usage(rows)[..., 0].shape == (1000, 1200)
    with pytest.raises(ValueError, match='at least one frame'):
        memory_usage_figure([])


# -- which cell -------------------------------------------------------------------------------------------------------
def test_choice_of_the_cell() -> None:
    seen: Any = SimpleNamespace(
        gate_name='predicted occupancy',
        points=np.tile([4.0, 4.0, 0.5], (6, 1)), gate=np.eye(4)[[1, 0, 2, 3]] * [[1], [2], [1], [1]],
        predictions=BoxSet([[4.0, 4.0, 0, 2, 2, 2, 0], [-4.0, 6.0, 0, 2, 2, 2, 0], [99.0, 0, 0, 2, 2, 2, 0]], [0, 1, 0],
                           [0.9, 0.4, 0.99]))

    def cell(score_thr: float = 0.1, cell_m: tuple[float, float] | None = None) -> tuple[int, int, list[float], str]:
        chosen = choose_cell(seen, cell_m, RANGE_M, (4, 4), score_thr, ['car', 'bus'])
        return chosen.row, chosen.column, chosen.center_m.tolist(), chosen.reason

    assert cell()[:3] == (3, 1, [-2.5, 7.5]) and 'at most 5 points (bus 0.40, 0 points)' in cell()[3]
    assert cell(0.5)[:2] == (2, 2) and '(car 0.90, 6 points)' in cell(0.5)[3]  # the hidden one scores too little
    assert cell(cell_m=(9.9, -10.0))[:3] == (0, 3, [7.5, -7.5])
    seen.predictions = seen.predictions.above(0.95)  # only the one outside the grid
    assert cell()[:2] == (1, 0) and 'occupancy' in cell()[3]


# -- end to end -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def remembering(repo: Path, nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config with a narrow detector and long-term memory on the nano world, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('memory_pictures')
    config, checkpoint = folder / 'nano.py', folder / 'random.pth'
    config.write_text(f"""
_base_ = ['{repo}/configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py']
model = dict(
    pts_voxel_encoder=dict(feat_channels=[16]),
    pts_middle_encoder=dict(in_channels=16),
    pts_backbone=dict(in_channels=16, out_channels=[16, 16, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    pts_bbox_head=dict(in_channels=48, share_conv_channel=16, separate_head=dict(head_conv=16)),
    temporal=dict(network=dict(in_channels=48, key_dim=8, value_dim=16, hidden_dim=8, feature_dim=16),
                  max_mem_frames=4, long_term=dict(min_mem_frames=2, num_prototypes=64, max_elements=150)))
test_dataloader = dict(dataset=dict(data_root='{nano_infos_root}/'))
""")
    from mmdet3d.registry import MODELS
    init_registry()
    torch.manual_seed(0)
    model = MODELS.build(prepare_config(config).model)
    with torch.no_grad():
        model.temporal.log_locality.fill_(6.0)  # so that a cell looks where its place is, whatever random keys say
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint


@pytest.fixture(scope='module')
def streamed(remembering: tuple[Path, Path]) -> tuple[Any, Any, list[int], list[MemoryFrame]]:
    """The detector, the data set, and what the first scene gave."""
    from mmdet3d.registry import DATASETS
    config, checkpoint = remembering
    cfg = prepare_config(config)
    init_registry()
    model, dataset = build_remembering(cfg, str(checkpoint)), DATASETS.build(cfg.test_dataloader.dataset)
    _, positions = find_scene(dataset, None)
    return model, dataset, positions, list(stream_memory(model, dataset, positions))


def test_the_record_is_what_testing_does(streamed: tuple[Any, Any, list[int], list[MemoryFrame]]) -> None:
    from mmengine.dataset import pseudo_collate
    model, dataset, positions, frames = streamed
    assert 'step' not in vars(model)
    for number, (position, seen) in enumerate(zip(positions, frames)):
        with torch.no_grad():
            sample = model(**model.data_preprocessor(pseudo_collate([dataset[position]])), mode='predict')[0]
        np.testing.assert_array_equal(sample.pred_instances_3d.bboxes_3d.tensor.numpy(), seen.predictions.boxes)
        if number + 1 == len(positions):
            break  # the scene's state is let go
        state, usage = model.session[sample.scene_token].state, usage_of(seen.step.after, number)
        assert usage.working == int((state.cell_valid & state.slot_valid[..., None, None]).sum())
        assert (usage.working // 1024, usage.long_term) == [(1, 0), (2, 0), (3, 0), (2, 64)][number]
        assert set(seen.points_at) >= set(state.slot_time_s[state.slot_valid].tolist())


def test_a_cell_looks_where_the_cross_is(streamed: tuple[Any, Any, list[int], list[MemoryFrame]]) -> None:
    """The cross comes from poses alone; the affinity comes from the network's own geometry."""
    model, _, _, frames = streamed
    temporal, seen = model.temporal, frames[3]
    step = seen.step
    cell = choose_cell(seen, (3.0, -2.0), temporal.point_cloud_range, (32, 32), 0.1, [])
    memory = temporal.align(step.before, step.frames)
    affinity = temporal.attention(step.features.bev, memory, step.frames, (cell.row, cell.column))[0].numpy()
    places = places_in_slots(cell.center_m, step.frames.global_from_bev[0].numpy(), memory.slot_global_from_bev[0].numpy())
    width = cell_size_m(temporal.point_cloud_range, (32, 32))[0]
    slots = memory.slot_valid[0].nonzero()[:, 0].tolist()
    assert len(slots) == 3
    for slot in slots:
        row, column = np.unravel_index(affinity[slot].argmax(), (32, 32))
        hottest = -25.6 + (np.array([column, row]) + 0.5) * width
        assert np.abs(places[slot] - hottest).max() <= width / 2 + 1e-6
    assert np.abs(places[slots[0]] - cell.center_m).max() > 2 * width  # the ego moved in between


def test_command_line(remembering: tuple[Path, Path], repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location('visualize_memory', repo / 'tools' / 'visualize_memory.py')
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / 'mine.txt').write_text('kept')
    tool.main([*map(str, remembering), '--out', str(tmp_path), '--frame', '2', '--cell', '3', '-2'])
    made = {path.name for path in tmp_path.iterdir()} - {'mine.txt'}
    assert made == {*[f'gate_{i:02d}.png' for i in range(5)], 'attention_02.png', 'memory_usage.png', 'gate.gif',
                    'gate_sheet.png'}
    assert (tmp_path / 'mine.txt').read_text() == 'kept'
    # two stored frames: header of three lines, current frame of 840 px, one column of two panels, colour bar
    attention = read_rgb(tmp_path / 'attention_02.png')
    assert attention.shape == (3 * 28 + 2 * (24 + 420) + 6, 840 + 6 + 420 + 6 + 110, 3)
    for top in (3 * 28 + 24, 3 * 28 + 24 + 450):
        assert near(attention[top:top + 420, 846:1266], MARK).any()
    assert 'frame 5/5' in capsys.readouterr().out


@pytest.mark.parametrize('options, arguments, message', [
    ({'model.temporal': dict(type='ConvGRUFusion', _delete_=True)}, {}, 'ConvGRUFusion, which has no attention'),
    ({'model.temporal': None}, {}, 'has no model.temporal'),
    ({}, dict(scene='scene-9999'), 'scene-9999.* has no scene .*scene-0103'),
    ({}, dict(frame=5), 'has frames 0 to 4'),
    ({}, dict(frame=-1), 'has frames 0 to 4'),
    ({}, dict(cell_m=(25.6, 0.0)), 'outside the grid, x -25.6..25.6 m'),
])
def test_errors_say_what_is_wrong(remembering: tuple[Path, Path], tmp_path: Path, options: dict, arguments: dict,
                                  message: str) -> None:
    config, checkpoint = remembering
    with pytest.raises(UserError, match=message):
        draw_memory(prepare_config(config, options), str(checkpoint), tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists()
