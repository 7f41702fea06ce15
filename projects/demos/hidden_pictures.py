"""Demo, hidden objects found again. In: streamed scenes, with history and without. Out: what each found, one sheet of pictures.

Both are the same weights; each is read at its own score threshold, of one false positive a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from projects.memfusion.memory import CopyMemory
from projects.memfusion.metrics.box_tables import Bools, Floats, TruthTable
from projects.memfusion.metrics.build_tables import OfficialFilter, build_predictions, build_truth
from projects.memfusion.metrics.matching import candidate_pairs
from projects.memfusion.metrics.memory_recall import find_truth
from projects.memfusion.structures.box_scores import SEEN
from projects.memfusion.visualization import BoxSet, write_png
from projects.memfusion.visualization.reads import Panel, draw_crop, draw_panels, stack_rows

from .attention_pictures import cell_size_m, choose_cell
from .hidden_objects import MATCH_M, box_of
from .read_pictures import HALF_M, cell_reads, moved, reads_picture
from .recorded_steps import MemoryFrame, stream_memory
from .streaming import scenes_of

SEEN_S = 2.0
_LARGE_PX = 400


@dataclass(frozen=True)
class Outcome:
    """What one way of testing found of the truth near the ego; n rows.

    Attributes:
        truth: the same whichever way is tested.
        detected: (n,) found by a prediction of at least `threshold`.
        score: (n,) of that prediction, 0 where there is none.
        finder_m: (n, 3) its middle, global frame.
        threshold: the score at one false positive a frame.
    """

    truth: TruthTable
    detected: Bools
    score: Floats
    finder_m: Floats
    threshold: float

    @property
    def hidden(self) -> Bools:
        """(n,) no LiDAR point now, and one at most SEEN_S ago."""
        return (self.truth.num_lidar_pts == 0) & self.truth.seen


def find_hidden(model: Any, dataset: Any, range_m: float, path: Path) -> str:
    """Tests all scenes with history and without, and draws a hidden object that memory alone finds; lines that say so.

    Args:
        model: with a memory, in streaming tests.
        range_m: from the ego, what counts.
        path: of the sheet; not there afterwards where memory alone finds nothing.
    """
    path.unlink(missing_ok=True)
    scenes = scenes_of(dataset).values()
    remembered = [frame for positions in scenes for frame in stream_memory(model, dataset, positions)]
    forgotten = [replace(frame, step=None, points_at={}) for positions in scenes
                 for frame in stream_memory(model, dataset, positions, forgets=True)]
    names, categories = dataset.metainfo['classes'], dataset.metainfo['categories']
    remembers, forgets = (outcome_of(frames, names, categories, range_m) for frames in (remembered, forgotten))
    row, counts = choose_object(remembers, forgets), count_line(remembers, forgets)
    if row is None:
        return f'{counts}; memory alone finds none of them, so there is none to draw'
    return f'{counts}\n{path}: {draw_hidden(model, remembered, forgotten, remembers, forgets, row, names, path)}'


def outcome_of(frames: Sequence[MemoryFrame], classes: Sequence[str], categories: Mapping[str, int], range_m: float) -> Outcome:
    """Who found whom, as MemoryMetric(range_m=range_m).

    Args:
        frames: of whole scenes, with truth.
        classes: of the detector; categories: of the info file, `{name: label}`.
    """
    infos, official = [frame.info for frame in frames], OfficialFilter(classes, range_m, {})
    truth = build_truth(infos, classes, categories, SEEN_S, official)
    predicted = build_predictions(infos, [_as_instances(frame.predictions) for frame in frames], official)
    finds = find_truth(truth, predicted, candidate_pairs(truth, predicted, MATCH_M), MATCH_M, len(frames), 1.0)
    score, finder_m = np.zeros(len(truth.frame)), np.zeros((len(truth.frame), 3))
    counts = (finds.found >= 0) & (predicted.score >= finds.threshold)
    score[finds.found[counts]], finder_m[finds.found[counts]] = predicted.score[counts], predicted.centre_m[counts]
    return Outcome(truth, finds.detected, score, finder_m, finds.threshold)


def _as_instances(boxes: BoxSet) -> dict[str, Any]:
    values = dict(bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(boxes.boxes).float(), box_dim=boxes.boxes.shape[1]),
                  scores_3d=torch.from_numpy(boxes.scores), labels_3d=torch.from_numpy(boxes.labels))
    return values if boxes.seen is None else values | {SEEN: torch.from_numpy(boxes.seen)}


def count_line(remembers: Outcome, forgets: Outcome) -> str:
    """How many hidden objects each found."""
    total = int(remembers.hidden.sum())
    first, second = (int((way.detected & way.hidden).sum()) for way in (remembers, forgets))
    return f'hidden objects found: with memory {first} of {total}, without {second} of {total}'


def choose_object(remembers: Outcome, forgets: Outcome) -> int | None:
    """Row of the hidden truth that memory alone finds and that was seen longest ago, of equals the surest; None for none."""
    facts = remembers.truth.hidden
    assert facts is not None
    rows = np.flatnonzero(remembers.hidden & remembers.detected & ~forgets.detected)
    return int(rows[np.lexsort((remembers.score[rows], facts.gap_frames[rows]))[-1]]) if len(rows) else None


def draw_hidden(model: Any, remembered: Sequence[MemoryFrame], forgotten: Sequence[MemoryFrame], remembers: Outcome,
                forgets: Outcome, row: int, names: Sequence[str], path: Path) -> str:
    """Writes the sheet of one hidden object: where it was seen last, the present without memory and with it; below, what the
    object's cell reads where the memory is CopyMemory. Returns a line that says what it shows."""
    facts, position, label = remembers.truth.hidden, int(remembers.truth.frame[row]), int(remembers.truth.label[row])
    assert facts is not None
    now, then = remembered[position], remembered[position - int(facts.gap_frames[row])]
    instance = _instance_at(now.info, remembers.truth.centre_m[row])
    box = BoxSet([box_of(instance)], [label])
    before = next(one for one in then.info['instances'] if one['instance_token'] == instance['instance_token'])
    now_from_then = _lidar_from_global(now.info) @ np.asarray(then.info['global_from_lidar'], dtype=np.float64)
    center_m, index = box.boxes[0, :2], now.info['frame_index']
    panels = [
        Panel(f"frame {then.info['frame_index']}: seen last, moved into frame {index}", draw_crop(
            moved(then.points, now_from_then), center_m, HALF_M, moved_boxes(then.truth, now_from_then),
            moved_boxes(then.predictions.above(remembers.threshold), now_from_then), names,
            moved_boxes(BoxSet([box_of(before)], [label]), now_from_then), size_px=_LARGE_PX))]
    panels += [
        Panel(f'frame {index} {how} memory', draw_crop(
            now.points, center_m, HALF_M, now.truth, frame.predictions.above(way.threshold), names, box, size_px=_LARGE_PX))
        for how, frame, way in (('without', forgotten[position], forgets), ('with', now, remembers))]
    words = (f"{now.info['scene_name']}, frame {index}: {names[label]} without a point, seen last "
             f'{facts.gap_us[row] / 1e6:.1f} s before; found with memory ({remembers.score[row]:.2f}), not without')
    rows = [draw_panels(panels, [words])]
    if isinstance(model.temporal, CopyMemory):
        rows.append(_reads(model.temporal, now, _place(now.info, remembers.finder_m[row]), box, names, remembers.threshold))
    write_png(path, stack_rows(rows))
    return words


def _reads(temporal: CopyMemory, now: MemoryFrame, place: np.ndarray, box: BoxSet, names: Sequence[str],
           threshold: float) -> np.ndarray:
    assert now.gate is not None
    range_m, shape = temporal.point_cloud_range, (now.gate.shape[-2], now.gate.shape[-1])
    cell = choose_cell(now, (float(place[0]), float(place[1])), range_m, shape, threshold, names)
    reads = cell_reads(temporal, now, cell.row, cell.column)
    header = [f'what its cell (row {cell.row}, column {cell.column}) reads of the stored frames, moved into the present']
    return reads_picture(reads, now, cell, box, cell_size_m(range_m, shape), names, threshold, header)


def _instance_at(info: Mapping[str, Any], centre_m: Floats) -> Mapping[str, Any]:
    """The instance whose middle lies at `centre_m` (3,), global frame."""
    middles = np.array([instance['bbox_3d'][:3] for instance in info['instances']], dtype=np.float64)
    return info['instances'][int(np.linalg.norm(middles - _place(info, centre_m), axis=1).argmin())]


def _place(info: Mapping[str, Any], global_m: Floats) -> Floats:
    """(3,) global frame -> the frame's LiDAR coordinates."""
    lidar_from_global = _lidar_from_global(info)
    return lidar_from_global[:3, :3] @ global_m + lidar_from_global[:3, 3]


def _lidar_from_global(info: Mapping[str, Any]) -> np.ndarray:
    return np.linalg.inv(np.asarray(info['global_from_lidar'], dtype=np.float64))


def moved_boxes(boxes: BoxSet | None, dst_from_src: np.ndarray) -> BoxSet | None:
    """Boxes in another frame that is level with theirs."""
    if boxes is None:
        return None
    turned = boxes.boxes.copy()
    turned[:, :3] = boxes.boxes[:, :3] @ dst_from_src[:3, :3].T + dst_from_src[:3, 3]
    turned[:, 6] += np.arctan2(dst_from_src[1, 0], dst_from_src[0, 0])
    return BoxSet(turned, boxes.labels, boxes.scores, boxes.seen)
