"""Benchmark, memory. In: sizes, models. Out: seconds and peak bytes of reads, windows, clips, long scenes, side by side."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from torch import Tensor
from torch.utils.benchmark import timer

from projects.memfusion.memory.similarity import read_memory
from projects.memfusion.structures import FrameBatch, FrameMeta, SceneFeatures

from .models import COPYING, FRAME, GATED, Row, build_model, interleave, load_config, predict_step, rows_of, train_step
from .peak_memory import peak_bytes

READ_ELEMENTS = (4096, 20480, 40960, 81920)
_CK, _CV, _HW = 64, 256, 4096


def direct_read(query_key: Tensor, query_selection: Tensor, memory_key: Tensor, memory_shrinkage: Tensor,
                memory_value: Tensor) -> Tensor:
    """The read as it is usually written: the whole N x HW similarity, softmax, bmm (XMem, Cheng and Schwing, 2022)."""
    memory_square = memory_key.square().transpose(1, 2) @ query_selection
    product = memory_key.transpose(1, 2) @ (query_key * query_selection)
    query_square = (query_selection * query_key.square()).sum(dim=1, keepdim=True)
    similarity = (2 * product - memory_square - query_square) * memory_shrinkage.transpose(1, 2) / math.sqrt(_CK)
    return memory_value @ similarity.softmax(dim=1)


READS: dict[str, Callable[..., Any]] = {'direct form': direct_read, 'read_memory': read_memory}


def read_inputs(elements: int) -> list[Tensor]:
    """Random query and memory of `elements` elements, on the GPU where there is one."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to('cuda' if torch.cuda.is_available() else 'cpu')

    return [draw(_CK, _HW), draw(_CK, _HW).sigmoid(), draw(_CK, elements), draw(1, elements).square() + 1,
            draw(_CV, elements)]


def read_call(name: str, elements: int) -> Callable[[], Tensor]:
    """One read of `elements` elements, by the method of that name."""
    read, inputs = READS[name], read_inputs(elements)

    def call() -> Tensor:
        with torch.no_grad():
            return read(*inputs)

    return call


@torch.no_grad()
def measure_reads(repeats: int) -> list[Row]:
    """The direct form against `read_memory` at CK 64, CV 256, 4096 query cells."""
    rows = []
    for elements in READ_ELEMENTS:
        inputs = read_inputs(elements)
        seconds = interleave({name: partial(read, *inputs) for name, read in READS.items()}, repeats)
        peaks = {name: peak_bytes(partial(read_call, name, 2048), partial(read_call, name, elements)) for name in READS}
        base = next(iter(READS))
        for row in rows_of(seconds, base):
            share = peaks[row.name] / max(peaks[base], 1)
            rows.append(Row(f'{row.name}, N {elements}', row.seconds, row.low, row.high, base, row.ratio,
                            f'{peaks[row.name] / 1e6:.0f} MB beyond its inputs ({share:.2f}x)'))
    return rows


def measure_clip_loading(data_root: Path, repeats: int) -> list[Row]:
    """A 10 Hz clip of 8 frames with 10 sweeps each, against 8 frames loaded one by one, with our loaders and mmdet3d's."""
    single = load_config(FRAME, data_root).val_dataloader.dataset
    stock = copy.deepcopy(single)
    names = {'LoadLidarPoints': 'LoadPointsFromFile', 'LoadLidarSweeps': 'LoadPointsFromMultiSweeps'}
    stock.pipeline = [{**step, 'type': names.get(step['type'], step['type'])} for step in stock.pipeline]
    frames = load_config(GATED, data_root).val_dataloader.dataset
    clip = dict(frames, frame_rate='sweep', frame_stride=2, num_sweeps=10, seq_len=8)
    singles = {"8 single frames, mmdet3d's loaders": DATASETS.build(stock), '8 single frames': DATASETS.build(single)}
    clips = DATASETS.build(clip)
    calls: dict[str, Callable[[], Any]] = {
        name: partial(lambda dataset: [dataset[i] for i in range(5, 13)], dataset) for name, dataset in singles.items()}
    calls['clip of 8 frames at 10 Hz'] = lambda: clips[8]
    return rows_of(interleave(calls, repeats), next(iter(calls)), '10 sweeps each')


def measure_windows(data_root: Path, repeats: int, seq_len: int = 8) -> list[Row]:
    """Testing at the full grid: streaming against a rolling window, once both are full."""
    calls = {}
    for name, mode in (('streaming', dict(mode='streaming')),
                       (f'rolling window, seq_len {seq_len}', dict(mode='window', seq_len=seq_len, stride=1))):
        cfg = load_config(GATED, data_root)
        cfg.model.test_cfg.update(mode)
        calls[name] = _tester(cfg, warm_frames=seq_len)
    return rows_of(interleave(calls, repeats), 'streaming', 'batch 1, full nuScenes grid, from points to boxes')


def measure_scene_length(data_root: Path, lengths: tuple[int, ...] = (5, 40, 120)) -> list[Row]:
    """Seconds of a temporal step after so many frames of a scene, at the full grid's feature size; and the state's bytes."""
    rows = []
    for title, config in (('XMem-gated', GATED), ('copying', COPYING)):
        model = build_model(load_config(config, data_root))
        bev = torch.randn(1, sum(model.pts_neck.out_channels), *model.grid.bev_shape, device=next(model.parameters()).device)
        features = SceneFeatures(bev, observed=bev[:, :1] > 0)
        state, seconds, sizes = model.temporal.init_state(features), [], []
        with torch.no_grad():
            for index in range(max(lengths)):
                start = timer()
                state = model.step(features, state, _frame(index, bev.device)).state
                seconds.append(timer() - start)
                sizes.append(state.num_bytes)
        names = [f'{title}, frames {length - 4} to {length}' for length in lengths]
        parts = {name: seconds[length - 5:length] for name, length in zip(names, lengths)}
        rows += [Row(r.name, r.seconds, r.low, r.high, names[0], r.ratio, f'state of {sizes[length - 1] / 1e6:.2f} MB')
                 for r, length in zip(rows_of(parts, names[0]), lengths)]
    return rows


def measure_clips(data_root: Path, repeats: int) -> list[Row]:
    """A training step on one frame and on clips of 4, with loss on the last and gradient through one frame, and through all."""
    cfg = load_config(GATED, data_root)
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'seq_len': 4})
    clip = next(clip for clip in (dataset[i] for i in range(len(dataset)))
                if all(frame['data_samples'].metainfo['frame_valid'] for frame in clip))
    cases = {'1 frame': (1, dict()), '4 frames, gradient through the last': (4, dict(loss_frames='last', grad_frames=1)),
             '4 frames, gradient through all': (4, dict(loss_frames='all', grad_frames=None))}
    calls = {}
    for name, (length, options) in cases.items():
        leaf = copy.deepcopy(cfg)
        leaf.model.train_cfg.update(options)
        calls[name] = train_step(build_model(leaf), [clip[-length:]])
    return rows_of(interleave(calls, repeats), '1 frame', 'batch 1, full nuScenes grid, forward, backward, AdamW')


def _tester(cfg: Config, warm_frames: int) -> Callable[[], None]:
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'seq_len': 1})
    return predict_step(build_model(cfg), [dataset[i] for i in range(min(4, len(dataset)))], warm_frames)


def _frame(index: int, device: torch.device) -> Any:
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = 4.0 * index
    meta = FrameMeta(
        sample_token=str(index), scene_token='scene', frame_index=index, is_scene_start=index == 0, is_scene_end=False,
        timestamp_s=0.5 * index + 1.0, global_from_lidar=pose.numpy(), bev_aug=torch.eye(4, dtype=torch.float64).numpy(),
        frame_valid=True, is_keyframe=True)
    return FrameBatch.from_metas([meta], device)

