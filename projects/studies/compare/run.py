"""Study, the order of events. In: worlds, rows and seeds. Out: one result file per row and seed; finished ones are skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.launch import init_registry
from projects.studies.fusion.frames import FusedFrames, camera_dataset
from projects.studies.fusion.run import Study, load_row, prepare
from projects.studies.fusion.train_row import build_row, predict, score
from projects.studies.memory.rows import Budget
from projects.studies.memory.train_row import train

from .images import image_weights
from .results import result_path
from .rows import LIDAR_ONLY, SWEPT_WORLDS, Compared
from .sweep import first_worlds, run_sweep

HEAD = 'pts_bbox_head.'


def run_rows(roots: Sequence[Path], out: Path, results: Path, seeds: Sequence[int], rows: Sequence[Compared],
             budget: Budget, image_steps: int) -> None:
    """Trains and tests what is not finished: all rows of the first seed, in their order, then those of the next.

    Args:
        roots: the worlds.
        out: folder of weights, features and submissions.
        results: folder of the result files.
        seeds: which.
        rows: which, in this order.
        budget: of every row.
        image_steps: on 2-D boxes, after which all rows' image branches start; 0: they start from scratch.
    """
    init_registry()
    for seed in seeds:
        missing = [row for row in rows if not result_path(results, row.name, seed).is_file()]
        if not missing:
            continue
        study = prepare(roots, out, seed)
        images = image_weights(roots, study.folder, seed, replace(budget, iterations=image_steps))
        for number, row in enumerate(missing):
            print_log(f'seed {seed}, row {number + 1} of {len(missing)}: {row.title}', 'current')
            run_row(study, row, budget, images, image_steps, result_path(results, row.name, seed))


def run_row(study: Study, row: Compared, budget: Budget, images: Mapping[str, Tensor], image_steps: int, path: Path) -> None:
    """Trains and tests one row; its scores are stored when they are whole.

    Args:
        study: what all rows of a seed share.
        row: which.
        budget: of its training.
        images: weights that its image branch starts from.
        image_steps: what these were trained for.
        path: of the result file.
    """
    cfg = load_row(row.config, study.roots[0])
    weights = study.weights
    if not row.writes_bev:  # its head is another one, which starts from scratch
        weights = {name: value for name, value in weights.items() if not name.startswith(HEAD)}
    model = build_row(cfg, weights, study.folder / 'pretrain', study.seed)
    known = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in images.items() if name in known}, strict=False)
    training, testing = (
        FusedFrames(**vars(cache), model=model, cameras=camera_dataset(loader.dataset, study.roots), seed=study.seed)
        for cache, loader in ((study.training, cfg.train_dataloader), (study.testing, cfg.test_dataloader)))
    said = dict(row=row.name, title=row.title, seed=study.seed, steps=budget.iterations, frames_a_step=budget.clips, lr=row.lr,
                image_steps=image_steps)
    train_or_load(model, study.folder / f'{row.name}.pth', said,
                  lambda: train(model, cfg, training, replace(budget, lr=row.lr), study.seed))
    result: dict[str, Any] = dict(said)
    result['worlds'] = test(study, row, model, testing)
    if row.name != LIDAR_ONLY:
        kept = first_worlds(study.testing, SWEPT_WORLDS, len(study.roots))
        frames = FusedFrames(**vars(kept), model=model, cameras=None, seed=study.seed)
        result['sweep'] = run_sweep(model, cfg, frames, study.roots[:SWEPT_WORLDS], study.folder / 'submissions' / row.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(rounded(result), indent=1) + '\n')


def train_or_load(model: Any, path: Path, said: dict[str, Any], train_it: Callable[[], float]) -> None:
    """Trains, unless the weights in `path` are of the same training."""
    if path.is_file():
        stored = safe_load(path, map_location='cpu')
        if stored.get('meta') == said:
            model.load_state_dict(stored['state_dict'])
            return
    train_it()
    torch.save(dict(meta=said, state_dict=weights_to_cpu(model.state_dict())), path)


def test(study: Study, row: Compared, model: Any, testing: FusedFrames) -> list[dict[str, float]]:
    """The scores of each world."""
    predictions = predict(model, testing)
    cfg, share = load_row(row.config, study.roots[0]), len(predictions) // len(study.roots)  # all worlds are of one preset
    return [score(cfg, predictions[i * share:(i + 1) * share], root, study.folder / 'submissions' / row.name / root.name)
            for i, root in enumerate(study.roots)]


def rounded(value: Any) -> Any:
    """The same with five digits after the point: what is committed need not say more."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value
