"""Study, the order of events. In: a folder and seeds. Out: one JSON file per row and seed; finished ones are skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.launch import build_runner, init_registry, prepare_config
from projects.memfusion.runtime.run_checks import check_run
from projects.studies.memory.cache import FeatureCache
from projects.studies.memory.rows import Row
from projects.studies.memory.run import run_tool
from projects.studies.memory.train_row import train

from .frames import FusedFrames, camera_dataset, load_or_encode, read_world
from .rows import BUDGET, LIDAR_ONLY, PRETRAIN, ROWS, WORLDS
from .train_row import build_row, predict, score


@dataclass(frozen=True)
class Study:
    """One seed: the worlds' folders, where its results go, the LiDAR-only weights and the features that they make."""

    roots: Sequence[Path]
    folder: Path
    seed: int
    weights: dict[str, Tensor]
    training: FeatureCache
    testing: FeatureCache


def make_worlds(data_root: Path) -> list[Path]:
    """Folders of the synthetic worlds (preset tiny, seeds from 0), made and prepared where they are missing."""
    roots = [data_root / f'world{seed}' for seed in range(WORLDS)]
    for seed, root in enumerate(roots):
        if not (root / 'nuscenes_infos_val.pkl').is_file():
            run_tool('tools/create_synthetic_nuscenes.py', '--preset', 'tiny', '--seed', str(seed), '--out', str(root))
            run_tool('tools/create_data.py', 'nuscenes', '--root-path', str(root), '--version', 'v1.0-mini',
                     '--skip-gt-database')
    return roots


def load_row(config: str, root: Path) -> Config:
    """The config, reading one world, without worker processes."""
    cfg = prepare_config(config)
    check_run(cfg, 'train')
    check_run(cfg, 'test')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{root}/'
        loader.num_workers, loader.persistent_workers = 0, False
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.data_root, evaluator.ann_file = f'{root}/', f'{root}/nuscenes_infos_val.pkl'
    return cfg


def pretrain(roots: Sequence[Path], folder: Path, seed: int) -> dict[str, Tensor]:
    """Weights of the LiDAR-only detector for this seed, trained on all worlds where they are missing."""
    done = folder / 'pretrain' / 'done'
    if not done.is_file():
        cfg = load_row(PRETRAIN, roots[0])
        dataset = cfg.train_dataloader.dataset
        dataset.seed = cfg.randomness.seed = seed
        cfg.train_dataloader.dataset = ConfigDict(
            type='ConcatDataset', datasets=[read_world(dataset, root) for root in roots])
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
        cfg.default_hooks.checkpoint.save_best = None
        cfg.work_dir, cfg.experiment_name = str(done.parent), f'pretrain_{seed}'
        build_runner(cfg).train()
        done.write_text((done.parent / 'last_checkpoint').read_text())
    return safe_load(str(pretrained(folder)), map_location='cpu')['state_dict']


def pretrained(folder: Path) -> Path:
    """The checkpoint of a seed's LiDAR-only detector; a file that is not there where it is not trained yet."""
    done = folder / 'pretrain' / 'done'
    return Path(done.read_text().strip()) if done.is_file() else folder / 'pretrain' / 'epoch_1.pth'


def prepare(roots: Sequence[Path], out: Path, seed: int) -> Study:
    """What all rows of a seed share."""
    folder = out / f'seed{seed}'
    folder.mkdir(parents=True, exist_ok=True)
    weights = pretrain(roots, folder, seed)
    cfg = load_row(f'configs/study/{LIDAR_ONLY}.py', roots[0])
    model = build_row(cfg, weights, folder / 'pretrain', seed).eval()
    training, testing = (
        load_or_encode(folder / f'{split}_features.pt', model, loader.dataset, roots, variants, seed)
        for split, loader, variants in (('train', cfg.train_dataloader, BUDGET.variants), ('test', cfg.test_dataloader, 1)))
    return Study(roots, folder, seed, weights, training, testing)


def run_seed(roots: Sequence[Path], out: Path, seed: int, rows: Sequence[Row] = ROWS) -> None:
    """Everything of one seed; what is finished is skipped."""
    init_registry()
    missing = [row for row in rows if not (out / f'seed{seed}' / f'{row.name}.json').is_file()]
    if not missing:
        return
    study = prepare(roots, out, seed)
    for number, row in enumerate(missing):
        print_log(f'seed {seed}, row {number + 1} of {len(missing)}: {row.title}', 'current')
        run_row(study, row)


def run_row(study: Study, row: Row) -> None:
    """Trains and tests one row; its scores are stored when they are whole."""
    cfg = load_row(row.config, study.roots[0])
    model = build_row(cfg, study.weights, study.folder / 'pretrain', study.seed)
    training, testing = (
        FusedFrames(**vars(cache), model=model, cameras=camera_dataset(loader.dataset, study.roots), seed=study.seed)
        for cache, loader in ((study.training, cfg.train_dataloader), (study.testing, cfg.test_dataloader)))
    seconds = train(model, cfg, training, BUDGET, study.seed)
    torch.save(dict(state_dict=weights_to_cpu(model.state_dict())), study.folder / f'{row.name}.pth')
    predictions = predict(model, testing)
    scores, share = [], len(predictions) // len(study.roots)  # all worlds are of one preset
    for number, root in enumerate(study.roots):
        folder = study.folder / 'submissions' / row.name / root.name
        scores.append(score(cfg, predictions[number * share:(number + 1) * share], root, folder))
    result: dict[str, Any] = dict(
        row=row.name, title=row.title, seed=study.seed, train_seconds=round(seconds, 1), worlds=scores)
    write_text(study.folder / f'{row.name}.json', json.dumps(result, indent=1))
