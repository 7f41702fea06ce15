"""Demo, what a copying memory reads. In: CopyMemory, a frame, a cell. Out: RGB of the stored frames moved into the present.

Only what is drawn comes from the truth; weights and gate are those of the detector's own step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.memfusion.memory import CopyMemory
from projects.memfusion.visualization import BoxSet
from projects.memfusion.visualization.bev import BEVCanvas
from projects.memfusion.visualization.reads import Panel, draw_crop, draw_panels
from projects.memfusion.visualization.style import BACKGROUND

from .attention_pictures import QueryCell, cell_size_m, choose_cell
from .hidden_objects import HiddenObjects, finders
from .recorded_steps import MemoryFrame

HALF_M = 6.0
CROP_PX = 300


@dataclass(frozen=True)
class CellReads:
    """What one cell reads: the slots that hold a frame, newest first.

    Attributes:
        weights: (N,) of the stored frames; ages_s: (N,) how old they are.
        points: of each, moved into the present, (P, D) or None.
        world: what the world's map gets; None without long-term memory.
        null: what nothing gets.
        gate: how far the gate is open there, times all but null's share.
    """

    weights: np.ndarray
    ages_s: np.ndarray
    points: list[np.ndarray | None]
    world: float | None
    null: float
    gate: float


def cell_reads(temporal: CopyMemory, seen: MemoryFrame, row: int, column: int) -> CellReads:
    """Where the cell looks in the frame's own step."""
    step = seen.step
    assert step is not None and seen.gate is not None
    memory = temporal.align(step.before, step.frames)
    weights = temporal.attention(step.features, memory, step.frames)[0, :, row, column].float().cpu().numpy()
    world = float(weights[0]) if temporal.long_term else None
    slots = [slot for slot in reversed(range(temporal.num_slots)) if bool(memory.slot_valid[0, slot])]
    times_s = memory.slot_time_s[0].tolist()
    cur_from_slot = temporal.cur_from(memory.slot_global_from_bev, step.frames)[0].cpu().numpy()
    moves = temporal.alignment == 'network'
    points = []
    for slot in slots:
        stored = seen.points_at.get(times_s[slot])
        points.append(moved(stored, cur_from_slot[slot]) if moves and stored is not None else stored)
    return CellReads(weights[[slot - temporal.num_slots - 1 for slot in slots]],
                     float(step.frames.time_s[0]) - np.array([times_s[slot] for slot in slots]),
                     points, world, float(weights[-1]), float(seen.gate[row, column]))


def moved(points: np.ndarray, dst_from_src: np.ndarray) -> np.ndarray:
    """(P, 3+) points in another frame; what else they carry stays."""
    place = points[:, :3] @ dst_from_src[:3, :3].T + dst_from_src[:3, 3]
    return np.concatenate([place, points[:, 3:]], axis=1)


def reads_picture(reads: CellReads, seen: MemoryFrame, cell: QueryCell, marked: BoxSet | None, cell_m: tuple[float, float],
                  names: Sequence[str], score_thr: float, header: Sequence[str] = ()) -> np.ndarray:
    """The present with what was found, what the cell reads of every stored frame, and what null gets.

    Args:
        marked: what is hidden in the present, outlined in every panel.
    """
    found = seen.predictions.above(score_thr)
    present = draw_crop(seen.points, cell.center_m, HALF_M, seen.truth, found, names, marked, cell_m, CROP_PX)
    panels = [Panel(f'now: {100 * reads.gate:.0f} % of the cell is remembered', present)]
    for weight, age_s, points in zip(reads.weights, reads.ages_s, reads.points):
        crop = draw_crop(points, cell.center_m, HALF_M, None, None, names, marked, cell_m, CROP_PX)
        panels.append(Panel(f'{age_s:.2f} s ago: {100 * weight:.0f} % of the read', crop, float(weight)))
    blank = np.full_like(present, BACKGROUND)
    if reads.world is not None:
        panels.append(Panel(f'older: {100 * reads.world:.0f} % of the read', blank, reads.world))
    return draw_panels([*panels, Panel(f'nothing (null): {100 * reads.null:.0f} %', blank, reads.null)], header)


@dataclass(frozen=True)
class FoundObject:
    """A hidden object that was found: its row among the frame's hidden ones, its finder's row, keyframes since it was seen."""

    row: int
    prediction: int
    gap_frames: int


def best_found(hidden: HiddenObjects, seen: MemoryFrame, score_thr: float, range_m: Sequence[float]) -> FoundObject | None:
    """Of the frame's hidden objects that were found by a box of `score_thr` or more on the map the one that is hidden longest;
    of equals the surest. None where none was found."""
    found, boxes = finders(hidden, seen.truth, seen.predictions), seen.predictions
    scores = np.ones(len(boxes)) if boxes.scores is None else boxes.scores
    shown = (scores >= score_thr) & BEVCanvas.of_range(range_m).contains(boxes.boxes[:, :2])
    rows = [row for row in range(len(hidden)) if found[row] >= 0 and shown[found[row]]]
    if not rows:
        return None
    best = max(rows, key=lambda row: (int(hidden.gap_frames[row]), float(scores[found[row]])))
    return FoundObject(best, int(found[best]), int(hidden.gap_frames[best]))


def copying_picture(temporal: CopyMemory, seen: MemoryFrame, hidden: HiddenObjects, cell_m: tuple[float, float] | None,
                    score_thr: float, names: Sequence[str], title: str) -> tuple[np.ndarray, str]:
    """The picture, and a line that says which cell it is of: the one asked for, else that of the hidden object that was found,
    else the one that `choose_cell` takes."""
    assert seen.gate is not None
    range_m, map_shape = temporal.point_cloud_range, (seen.gate.shape[-2], seen.gate.shape[-1])
    best = best_found(hidden, seen, score_thr, range_m) if cell_m is None else None
    if best is not None:
        place = seen.predictions.boxes[best.prediction, :2]
        cell_m = (float(place[0]), float(place[1]))
    cell = choose_cell(seen, cell_m, range_m, map_shape, score_thr, names)
    reason = cell.reason if best is None else in_words(best, hidden, seen.predictions, names)
    x, y = cell.center_m
    header = [f'{title}: what the cell at x {x:.1f} m, y {y:.1f} m reads (row {cell.row}, column {cell.column})', reason]
    if temporal.alignment == 'none':
        header.append("align='none': the network does not know that the ego moved")
    reads = cell_reads(temporal, seen, cell.row, cell.column)
    picture = reads_picture(reads, seen, cell, hidden.boxes, cell_size_m(range_m, map_shape), names, score_thr, header)
    return picture, f'{header[0]}; {reason}'


def in_words(found: FoundObject, hidden: HiddenObjects, predictions: BoxSet, names: Sequence[str]) -> str:
    """What was found."""
    name = 'box' if hidden.boxes.labels is None else names[int(hidden.boxes.labels[found.row])]
    score = '' if predictions.scores is None else f' with {predictions.scores[found.prediction]:.2f}'
    return f'hidden {name}: no point now, last seen {hidden.gap_s[found.row]:.1f} s ago, found{score}'
