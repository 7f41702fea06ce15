"""Demo, viewer. In: a detector, the frames of a scene. Out: what it gave: boxes, futures, maps of gate and memory, queries.

The scene runs as in testing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from projects.geometry.bev_grid import cell_positions, move_positions
from projects.geometry.rigid import invert_affine
from projects.memfusion.structures import MemoryState
from projects.memfusion.visualization import BoxSet, QueryRecord, QueryRecorder, records_queries

from ..memory_pictures import usage_of
from ..recorded_steps import gate_of, recorded_steps

_QUERIES = 8


@dataclass(frozen=True)
class DetectorFrame:
    """What a detector did in one frame.

    Attributes:
        token: of the frame's sample.
        boxes: all that it gave, LiDAR coordinates; None for a forecaster that gives none.
        futures: (n, M, S, 2) metres of n agents' M futures, global frame, and (n, M) their probabilities; None without them.
        maps: (Hm, Wm) by name, row 0 at y_min, LiDAR coordinates: `gate`, `memory_held`, `memory_usage`, as far as it has them.
        counts: numbers to be plotted, by name: elements in working and in long-term memory.
        range_m: point_cloud_range of the maps.
        class_names: of the boxes' labels.
        queries: what a query head did with the best of its queries; None for other heads.
    """

    token: str
    boxes: BoxSet | None
    futures: tuple[np.ndarray, np.ndarray] | None
    maps: dict[str, np.ndarray]
    counts: dict[str, float]
    range_m: Sequence[float]
    class_names: Sequence[str]
    queries: QueryRecord | None


def watch_scene(model: Any, dataset: Any, positions: Sequence[int]) -> Iterator[DetectorFrame]:
    """Runs the detector over one scene's frames in time order; those without an item, which forecasting knows, are left out.

    Args:
        positions: of the frames in the data set's infos.
    """
    items = {int(end): index for index, end in enumerate(dataset.clip_ends)}
    with ExitStack() as stack:
        steps = stack.enter_context(recorded_steps(model)) if hasattr(model, 'step') else []
        head = getattr(model, 'pts_bbox_head', None)
        recorder = stack.enter_context(QueryRecorder(head)) if records_queries(head) else None
        for number, position in enumerate(position for position in positions if position in items):
            steps.clear()
            with torch.no_grad():
                batch = model.data_preprocessor(pseudo_collate([dataset[items[position]]]))
                sample = model(**batch, mode='predict')[0]
            step = steps[-1] if steps else None  # of a window's steps, the last is the frame's own
            gate, _ = gate_of(getattr(model, 'temporal', None), sample, step)
            maps = {} if gate is None else dict(gate=gate)
            counts: dict[str, float] = {}
            if step is not None and hasattr(step.after, 'slot_global_from_bev'):
                maps |= memory_maps(step.after, model.grid.point_cloud_range)
                counts = _counts(step.after, number)
            queries = recorder.record(0, _QUERIES) if recorder is not None and recorder.has_call else None
            found, futures = sample.get('pred_instances_3d'), sample.get('pred_futures')
            yield DetectorFrame(
                dataset.get_data_info(position)['token'], None if found is None else BoxSet.from_instances(found),
                None if futures is None else (futures.global_xy.double().cpu().numpy(), futures.probabilities.cpu().numpy()),
                maps, counts, model.grid.point_cloud_range if maps else (), dataset.metainfo['classes'], queries)


def _counts(state: Any, number: int) -> dict[str, float]:
    if not isinstance(state, MemoryState):
        return dict(frames=float(state.slot_valid[0].sum()))
    usage = usage_of(state, number)
    return dict(working=float(usage.working), long_term=float(usage.long_term))


def memory_maps(state: Any, point_cloud_range: Sequence[float]) -> dict[str, np.ndarray]:
    """Where the first scene's memory lies now: every stored cell is moved into the present, and counted where it falls.

    Args:
        state: MemoryState or CopyState, after a frame.
        point_cloud_range: of its maps, metres.

    Returns:
        (Hm, Wm) maps, row 0 at y_min: `memory_held`, stored cells that may answer for a place (of a copying memory those that
        were observed); `memory_usage`, the affinity that these got per read, summed, where it is counted (long-term memory).
    """
    held = state.cell_valid[0] if isinstance(state, MemoryState) else state.maps[0, :, -2].float().round().bool()
    held = (held & state.slot_valid[0, :, None, None]).cpu()
    shape = tuple(held.shape[-2:])
    now_from_then = invert_affine(state.global_from_bev[:1].double().cpu()) @ state.slot_global_from_bev[0].double().cpu()
    places = move_positions(cell_positions(shape, point_cloud_range).expand(len(held), *shape, 2), now_from_then).numpy()
    low, high = np.array(point_cloud_range[:2]), np.array(point_cloud_range[3:5])
    cells = np.floor((places - low) / (high - low) * [shape[1], shape[0]]).astype(np.int64)
    inside = held.numpy() & (cells >= 0).all(-1) & (cells < [shape[1], shape[0]]).all(-1)
    column, row = cells[inside].T
    maps = dict(memory_held=np.zeros(shape))
    np.add.at(maps['memory_held'], (row, column), 1.0)
    if isinstance(state, MemoryState) and state.long_valid.shape[1]:
        per_read = (state.usage[0] / state.life[0].clamp(min=1.0)[:, None, None]).double().cpu().numpy()
        maps['memory_usage'] = np.zeros(shape)
        np.add.at(maps['memory_usage'], (row, column), per_read[inside])
    return maps
