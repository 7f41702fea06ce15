"""Measures fused models. In: a prepared data root, a trained checkpoint. Out: seconds from points to boxes, side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.model import BaseModel

from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.fuse import fuse_for_inference

from .models import BASELINE, GATED, Row, build_model, interleave, load_config, predict_step, rows_of

_BASE = "mmdet3d's CenterPoint-pillar"


def measure_fused(data_root: Path, repeats: int, checkpoint: Path, scene: str = 'scene-0103') -> list[Row]:
    """mmdet3d's CenterPoint, the plain and the gated detector, as they are and fused, with the weights of one checkpoint.

    Batch 1, from points to boxes; the memory is full.

    Args:
        data_root: prepared nuScenes-format data.
        repeats: rounds.
        checkpoint: of the gated detector at the widths of the full grid; it holds the weights of the others.
        scene: of the validation set; its frames with 10 sweeps are predicted one after another, again and again.

    Raises:
        ValueError: where the scene is not there, or the checkpoint lacks weights.
    """
    weights = safe_load(checkpoint)['state_dict']
    gated = load_config(GATED, data_root)
    items = _full_frames(gated, data_root, scene)

    def trained(cfg: Config, fuse: bool) -> BaseModel:
        model = build_model(cfg)
        wanted = model.state_dict()
        lacking = sorted(wanted.keys() - weights.keys())
        if lacking:
            raise ValueError(f'{checkpoint}: lacks {len(lacking)} weights of {type(model).__name__}, e.g. {lacking[0]}: the '
                             f'checkpoint of a detector like {GATED} is needed')
        model.load_state_dict({name: weights[name] for name in wanted})
        return fuse_for_inference(model) if fuse else model

    plain = load_config(GATED, data_root)
    plain.model.temporal = None
    models = {
        _BASE: trained(load_config(BASELINE, data_root), False), 'plain': trained(plain, False),
        'plain, fused': trained(plain, True), 'XMem-gated, streaming': trained(gated, False),
        'XMem-gated, streaming, fused': trained(gated, True)}
    calls = {name: _CountedCall(predict_step(model, items)) for name, model in models.items()}
    rows = rows_of(interleave(calls, repeats), _BASE)
    cpu_s = {name: median(call.cpu_s[1:]) for name, call in calls.items()}  # the first one warms up
    return [replace(row, note=f'{cpu_s[row.name]:.3f} s of CPU ({cpu_s[row.name] / cpu_s[_BASE]:.2f}x)') for row in rows]


class _CountedCall:
    """A call that counts the CPU seconds of this process: what others do on the machine hardly changes them."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call, self.cpu_s = call, list[float]()

    def __call__(self) -> None:
        start = time.process_time()
        self.call()
        self.cpu_s.append(time.process_time() - start)


def _full_frames(cfg: Config, data_root: Path, scene: str) -> list[Any]:
    """The scene's frames in time order, as clips of one frame, without the first ones, which have fewer than 10 sweeps."""
    tables = json.loads((data_root / 'v1.0-mini' / 'scene.json').read_text())
    token = next((row['token'] for row in tables if row['name'] == scene), None)
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'seq_len': 1})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    items = [dataset[index] for index, info in enumerate(infos) if info['scene_token'] == token]
    if len(items) < 2:
        raise ValueError(f'{data_root}: the validation set has no {scene} of several frames')
    return items[1:]
