"""Demo, a memory at work. In: config, checkpoint, a test scene. Out: PNGs of gate, of attention and of memory usage.

The scene runs through the detector as in testing; nothing but the drawing sees the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config

from projects.memfusion.memory import CopyMemory, TemporalMemory
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.structures import MemoryState
from projects.memfusion.visualization import MemoryUsage, draw_bev, draw_gate, draw_memory_usage, write_png, write_strip

from .attention_pictures import attention_picture, check_cell
from .hidden_objects import hidden_objects
from .read_pictures import best_found, copying_picture
from .recorded_steps import MemoryFrame, stream_memory
from .scene_pictures import side_by_side
from .streaming import find_scene, load_detector

_STRIP_PX = 640
_DRAWN = (TemporalMemory, CopyMemory)


def draw_memory(cfg: Config, checkpoint: str, out_dir: Path, scene: str | None = None, frame: int | None = None,
                cell_m: tuple[float, float] | None = None, score_thr: float = 0.1, trust: bool = False) -> list[Path]:
    """Streams one scene and writes `gate_XX.png`, `gate.gif` and `attention_XX.png` into `out_dir`; of TemporalMemory also
    `memory_usage.png` (CopyMemory fills its slots and stays so).

    Args:
        cfg: with TemporalMemory or CopyMemory in model.temporal and clips in test_dataloader.
        scene: name or token; None is the test set's first.
        frame: whose attention is drawn, from 0; None is the last, or with CopyMemory and no `cell_m` the one in which an
            object is found that is hidden longest.
        cell_m: x and y in that frame's LiDAR coordinates; None lets `choose_cell` choose, with CopyMemory a hidden object that
            is found.
        score_thr: boxes that score this or more are drawn.
        trust: read the checkpoint without protection.

    Returns:
        The pictures' paths.

    Raises:
        UserError: for a config without attention, an unknown scene, or a frame or cell that is not there.
    """
    init_registry()
    if cell_m is not None:
        check_cell(cell_m, cfg.model.grid.point_cloud_range)
    model = build_remembering(cfg, checkpoint, trust)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    name, positions = find_scene(dataset, scene)
    chosen = len(positions) - 1 if frame is None else frame
    if not 0 <= chosen < len(positions):
        raise UserError(f'--frame {chosen}: scene {name} has frames 0 to {len(positions) - 1}')
    out_dir.mkdir(parents=True, exist_ok=True)
    names, range_m = dataset.metainfo['classes'], model.grid.point_cloud_range
    copies = isinstance(model.temporal, CopyMemory)
    hidden = hidden_objects([dataset.get_data_info(at) for at in positions], dataset.label_mapping)
    paths, strip, longest = [], [], 0
    usage: list[MemoryUsage] = []
    for number, seen in enumerate(stream_memory(model, dataset, positions)):
        strip.append(_gate_picture(seen, range_m, names, f'{name}, frame {number}', score_thr))
        paths.append(write_png(out_dir / f'gate_{number:02d}.png', strip[-1]))
        found = best_found(hidden[number], seen, score_thr, range_m) if copies and frame is None and cell_m is None else None
        gap = 0 if found is None else found.gap_frames
        if gap > longest or (number == chosen and not longest):
            longest, drawn, shown = gap, number, seen
        held, row = _held(seen, number)
        usage += row
        print(f'frame {number + 1}/{len(positions)}: {len(seen.predictions.above(score_thr))} boxes, {held}', flush=True)
    title = f'{name}, frame {drawn}'
    if copies:
        picture, reason = copying_picture(model.temporal, shown, hidden[drawn], cell_m, score_thr, names, title)
    else:
        picture, reason = attention_picture(model.temporal, shown, cell_m, score_thr, names, title)
        chart = draw_memory_usage(usage, f'{name}: memory after each frame, {model.test_mode.mode} testing')
        paths.append(write_png(out_dir / 'memory_usage.png', chart))
    print(f'attention of {reason}')
    return [*paths, *write_strip(strip, out_dir / 'gate.gif'), write_png(out_dir / f'attention_{drawn:02d}.png', picture)]


def _held(seen: MemoryFrame, number: int) -> tuple[str, list[MemoryUsage]]:
    """What is remembered after a frame: in words, and for the chart."""
    assert seen.step is not None
    state = seen.step.after
    if not isinstance(state, MemoryState):
        return f'{int(state.slot_valid[0].sum())} frames in memory', []
    usage = usage_of(state, number)
    return f'{usage.working} elements in working memory, {usage.long_term} in long-term memory', [usage]


def _gate_picture(seen: MemoryFrame, range_m: Any, names: list[str], title: str, score_thr: float) -> np.ndarray:
    bev = draw_bev(seen.points, range_m, seen.truth, seen.predictions.above(score_thr), names, title=title, size_px=_STRIP_PX)
    assert seen.gate is not None
    gate = draw_gate(seen.gate, range_m, seen.points, seen.truth, names, title=seen.gate_name, size_px=_STRIP_PX)
    return side_by_side([bev, gate])


def build_remembering(cfg: Config, checkpoint: str, trust: bool = False) -> Any:
    """The config's detector with its weights, in eval mode, on the GPU where there is one.

    Raises:
        UserError: where its slot `temporal` has no attention to draw, or the checkpoint is not its own.
    """
    temporal = cfg.model.get('temporal')
    wanted = 'give a config with TemporalMemory or CopyMemory'
    if temporal is None:
        raise UserError(f'{cfg.filename}: has no model.temporal: a single-frame detector remembers nothing; {wanted}')
    kind = temporal['type']
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if found is not None and not issubclass(found, _DRAWN):
        raise UserError(f'{cfg.filename}: model.temporal is {found.__name__}, which has no attention over stored frames; '
                        f'{wanted}')
    return load_detector(cfg, checkpoint, trust)


def usage_of(state: MemoryState, frame: int) -> MemoryUsage:
    """What the first sample's memory holds after a frame, and how much each part was used."""
    cells = (state.cell_valid & state.slot_valid[..., None, None])[0]
    working, long_term = int(cells.sum()), int(state.long_valid[0].sum())
    working_cap, long_cap = cells.numel(), state.long_valid.shape[1]

    def row_bytes(*names: str) -> int:
        return sum(getattr(state, name)[0].nbytes for name in names)

    filled = working * row_bytes('key', 'shrinkage', 'selection', 'value') // working_cap
    long_usage, slot_usage = float('nan'), None
    if long_cap:
        filled += long_term * row_bytes('long_key', 'long_shrinkage', 'long_value') // long_cap
        read = state.long_valid[0] & (state.long_life[0] > 0)
        if read.any():
            long_usage = float((state.long_usage / state.long_life)[0][read].mean())
        total = (state.usage[0] * cells).flatten(1).sum(dim=1)
        # 0 / 0 is NaN: a slot that holds nothing, or that no read has seen
        slot_usage = (total / (state.life[0] * cells.flatten(1).sum(dim=1))).flip(0).cpu().numpy()
    return MemoryUsage(frame, working, long_term, working_cap, long_cap, filled,
                       state.num_bytes // state.batch_size, slot_usage, long_usage)
