"""Demo, a memory at work. In: config, checkpoint, a test scene. Out: PNGs of gate, of attention and of memory usage.

The scene runs through the detector as in testing; nothing but the drawing sees the truth.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.memory import TemporalMemory
from projects.memfusion.runtime.checkpoint import load_weights, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.runtime.run_checks import check_checkpoint, check_run
from projects.memfusion.structures import MemoryState
from projects.memfusion.visualization import BoxSet, MemoryUsage, draw_bev, draw_gate, draw_memory_usage, write_png, write_strip

from .attention_pictures import attention_picture, check_cell
from .recorded_steps import MemoryFrame, recorded_steps
from .scene_pictures import side_by_side

_SHOWN_SCENES = 6
_STRIP_PX = 640


def draw_memory(cfg: Config, checkpoint: str, out_dir: Path, scene: str | None = None, frame: int | None = None,
                cell_m: tuple[float, float] | None = None, score_thr: float = 0.1, trust: bool = False) -> list[Path]:
    """Streams one scene and writes `gate_XX.png`, `gate.gif`, `attention_XX.png` and `memory_usage.png` into `out_dir`.

    Args:
        cfg: with TemporalMemory in model.temporal and clips in test_dataloader.
        scene: name or token; None is the test set's first.
        frame: whose attention is drawn, from 0; None is the last.
        cell_m: x and y in that frame's LiDAR coordinates; None lets `choose_cell` choose.
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
    paths, strip, usage = [], [], []
    for number, seen in enumerate(stream_memory(model, dataset, positions)):
        strip.append(_gate_picture(seen, range_m, names, f'{name}, frame {number}', score_thr))
        paths.append(write_png(out_dir / f'gate_{number:02d}.png', strip[-1]))
        usage.append(usage_of(seen.step.after, number))
        if number == chosen:
            picture, reason = attention_picture(model.temporal, seen, cell_m, score_thr, names, f'{name}, frame {number}')
            paths.append(write_png(out_dir / f'attention_{number:02d}.png', picture))
            print(f'attention of {reason}')
        print(f'frame {number + 1}/{len(positions)}: {len(seen.predictions.above(score_thr))} boxes, '
              f'{usage[-1].working} elements in working memory, {usage[-1].long_term} in long-term memory', flush=True)
    chart = draw_memory_usage(usage, f'{name}: memory after each frame, {model.test_mode.mode} testing')
    return [*paths, *write_strip(strip, out_dir / 'gate.gif'), write_png(out_dir / 'memory_usage.png', chart)]


def _gate_picture(seen: MemoryFrame, range_m: Any, names: list[str], title: str, score_thr: float) -> np.ndarray:
    bev = draw_bev(seen.points, range_m, seen.truth, seen.predictions.above(score_thr), names, title=title, size_px=_STRIP_PX)
    gate = draw_gate(seen.gate, range_m, seen.points, seen.truth, names, title='predicted occupancy', size_px=_STRIP_PX)
    return side_by_side([bev, gate])


def build_remembering(cfg: Config, checkpoint: str, trust: bool = False) -> Any:
    """The config's detector with its weights, in eval mode, on the GPU where there is one.

    Raises:
        UserError: where its slot `temporal` has no attention to draw, or the checkpoint is not its own.
    """
    temporal = cfg.model.get('temporal')
    if temporal is None:
        raise UserError(f'{cfg.filename}: has no model.temporal: a single-frame detector remembers nothing; give a config '
                        'with TemporalMemory')
    kind = temporal['type']
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if found is not None and not issubclass(found, TemporalMemory):
        raise UserError(f'{cfg.filename}: model.temporal is {found.__name__}, which has no attention over stored frames; give '
                        'a config with TemporalMemory')
    check_run(cfg, 'test')
    model = MODELS.build(cfg.model)
    loaded = safe_load(checkpoint, map_location='cpu', trust=trust)
    load_weights(model, loaded, checkpoint)
    check_checkpoint(loaded, checkpoint, cfg, 'test')
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()


def find_scene(dataset: Any, scene: str | None) -> tuple[str, list[int]]:
    """A scene's name and the positions of its frames in the data set, in time order.

    Raises:
        UserError: where the data set has no such scene, or does not know scenes.
    """
    if not hasattr(dataset, 'scene_tokens'):
        raise UserError(f'test_dataloader.dataset is {type(dataset).__name__}, which does not know scenes; use '
                        'NuScenesSequenceDataset')
    positions: dict[str, list[int]] = {}
    for position, token in enumerate(dataset.scene_tokens):
        positions.setdefault(token, []).append(position)
    tokens = {dataset.get_data_info(at[0])['scene_name']: token for token, at in positions.items()}
    names = list(tokens)
    if scene is None or scene in tokens:
        name = names[0] if scene is None else scene
        return name, positions[tokens[name]]
    if scene in positions:
        return next(name for name, token in tokens.items() if token == scene), positions[scene]
    shown = difflib.get_close_matches(scene, names, _SHOWN_SCENES) or names[:_SHOWN_SCENES]
    raise UserError(f'--scene {scene}: {dataset.ann_file} has no scene of this name or token; it has {len(names)} scenes, '
                    f'e.g. {", ".join(shown)}')


def stream_memory(model: Any, dataset: Any, positions: list[int]) -> Iterator[MemoryFrame]:
    """Runs the detector over one scene's frames in time order; yields what each gave and what memory did."""
    points_at: dict[float, np.ndarray] = {}
    with recorded_steps(model) as steps:
        for position in positions:
            item, info = dataset[position], dataset.get_data_info(position)
            for packed in item:
                if packed['data_samples'].frame_valid:
                    points_at[packed['data_samples'].timestamp_s] = packed['inputs']['points'].numpy()
            steps.clear()
            with torch.no_grad():
                sample = model(**model.data_preprocessor(pseudo_collate([item])), mode='predict')[0]
            step = steps[-1]  # of a window's steps, the last is the frame's own
            labels = info.get('eval_ann_info')
            truth = None if labels is None else BoxSet.from_instances(labels)
            yield MemoryFrame(
                points=item[-1]['inputs']['points'].numpy(),
                truth=truth if truth is None else truth.keep(truth.labels >= 0),
                predictions=BoxSet.from_instances(sample.pred_instances_3d),
                gate=sample.pred_occupancy[0].cpu().numpy(),
                step=step,
                points_at=points_at)
            held = set(step.after.slot_time_s[step.after.slot_valid].tolist())
            points_at = {time_s: points for time_s, points in points_at.items() if time_s in held}


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
