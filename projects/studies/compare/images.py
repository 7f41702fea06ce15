"""Study. In: the worlds' images. Out: weights of an image branch that knows 2-D boxes, from which all rows of a seed start.

Image networks are pretrained wherever they are used; here it is the same short training for every row, so that the rows' own
steps go into fusing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import ConcatDataset
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from projects.memfusion.data.seeding import item_seed, seeded
from projects.memfusion.runtime.checkpoint import safe_load
from projects.studies.fusion.frames import camera_dataset
from projects.studies.fusion.run import load_row
from projects.studies.fusion.train_row import new_model
from projects.studies.memory.descent import Descent
from projects.studies.memory.rows import Budget

ROW = 'configs/study/fusion_futrpp.py'
"""Whose image branch and 2-D box head it is; its fusion layer is not used."""
SLOTS = ('img_backbone.', 'img_neck.', 'task_heads.img_boxes.')


def image_weights(roots: Sequence[Path], folder: Path, seed: int, budget: Budget) -> dict[str, Tensor]:
    """The weights of SLOTS after so many steps, trained where they are missing; none where the budget has no steps."""
    if budget.iterations == 0:
        return {}
    path = folder / f'images-{budget.iterations}.pth'
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cfg = load_row(ROW, roots[0])
        model = new_model(cfg, seed).to(get_device())
        cameras = camera_dataset(cfg.train_dataloader.dataset, roots)
        assert cameras is not None
        print_log(f'seed {seed}: {budget.iterations} steps on 2-D boxes', 'current')
        train_images(model, cameras, budget, seed)
        weights = {name: value for name, value in weights_to_cpu(model.state_dict()).items() if name.startswith(SLOTS)}
        torch.save(dict(state_dict=weights), path)
    return safe_load(path, map_location='cpu')['state_dict']


def train_images(model: Any, cameras: ConcatDataset, budget: Budget, seed: int) -> float:
    """Trains image branch and 2-D box head; returns the seconds it took."""
    parts = (model.img_backbone, model.img_neck, model.task_heads['img_boxes'])
    descent = Descent((parameter for part in parts for parameter in part.parameters()), budget)
    draw, device = torch.Generator().manual_seed(seed), model.data_preprocessor.device
    model.train()
    start, running = time.perf_counter(), 0.0
    for step in range(budget.iterations):
        positions = torch.randint(len(cameras), (budget.clips,), generator=draw).tolist()
        frames, samples = _load(cameras, positions, seed, step)
        with torch.autocast(device.type, torch.bfloat16):
            inputs, rows = model.data_preprocessor.stack_cameras(frames), range(budget.clips)
            images = model.encode_images(inputs, rows, rows)
            losses = model.task_heads['img_boxes'].loss(images.levels, [one.to(device) for one in samples], images.calibration)
            loss, _ = model.parse_losses({f'loss_{name}': value for name, value in losses.items()})
        descent.step(loss)
        running += float(loss.detach())
        if (step + 1) % 50 == 0:
            print_log(f'  step {step + 1}: loss {running / 50:.3f}, {time.perf_counter() - start:.0f} s', 'current')
            running = 0.0
    return time.perf_counter() - start


def _load(cameras: ConcatDataset, positions: Sequence[int], seed: int, step: int) -> tuple[list[Any], list[Det3DDataSample]]:
    frames, samples = [], []
    for slot, position in enumerate(positions):
        with seeded(item_seed(seed, step, slot)):
            packed = cameras[position][0]
        frames.append(packed['inputs']['cameras'])
        samples.append(packed['data_samples'])
    return frames, samples
