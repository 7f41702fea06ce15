"""Measures. In: a prepared data root. Out: rows of seconds and ratios, baseline and gated model side by side in one run."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from torch.utils.benchmark import timer

BASELINE = 'mmdet3d::centerpoint/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
GATED = 'configs/temporal/xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
COPYING = 'configs/temporal/copy_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
FRAME = 'configs/lidar/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'


@dataclass(frozen=True)
class Row:
    """One line of the table: what, the seconds of one repetition (median), its spread, and what it is relative to."""

    name: str
    seconds: float
    low: float
    high: float
    relative_to: str = ''
    ratio: float = 1.0
    note: str = ''


def interleave(cases: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times every case once per round, round after round, so that slow moments of the machine hit all of them.

    torch's timer waits for the GPU before it reads the clock.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()  # warm-up
    for _ in range(repeats):
        for name, case in cases.items():
            start = timer()
            case()
            seconds[name].append(timer() - start)
    return seconds


def rows_of(seconds: dict[str, list[float]], baseline: str, note: str = '') -> list[Row]:
    """Rows with the ratio of medians to the case named `baseline`."""
    base = median(seconds[baseline])
    return [Row(name, median(s), min(s), max(s), baseline, median(s) / base, note) for name, s in seconds.items()]


def load_config(path: str, data_root: Path) -> Config:
    """A project config, or one of mmdet3d's own (`mmdet3d::...`), reading `data_root`."""
    if path.startswith('mmdet3d::'):
        with tempfile.TemporaryDirectory() as folder:
            leaf = Path(folder) / 'leaf.py'
            leaf.write_text(f"_base_ = ['{path}']\n")
            return Config.fromfile(leaf)
    cfg = Config.fromfile(path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        dataset.data_root = str(data_root) + '/'
    return cfg


def build_model(cfg: Config) -> BaseModel:
    """The model on the GPU where there is one, in eval mode."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return MODELS.build(copy.deepcopy(cfg.model)).to(device).eval()


def measure_generation(preset: str) -> list[Row]:
    """Wall time of `tools/create_synthetic_nuscenes.py` and `tools/create_data.py`."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, command in (
            (f'generate {preset}', ['create_synthetic_nuscenes.py', '--preset', preset, '--out', folder + '/data']),
            (f'prepare {preset}', ['create_data.py', 'nuscenes', '--root-path', folder + '/data', '--version', 'v1.0-mini']),
        ):
            start = time.perf_counter()
            subprocess.run([sys.executable, f'tools/{command[0]}', *command[1:]], check=True, capture_output=True)
            seconds = time.perf_counter() - start
            rows.append(Row(name, seconds, seconds, seconds))
    return rows


def measure_loading(data_root: Path, frames: int) -> list[Row]:
    """Seconds per frame through the full pipelines, in this process."""
    single = DATASETS.build(load_config(FRAME, data_root).val_dataloader.dataset)
    gated = load_config(GATED, data_root)
    clips = DATASETS.build(gated.train_dataloader.dataset)
    counts = {'one frame, 10 sweeps': 1, f'clip of {clips.seq_len} frames, 10 sweeps each': clips.seq_len}
    state = {'single': 0, 'clip': len(clips) // 2}

    def next_single() -> None:
        single[state['single'] % len(single)]
        state['single'] += 1

    def next_clip() -> None:
        clips[state['clip'] % len(clips)]
        state['clip'] += 1

    seconds = interleave(dict(zip(counts, (next_single, next_clip))), frames)
    first = next(iter(counts))
    return [Row(r.name, r.seconds, r.low, r.high, first, r.ratio, f'{counts[r.name] / r.seconds:.1f} frames/s')
            for r in rows_of(seconds, first)]


def measure_models(data_root: Path, repeats: int, training: bool) -> list[Row]:
    """Inference (streaming, memory full) or a training step of mmdet3d's CenterPoint-pillar and the models with memory."""
    gated_cfg = load_config(GATED, data_root)
    split = 'train_dataloader' if training else 'val_dataloader'
    dataset = DATASETS.build({**gated_cfg[split].dataset, 'seq_len': 1})
    models = {"mmdet3d's CenterPoint-pillar": build_model(load_config(BASELINE, data_root)),
              'XMem-gated, one frame' if training else 'XMem-gated, streaming': build_model(gated_cfg)}
    if not training:
        models['copying memory, streaming'] = build_model(load_config(COPYING, data_root))
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        items = [dataset[i] for i in range(min(4, len(dataset)))]
        if training:
            calls[name] = train_step(model, items if hasattr(model, 'temporal') else [item[0] for item in items])
        else:
            calls[name] = predict_step(model, items)
    return rows_of(interleave(calls, repeats), next(iter(calls)),
                   'batch 1, full nuScenes grid, ' + ('forward, backward, AdamW' if training else 'from points to boxes'))


@dataclass
class _Scene:
    """Frames of one scene, again and again, as one long scene."""

    items: list[Any]
    index: int = 0

    def next(self) -> Any:
        item = copy.deepcopy(self.items[self.index % len(self.items)])
        for frame in item:
            frame['data_samples'].set_metainfo(dict(
                frame_index=self.index, is_scene_start=self.index == 0, is_scene_end=False,
                timestamp_s=0.5 * self.index + 1.0))
        self.index += 1
        return item


def predict_step(model: BaseModel, items: list[Any], warm_frames: int = 8) -> Callable[[], None]:
    """A call that predicts the next of the items, as frames of one endless scene.

    Args:
        items: clips of one frame.
        warm_frames: predicted before the call is returned, so that a memory is full.
    """
    scene, streams = _Scene(items), hasattr(model, 'temporal')

    @torch.no_grad()
    def call() -> None:
        item = scene.next()
        model(**model.data_preprocessor(pseudo_collate([item if streams else item[0]])), mode='predict')

    for _ in range(warm_frames):
        call()
    return call


def train_step(model: BaseModel, items: list[Any]) -> Callable[[], None]:
    """A call that trains on the next of the items (frames, or clips): forward, backward, AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    position = [0]

    def call() -> None:
        item = copy.deepcopy(items[position[0] % len(items)])
        position[0] += 1
        losses = model(**model.data_preprocessor(pseudo_collate([item]), True), mode='loss')
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    return call


def to_markdown(title: str, rows: list[Row]) -> str:
    """A Markdown table of rows."""
    lines = [f'### {title}', '', '| case | median s | min - max s | ratio | note |', '|---|---|---|---|---|']
    for row in rows:
        ratio = f'{row.ratio:.2f}x' if row.relative_to else '-'
        lines.append(f'| {row.name} | {row.seconds:.3f} | {row.low:.3f} - {row.high:.3f} | {ratio} | {row.note} |')
    return '\n'.join(lines) + '\n'
