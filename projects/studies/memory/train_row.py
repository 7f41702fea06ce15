"""Study. In: a row's config and the feature cache. Out: the trained temporal module and head, and its scores."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.registry import METRICS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from projects.memfusion.detectors.encoded_clip import EncodedClip

from .cache import FeatureCache
from .descent import Descent
from .rows import Budget

HISTORIES = ('own', 'other', 'none')
"""Whose history a test frame is given: its own, that of another scene (under its own poses), nobody's."""


def build_row(cfg: Config, weights: dict[str, torch.Tensor], seed: int) -> Any:
    """The row's model with the plain detector's weights, on the GPU where there is one; only memory and head will train."""
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg.model))
    missing = model.load_state_dict(weights, strict=False).missing_keys
    wrong = [key for key in missing if not key.startswith('temporal.')]
    if wrong:
        raise ValueError(f'the plain detector does not fit this row: {wrong[:3]} are missing')
    return model.to(get_device())


def train(model: Any, cfg: Config, cache: FeatureCache, budget: Budget, seed: int, length: int | None = None) -> float:
    """Trains on cached clips of `length` frames, by default the config's; returns the seconds it took."""
    length = cfg.train_dataloader.dataset.seq_len if length is None else length
    descent = Descent((p for p in model.parameters() if p.requires_grad), budget)
    draw, device = torch.Generator().manual_seed(seed), model.data_preprocessor.device
    model.train()
    start, running = time.perf_counter(), 0.0
    for iteration in range(budget.iterations):
        # The same draws for every row: the labelled frames do not depend on seq_len.
        variants = torch.randint(len(cache.samples), (budget.clips,), generator=draw).tolist()
        ends = torch.randint(len(cache.samples[0]), (budget.clips,), generator=draw).tolist()
        with torch.autocast(device.type, torch.bfloat16):  # a third off each step where the CPU multiplies bfloat16
            losses = model.loss_on_clip(*cache.batch(variants, ends, length, device), model.context_frames(length))
            loss, _ = model.parse_losses(losses)
        descent.step(loss)
        running += float(loss.detach())
        if (iteration + 1) % 100 == 0:
            seconds = time.perf_counter() - start
            print_log(f'  iteration {iteration + 1}/{budget.iterations}: loss {running / 100:.3f}, {seconds:.0f} s', 'current')
            running = 0.0
    return time.perf_counter() - start


@torch.no_grad()
def predict(model: Any, cache: FeatureCache, history: str) -> list[dict[str, Any]]:
    """Streams the cached scenes in lockstep; one result per frame, in data-set order.

    Args:
        history: one of HISTORIES.
    """
    model.eval()
    model.session.clear()
    scenes = list(cache.scenes.values())
    results: dict[int, Det3DDataSample] = {}
    memory: Any = None
    for t in range(max(len(scene) for scene in scenes)):
        positions = [scene[t] for scene in scenes if t < len(scene)]
        clip, samples = cache.batch([0] * len(positions), positions, 1, model.data_preprocessor.device)
        samples = copy.deepcopy(samples)
        if model.temporal is None or history == 'own':
            found = model.predict_on_clip(clip, samples)
        elif history == 'none':
            model.session.clear()
            for sample in samples:
                sample.set_metainfo(dict(is_scene_start=True))
            found = model.predict_on_clip(clip, samples)
        else:
            found, memory = _step_with_other(model, clip, samples, memory)
        results.update(zip(positions, found))
    return [dict(pred_instances_3d=results[i].pred_instances_3d.cpu().to_dict(), sample_idx=results[i].sample_idx)
            for i in range(len(cache.samples[0]))]


def _step_with_other(model: Any, clip: EncodedClip, samples: Sequence[Det3DDataSample], memory: Any) -> tuple[Any, Any]:
    """Each scene reads what the next scene wrote; poses and stamps are its own throughout."""
    if len(samples) < 2:
        raise ValueError("history='other' needs two scenes of the same length")
    frames, features = model.steps_of(clip, samples)[0], clip.at(0)
    memory = model.temporal.init_state(features) if memory is None else memory
    out = model.step(features, memory, frames)
    outputs = out.outputs or model.head(features, out.readout, None, [sample.metainfo for sample in samples])
    others = features.take([*range(features.batch_size)][-1:] + [*range(features.batch_size)][:-1])
    written = model.step(others, memory, frames).state
    return model.add_pred_to_datasample(list(samples), outputs.found), written


def score(cfg: Config, predictions: list[dict[str, Any]], official: bool) -> dict[str, float]:
    """Scores by the config's evaluators; `official` False leaves out mAP and NDS."""
    scores: dict[str, float] = {}
    for evaluator in cfg.test_evaluator:
        if evaluator.type == 'OrderedNuScenesMetric' and not official:
            continue
        metric = METRICS.build(copy.deepcopy(evaluator))
        metric.dataset_meta = dict(classes=cfg.class_names)
        metric.process({}, copy.deepcopy(predictions))
        scores.update(metric.evaluate(len(predictions)))
    return scores
