"""Study. In: a query detector and eight frames. Out: how fast it learns them by heart: recall over time, a file each."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.launch import init_registry
from projects.studies.fusion.run import load_row
from projects.studies.fusion.train_row import new_model

FRAMES, RANGE_M, RADIUS_M, TOP, WANTED = 8, 25.0, 2.0, 300, 0.9
AUGMENTATIONS = ('CalibrationNoise', 'ResizeImages', 'CropImages', 'FlipImages', 'RotateImages', 'ClipBEVAugmentation',
                 'PointShuffle')
DESIGNS = {'sparsebev': 'SparseBEV', 'petrv2': 'PETRv2', 'streampetr': 'StreamPETR', 'cmt': 'CMT'}
CAMERA_LEAVES = {'cmt': 'cmt-camera_r18_fpn'}
SENSORS = {'cameras': 'cameras alone', 'fused': 'cameras and LiDAR'}


@dataclass(frozen=True)
class Truth:
    """Boxes of one frame within range of which the cameras see 40 % at least: centres (M, 2) in metres, classes (M,)."""

    centres: np.ndarray
    labels: np.ndarray


def leaf_of(design: str, sensors: str) -> str:
    """The tiny config."""
    fused = f'{design}_r18_pillar04_second_secfpn'
    return f'configs/query/{fused if sensors == "fused" else CAMERA_LEAVES.get(design, f"{design}_r18_fpn")}_tiny-synthetic.py'


def overfit(design: str, sensors: str, root: Path, minutes: float, path: Path, weights: Path, seed: int = 0,
            lr: float = 2e-3) -> None:
    """Trains until the recall is WANTED or the time is over, and stores the curve; not again where the file says so.

    Args:
        design: one of DESIGNS.
        sensors: one of SENSORS.
        root: the world.
        minutes: of the CPU, divided by the threads that are used.
        path: of the result file.
        weights: file that the network is stored in.
        seed: of the weights.
        lr: of AdamW after 50 steps; it falls to zero over the minutes, along a cosine.
    """
    if path.is_file() and finished(json.loads(path.read_text())['curve'], minutes):
        return
    init_registry()
    cfg, model = network_of(design, sensors, root, seed)
    items, truths = frames_of(cfg, root)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    threads, start, step, curve = torch.get_num_threads(), time.process_time(), 0, []
    while True:
        spent = (time.process_time() - start) / 60 / threads
        if step % 50 == 0:
            curve.append(dict(step=step, minutes=round(spent, 2), recall=round(recall_of(model, items, truths), 3)))
            print_log(f'{design}, {SENSORS[sensors]}: {curve[-1]}', 'current')
            if finished(curve, minutes):
                break
        for group in optimizer.param_groups:
            group['lr'] = lr * min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * min(spent / minutes, 1.0))) / 2
        half = items[:FRAMES // 2] if step % 2 else items[FRAMES // 2:]
        model.train()
        losses = model(**model.data_preprocessor(pseudo_collate(copy.deepcopy(half)), True), mode='loss')
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=weights_to_cpu(model.state_dict())), weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    result = dict(row=f'query_{design}', sensors=sensors, truth=int(sum(len(one.labels) for one in truths)), curve=curve)
    write_text(path, json.dumps(result) + '\n')


def finished(curve: Sequence[Mapping[str, float]], minutes: float) -> bool:
    """Whether enough was learned, or the time is over."""
    return curve[-1]['recall'] >= WANTED or curve[-1]['minutes'] >= minutes


def network_of(design: str, sensors: str, root: Path, seed: int = 0) -> tuple[Any, Any]:
    """Config and network, drawn anew; training hides no sensor and drops nothing."""
    cfg = load_row(leaf_of(design, sensors), root)
    cfg.load_from = None
    head = cfg.model.pts_bbox_head
    head.transformer.dropout = 0.0
    if 'masked_modal' in head:
        head.masked_modal = None
    return cfg, new_model(cfg, seed).to(get_device())


def frames_of(cfg: Any, root: Path, faults: Sequence[dict[str, Any]] = ()) -> tuple[list[Any], list[Truth]]:
    """Eight frames of the training set with their truth, as clips of one frame, not augmented; spread over the scenes.

    Args:
        cfg: of the network.
        root: the world.
        faults: transforms that follow the loading of the images.
    """
    test = {step['type']: step for step in cfg.test_dataloader.dataset.pipeline}
    pipeline = []
    for step in cfg.train_dataloader.dataset.pipeline:
        if step['type'] not in AUGMENTATIONS:
            pipeline.append(step)
            pipeline += faults if step['type'] == 'LoadMultiViewImages' else ()
        elif step['type'] in test:
            pipeline.append(test[step['type']])
    dataset = DATASETS.build(ConfigDict({**cfg.train_dataloader.dataset, 'seq_len': 1, 'pipeline': pipeline}))
    dataset.set_epoch(0)  # else the sweeps of a frame are drawn anew in every call
    positions = np.linspace(0, len(dataset) - 1, FRAMES).astype(int).tolist()
    items = [dataset[position] for position in positions]
    for item in items:  # whoever remembers would miss the frames before
        item[0]['data_samples'].set_metainfo(dict(is_scene_start=True, is_scene_end=True))
    level = visibility(root)
    return items, [truth_of(item[0]['data_samples'], level) for item in items]


def visibility(root: Path) -> dict[str, list[tuple[np.ndarray, int]]]:
    """{sample: centres in global metres and nuScenes' visibility, 1 (to 40 %) to 4}."""
    found: dict[str, list[tuple[np.ndarray, int]]] = {}
    for record in json.loads((root / 'v1.0-mini' / 'sample_annotation.json').read_text()):
        seen = (np.asarray(record['translation']), int(record['visibility_token']))
        found.setdefault(record['sample_token'], []).append(seen)
    return found


def truth_of(sample: Any, level: Mapping[str, Sequence[tuple[np.ndarray, int]]]) -> Truth:
    """What counts in a frame."""
    boxes = sample.gt_instances_3d.bboxes_3d
    centres, labels = boxes.gravity_center.numpy(), sample.gt_instances_3d.labels_3d.numpy()
    pose = np.asarray(sample.metainfo['global_from_lidar'])
    known = level[sample.metainfo['sample_token']]
    everywhere = np.stack([centre for centre, _ in known])
    in_global = centres @ pose[:3, :3].T + pose[:3, 3]
    nearest = np.linalg.norm(in_global[:, None] - everywhere[None], axis=-1).argmin(axis=1)
    seen = np.array([known[i][1] >= 2 for i in nearest], dtype=bool).reshape(len(labels))
    counts = seen & (np.linalg.norm(centres[:, :2], axis=1) < RANGE_M)
    return Truth(centres[counts, :2], labels[counts])


@torch.no_grad()
def recall_of(model: Any, items: Sequence[Any], truths: Sequence[Truth]) -> float:
    """Share of the truth that a box of the best TOP finds: right class, centre within RADIUS_M, each box one truth."""
    model.eval()
    found = total = 0
    for item, truth in zip(items, truths):
        result, = model(**model.data_preprocessor(pseudo_collate([copy.deepcopy(item)])), mode='predict')
        boxes = result.pred_instances_3d
        order = boxes.scores_3d.argsort(descending=True)[:TOP]
        found += matched(boxes.bboxes_3d.gravity_center[order, :2].cpu().numpy(), boxes.labels_3d[order].cpu().numpy(), truth)
        total += len(truth.labels)
    return found / max(total, 1)


def matched(centres: np.ndarray, labels: np.ndarray, truth: Truth) -> int:
    """How many truths are found; boxes, best first, take the nearest truth that is left."""
    left = np.ones(len(truth.labels), dtype=bool)
    for centre, label in zip(centres, labels):
        away = np.linalg.norm(truth.centres - centre, axis=1)
        away[~left | (truth.labels != label)] = np.inf
        if len(away) and away.min() < RADIUS_M:
            left[away.argmin()] = False
    return int((~left).sum())


def overfit_path(results: Path, design: str, sensors: str) -> Path:
    """Where a curve is stored."""
    return results / f'overfit-{design}-{sensors}.json'


def overfit_section(results: Path) -> list[str]:
    """What was reached, one line a curve."""
    lines = [f'Learning {FRAMES} frames by heart (`--overfit`): recall among the best {TOP} boxes (right class, centre within '
             f'{RADIUS_M:g} m) of what lies within {RANGE_M:g} m and cameras see 40 % of; minutes of the CPU over the threads '
             'used, image branch from scratch:', '', '| design | sensors | recall | steps | minutes | on the way |',
             '|---|---|---|---|---|---|']
    for design, title in DESIGNS.items():
        for sensors, said in SENSORS.items():
            path = overfit_path(results, design, sensors)
            if not path.is_file():
                lines.append(f'| {title} | {said} | not run | - | - | - |')
                continue
            curve = json.loads(path.read_text())['curve']
            last = curve[-1]
            way = ', '.join(f'{one["recall"]:.2f} at {one["step"]}' for one in curve[:-1][::max(len(curve) // 6, 1)])
            lines.append(f'| {title} | {said} | {last["recall"]:.2f} | {last["step"]} | {last["minutes"]:.1f} | {way} |')
    return ['\n'.join(lines)]
