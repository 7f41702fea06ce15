"""Demo, pictures of attention. In: a memory, a frame, a cell (metres, LiDAR frame). Out: RGB, the cell and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.memfusion.data.box_points_check import count_in_boxes
from projects.memfusion.memory import TemporalMemory
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.visualization import StoredFrame, draw_attention, draw_bev, mark_cell
from projects.memfusion.visualization.bev import BEVCanvas

from .recorded_steps import MemoryFrame

FEW_POINTS = 5
_PANEL_PX = 420


@dataclass(frozen=True)
class QueryCell:
    """A cell of the memory grid: row, column, x and y of its centre in metres, and why it was chosen."""

    row: int
    column: int
    center_m: np.ndarray
    reason: str


def attention_picture(temporal: TemporalMemory, seen: MemoryFrame, cell_m: tuple[float, float] | None, score_thr: float,
                      names: Sequence[str], title: str) -> tuple[np.ndarray, str]:
    """The picture, and a line that says which cell it is of."""
    step, range_m = seen.step, temporal.point_cloud_range
    assert step is not None and seen.gate is not None
    map_shape = (seen.gate.shape[-2], seen.gate.shape[-1])
    cell = choose_cell(seen, cell_m, range_m, map_shape, score_thr, names)
    memory = temporal.align(step.before, step.frames)
    affinity = temporal.attention(step.features.needed_bev, memory, step.frames, (cell.row, cell.column))[0].cpu().numpy()
    places = places_in_slots(cell.center_m, step.frames.global_from_bev[0].cpu().numpy(),
                             memory.slot_global_from_bev[0].cpu().numpy())
    now_s, times_s = float(step.frames.time_s[0]), memory.slot_time_s[0].tolist()
    stored = [StoredFrame(affinity[slot], now_s - times_s[slot], places[slot], seen.points_at.get(times_s[slot]))
              for slot in reversed(range(len(times_s))) if bool(memory.slot_valid[0, slot])]
    current = draw_bev(seen.points, range_m, seen.truth, seen.predictions.above(score_thr), names, title=f'{title}: now',
                       size_px=2 * _PANEL_PX)
    mark_cell(current, range_m, cell.center_m, cell_size_m(range_m, map_shape))
    x, y = cell.center_m
    header = [f'{title}: where the cell at x {x:.1f} m, y {y:.1f} m looks (row {cell.row}, column {cell.column})',
              f'cell: {cell.reason}', _legend(temporal, len(stored), bool(memory.long_valid[0].any()), float(affinity.sum()))]
    return draw_attention(current, stored, range_m, header, _PANEL_PX), f'{header[0]}; {header[1]}'


def _legend(temporal: TemporalMemory, num_stored: int, has_long_term: bool, share: float) -> str:
    parts = [f'stored frames: {num_stored}, newest first; cross: the same place there' if num_stored else
             'no frame is stored before this one']
    if has_long_term:
        parts.append(f'long-term memory got {100 * (1 - share):.0f} % of the read')
    if temporal.alignment == 'none':
        parts.append("align='none': the network does not know that the ego moved")
    elif temporal.alignment == 'loader':
        parts.append("align='loader': all frames lie in the current one's coordinates")
    return '; '.join(parts)


def choose_cell(seen: MemoryFrame, cell_m: tuple[float, float] | None, range_m: Sequence[float], map_shape: tuple[int, int],
                score_thr: float, names: Sequence[str]) -> QueryCell:
    """The cell that is asked for, or the most telling one.

    Without `cell_m` it is that of the strongest predicted box (score_thr or more) with at most FEW_POINTS points, for which
    memory is needed most; else of the strongest box; where nothing at all is predicted, the cell with the highest gate.
    """
    assert seen.gate is not None
    canvas = BEVCanvas.of_range(range_m)
    boxes = seen.predictions.keep(canvas.contains(seen.predictions.boxes[:, :2]))
    if cell_m is not None:
        place, reason = np.array(cell_m), 'the one asked for'
    elif len(boxes):
        scores = boxes.scores if boxes.scores is not None else np.ones(len(boxes))
        counts = count_in_boxes(seen.points, boxes.boxes, from_bottom=True)
        hidden = (counts <= FEW_POINTS) & (scores >= score_thr)
        best = int(np.argmax(np.where(hidden, scores, -1.0) if hidden.any() else scores))
        label = names[int(boxes.labels[best])] if boxes.labels is not None else 'box'
        place = boxes.boxes[best, :2]
        reason = (f'strongest predicted box{f" with at most {FEW_POINTS} points" if hidden.any() else ""} '
                  f'({label} {scores[best]:.2f}, {counts[best]} points)')
    else:
        row, column = divmod(int(seen.gate.argmax()), map_shape[1])
        return QueryCell(row, column, _center(row, column, range_m, map_shape),
                         f'highest {seen.gate_name} (no box is predicted in this frame)')
    width, height = cell_size_m(range_m, map_shape)
    column = min(int((place[0] - range_m[0]) / width), map_shape[1] - 1)
    row = min(int((place[1] - range_m[1]) / height), map_shape[0] - 1)
    return QueryCell(row, column, _center(row, column, range_m, map_shape), reason)


def check_cell(cell_m: tuple[float, float], range_m: Sequence[float]) -> None:
    """Raises UserError where the cell lies outside the grid."""
    if not BEVCanvas.of_range(range_m).contains(np.array(cell_m)):
        raise UserError(f'--cell {cell_m[0]:g} {cell_m[1]:g}: lies outside the grid, x {range_m[0]:g}..{range_m[3]:g} m, '
                        f'y {range_m[1]:g}..{range_m[4]:g} m')


def cell_size_m(range_m: Sequence[float], map_shape: tuple[int, int]) -> tuple[float, float]:
    """Size of a memory cell along x and y; range_m is a point_cloud_range, map_shape is (Hm, Wm)."""
    return (range_m[3] - range_m[0]) / map_shape[1], (range_m[4] - range_m[1]) / map_shape[0]


def _center(row: int, column: int, range_m: Sequence[float], map_shape: tuple[int, int]) -> np.ndarray:
    width, height = cell_size_m(range_m, map_shape)
    return np.array([range_m[0] + (column + 0.5) * width, range_m[1] + (row + 0.5) * height])


def places_in_slots(place_m: np.ndarray, global_from_cur: np.ndarray, global_from_slots: np.ndarray) -> np.ndarray:
    """Where a place at height 0 of the current frame lies in stored frames.

    Args:
        place_m: (2,); global_from_cur: (4, 4); global_from_slots: (F, 4, 4), float64.

    Returns:
        (F, 2) x, y in each stored frame's own coordinates, metres.
    """
    slot_from_cur = np.linalg.inv(global_from_slots) @ global_from_cur
    return (slot_from_cur @ np.array([*place_m, 0.0, 1.0]))[:, :2]
