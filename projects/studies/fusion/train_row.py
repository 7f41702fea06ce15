"""Study. In: a row's config, the LiDAR-only weights and fused frames. Out: the row's detector, its boxes and its scores."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from nuscenes import NuScenes
from torch import Tensor

from projects.memfusion.metrics.class_ap import demo_map
from projects.memfusion.runtime.checkpoint import check_architecture
from projects.studies.robustness.run import official

from .frames import FusedFrames
from .rows import LOOKALIKES, RANGE_M

Predictions = list[dict[str, Any]]
_BATCH = 5


def build_row(cfg: Config, weights: Mapping[str, Tensor], path: Path, seed: int) -> Any:
    """The row's model, on the GPU where there is one: LiDAR part and head from the LiDAR-only weights in `path`."""
    model = new_model(cfg, seed)
    check_architecture(model, dict(weights), str(path), allow_missing_slots=True)
    return model.to(get_device())


def new_model(cfg: Config, seed: int) -> Any:
    """The config's model with initial weights."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg.model))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # init_weights has a line for every tensor
    model.init_weights()
    logger.setLevel(level)
    return model


@torch.no_grad()
def predict(model: Any, frames: FusedFrames) -> Predictions:
    """The boxes of every frame, in order."""
    model.eval()
    found: Predictions = []
    count = len(frames.samples[0])
    for start in range(0, count, _BATCH):
        positions = list(range(start, min(start + _BATCH, count)))
        clip, samples = frames.batch([0] * len(positions), positions, device=model.data_preprocessor.device)
        found += [dict(pred_instances_3d=result.pred_instances_3d.cpu().to_dict(), sample_idx=result.sample_idx)
                  for result in model.predict_on_clip(clip, copy.deepcopy(samples))]
    return found


def official_scores(cfg: Config, predictions: Predictions, root: Path, folder: Path) -> dict[str, float]:
    """The official mAP and NDS of one world's frames, percent; the submission goes into `folder`."""
    evaluator = {**cfg.test_evaluator, 'data_root': f'{root}/', 'ann_file': f'{root}/nuscenes_infos_val.pkl',
                 'jsonfile_prefix': str(folder)}
    metric = METRICS.build(evaluator)
    metric.dataset_meta = dict(classes=cfg.class_names)
    metric.process({}, copy.deepcopy(predictions))
    return official(metric.evaluate(len(predictions)))


def score(cfg: Config, predictions: Predictions, root: Path, folder: Path) -> dict[str, float]:
    """Percent, of one world's validation frames: the official mAP and NDS, the AP of each class within RANGE_M, the means
    of the look-alike classes and of the others; and `boxes/CLASS`, the truth behind it.

    Args:
        cfg: the row's.
        predictions: of all its frames.
        root: the world.
        folder: for the submission.
    """
    scores = official_scores(cfg, predictions, root, folder)
    submission = next(folder.rglob('results_nusc.json'))
    near = demo_map(NuScenes('v1.0-mini', str(root), verbose=False), str(submission), 'mini_val', range_m=RANGE_M)
    scores.update({f'AP/{name}': 100 * value for name, value in near['per_class'].items()})
    scores.update({f'boxes/{name}': float(value) for name, value in near['num_truth'].items()})
    return {**scores, **class_means(scores)}


def class_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Means of `AP/CLASS`: look-alikes, and others (those that have truth)."""
    others = [name for name in (key.removeprefix('AP/') for key in scores if key.startswith('AP/'))
              if name not in LOOKALIKES and scores[f'boxes/{name}'] > 0]
    return {title: _mean([scores[f'AP/{name}'] for name in names])
            for title, names in (('look-alikes', LOOKALIKES), ('others', others))}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
