"""Study, the order of events. In: a folder and seeds. Out: one JSON file per row and seed; finished ones are skipped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import weights_to_cpu

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.run_checks import check_run

from .cache import FeatureCache, load_or_encode
from .rows import FOLDER, PLAIN, ROWS, Budget, Row
from .train_row import HISTORIES, build_row, predict, score, train


def run_tool(*arguments: str) -> None:
    """Runs one of the tools, with its output shown; raises CalledProcessError where it fails."""
    print_log(f'running: python {" ".join(arguments)}', 'current')
    subprocess.run([sys.executable, *arguments], check=True)


def make_data(root: Path, preset: str = 'occlusion') -> None:
    """The world of this preset, made and prepared where it is missing."""
    if not (root / 'nuscenes_infos_val.pkl').is_file():
        run_tool('tools/create_synthetic_nuscenes.py', '--preset', preset, '--out', str(root))
        run_tool('tools/create_data.py', 'nuscenes', '--root-path', str(root), '--version', 'v1.0-mini')


def load_row(row: Row, data_root: Path) -> Config:
    """The row's config, reading `data_root`."""
    cfg = Config.fromfile(row.config)
    check_run(cfg, 'train')
    check_run(cfg, 'test')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{data_root}/'
    for evaluator in cfg.test_evaluator:
        evaluator.ann_file = f'{data_root}/nuscenes_infos_val.pkl'
        if 'data_root' in evaluator:
            evaluator.data_root = f'{data_root}/'
    return cfg


def train_plain(data_root: Path, folder: Path, seed: int, config: str = PLAIN) -> dict[str, torch.Tensor]:
    """The plain detector's weights for this seed, trained by the config of that row where they are missing."""
    last = folder / 'plain_detector' / 'last_checkpoint'
    done = folder / 'plain_detector' / 'done'
    if not done.is_file():
        root = f'{data_root}/'
        run_tool('tools/train.py', f'{FOLDER}/{config}.py', '--work-dir', str(last.parent), '--cfg-options',
                 f'randomness.seed={seed}', f'train_dataloader.dataset.data_root={root}',
                 f'train_dataloader.dataset.seed={seed}', f'val_dataloader.dataset.data_root={root}',
                 'val_evaluator=None', 'val_dataloader=None', 'val_cfg=None')
        done.write_text(last.read_text())
    return safe_load(last.read_text().strip(), map_location='cpu')['state_dict']


def plain_features(plain: Config, weights: dict[str, torch.Tensor], folder: Path, variants: int,
                   seed: int) -> tuple[FeatureCache, FeatureCache]:
    """Stored features of the plain detector: of the training set in some variants, and of the test set."""
    model = build_row(plain, weights, seed).eval()
    return (load_or_encode(folder / 'train_features.pt', model, plain.train_dataloader.dataset, variants, seed),
            load_or_encode(folder / 'test_features.pt', model, plain.test_dataloader.dataset, 1, seed))


def start_from_plain(row: Row, data_root: Path, folder: Path, seed: int, variants: int,
                     config: str = PLAIN) -> tuple[dict[str, torch.Tensor], FeatureCache, FeatureCache]:
    """What every row of a seed starts from, made in `folder` where it is missing: weights, training and test features.

    Args:
        row: of a plain detector, whose data sets are encoded.
        variants: augmented passes over the training frames.
        config: name of the config that trains the weights.
    """
    plain = load_row(row, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    weights = train_plain(data_root, folder, seed, config)
    return weights, *plain_features(plain, weights, folder, variants, seed)


def run_seed(data_root: Path, out: Path, seed: int, rows: Sequence[Row] = ROWS) -> None:
    """Everything of one seed; what is finished is skipped."""
    init_default_scope('mmdet3d')
    budget, folder = Budget(), out / f'seed{seed}'
    missing = [row for row in rows if not (folder / f'{row.name}.json').is_file()]
    if not missing:
        return
    weights, training, testing = start_from_plain(ROWS[0], data_root, folder, seed, budget.variants)
    for number, row in enumerate(missing):
        print_log(f'seed {seed}, row {number + 1} of {len(missing)}: {row.title}', 'current')
        run_row(row, load_row(row, data_root), weights, training, testing, budget, seed, folder)


def run_row(row: Row, cfg: Config, weights: dict[str, torch.Tensor], training: FeatureCache, testing: FeatureCache,
            budget: Budget, seed: int, folder: Path) -> None:
    """Trains and tests one row; its scores are stored when they are whole."""
    model = build_row(cfg, weights, seed)
    seconds = train(model, cfg, training, budget, seed)
    torch.save(weights_to_cpu(model.state_dict()), folder / f'{row.name}.pth')
    scores: dict[str, Any] = {}
    for history in HISTORIES if model.temporal is not None else ('own',):
        scores[history] = score(cfg, predict(model, testing, history), official=history == 'own')
    result = dict(row=row.name, title=row.title, seed=seed, train_seconds=round(seconds, 1), scores=scores)
    write_text(folder / f'{row.name}.json', json.dumps(result, indent=1))
