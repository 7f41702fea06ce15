"""Study, of a memory that copies. In: a folder and seeds. Out: one JSON file a row and seed; finished ones are skipped.

As the first study, in a world of longer occlusions: labels of what was seen within 6 s, clips longer than any row's slots, two
scores per box. The plain detector that all rows start from is taught what holds points, and twice as long: of labels that
nothing shows it learns to doubt what it sees, and what is not found when it is seen is not found behind a wall either.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import weights_to_cpu

from projects.memfusion.data.files import write_text
from projects.memfusion.data.transforms.box_points import count_own_points
from projects.memfusion.structures.box_scores import EXISTS, SEEN

from .cache import FeatureCache
from .rows import Budget, Row
from .run import load_row, make_data, start_from_plain
from .train_row import HISTORIES, build_row, predict, score, train

PRESET = 'occlusion_long'
BASE, PLAIN, STACK = 'copy_base', 'copy_plain', 'copy_stack4'
POINTS = 'points'
"""Prefix of the official score of boxes that hold a point."""
_CLASS_AP = re.compile(r'downweight/.*/(\w+)_AP_dist_[\d.]+')
CLASS_AP = 'downweight/AP_'
"""Prefix of a class's downweighted official AP, the mean over the distances."""
_STORED = ('NuScenes metric/mAP', 'NuScenes metric/NDS', 'drop/mAP', 'downweight/mAP', CLASS_AP, f'{POINTS}/mAP', 'memory/mAP',
           'memory/flicker', 'memory/recall_', 'memory/num_', 'memory/seen_', 'memory/score_threshold')
_FIT_CELLS = 40_000
CLAIMED, SEARCHED = 1000, 250
"""Iterations of the rows that are claimed, and of those of the search, which are compared with each other."""


@dataclass(frozen=True)
class CopyRow(Row):
    """seeds: how many seeds it is run with; iterations: of training; of: the row whose config it has, if not its own."""

    seeds: int = 1
    iterations: int = SEARCHED
    of: str = ''

    @property
    def config(self) -> str:
        return replace(self, name=self.of, of='').config if self.of else super().config

    def searched(self) -> CopyRow:
        """This row with the budget of the search, to compare its rows with."""
        return replace(self, name=f'{self.name}_{SEARCHED}', title=f'{self.title} ({SEARCHED} steps)', iterations=SEARCHED,
                       of=self.name)


_CLAIMED_ROWS = tuple(CopyRow(name, title, 'claim', 3, CLAIMED) for name, title in (
    (PLAIN, 'plain, no memory'),
    ('copy_world', 'copy, 3 slots, what leaves them in a world map'),
    (STACK, 'stack of 4'),
    ('copy_stack4_control', 'stack of 4, given `observed` and the copying start'),
    ('copy_convgru', 'ConvGRU'),
    ('copy_plain_seen', 'plain, taught only what holds points'),
    ('copy_gru', 'copying ConvGRU')))
ROWS = (
    *_CLAIMED_ROWS,
    *(row.searched() for row in _CLAIMED_ROWS),
    CopyRow('copy', 'copy, 3 slots', 'control'),
    CopyRow('copy_slots6', 'copy, 6 slots', 'control'),
    CopyRow('copy_stack8', 'stack of 8', 'control'),
    CopyRow('copy_ego0', 'copy, no ego compensation', 'control'),
    CopyRow('copy_every2', 'copy, 6 slots, every 2nd frame', 'search'),
    CopyRow('copy_bev', 'copy, values are the features, half precision', 'search'),
    CopyRow('copy_copyonly', 'copy without mix', 'search'),
    CopyRow('copy_mixonly', 'mix only, learned values', 'search'),
    CopyRow('copy_deep', "mix only, XMem's value path", 'search'),
    CopyRow('copy_keys', 'copy, with keys', 'search'),
    CopyRow('copy_policy', 'copy, a policy keeps the frames', 'search'),
    CopyRow('copy_residual', 'XMem, residual', 'search'),
    CopyRow('copy_logodds', 'XMem, gate in log-odds', 'search'),
    CopyRow('copy_longterm', 'XMem, residual, long-term memory', 'search'),
    CopyRow('copy_gate', 'XMem, gate', 'search'),
)


def result_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'{row}-{seed}.json'


def run_seed(data_root: Path, out: Path, results: Path, seed: int, rows: Sequence[CopyRow] = ROWS,
             more_seeds: bool = False) -> None:
    """Everything of the `seed`-th seed, counted from 0; finished rows are skipped, and so, without `more_seeds`, are those that
    are to be run with fewer."""
    missing = [row for row in rows if (more_seeds or seed < row.seeds) and not result_path(results, row.name, seed).is_file()]
    if not missing:
        return
    init_default_scope('mmdet3d')
    make_data(data_root, PRESET)
    folder = out / f'copying_seed{seed}'
    weights, training, testing = start_from_plain(ROWS[0], data_root, folder, seed, Budget().variants, BASE)
    clouds = load_clouds(load_row(ROWS[0], data_root).test_dataloader.dataset)
    for number, row in enumerate(missing):
        print_log(f'seed {seed}, row {number + 1} of {len(missing)}: {row.title}', 'current')
        result, state = run_row(row, load_row(row, data_root), weights, training, testing, clouds, seed)
        torch.save(state, folder / f'{row.name}.pth')
        results.mkdir(parents=True, exist_ok=True)
        write_text(result_path(results, row.name, seed), json.dumps(result, indent=1) + '\n')


def run_row(row: CopyRow, cfg: Config, weights: dict[str, torch.Tensor], training: FeatureCache, testing: FeatureCache,
            clouds: Sequence[Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains and tests one row; what is stored of it, and its weights."""
    model = build_row(cfg, weights, seed)
    fit = getattr(model.temporal, 'fit_values', None)
    if fit is not None:
        fit(some_cells(training, seed).to(model.data_preprocessor.device))
    shown = training if cfg.train_dataloader.dataset.keep_seen_s else without_hidden(training)
    seconds = train(model, cfg, shown, replace(Budget(), iterations=row.iterations), seed)
    scores: dict[str, dict[str, float]] = {}
    for history in HISTORIES if model.temporal is not None else HISTORIES[:1]:
        found = predict(model, testing, history)
        scores[history] = score(cfg, found, official=history == 'own')
        if history == 'own':
            scores[history].update(class_aps(scores[history]), **score_by_points(cfg, found, clouds))
    kept = {history: {name: round(value, 5) for name, value in values.items() if name.startswith(_STORED)}
            for history, values in scores.items()}
    result = dict(row=row.name, title=row.title, seed=seed, iterations=row.iterations,
                  seq_len=cfg.train_dataloader.dataset.seq_len, train_seconds=round(seconds, 1), scores=kept)
    return result, weights_to_cpu(model.state_dict())


def class_aps(scores: Mapping[str, float]) -> dict[str, float]:
    """The downweighted official AP of each class, named with CLASS_AP: the mean over the distances of the scores given."""
    values: dict[str, list[float]] = {}
    for name, value in scores.items():
        if found := _CLASS_AP.fullmatch(name):
            values.setdefault(CLASS_AP + found[1], []).append(value)
    return {name: mean(aps) for name, aps in values.items()}


def some_cells(cache: FeatureCache, seed: int) -> torch.Tensor:
    """(N, C) features of cells drawn from all frames of the first variant."""
    draw = torch.Generator().manual_seed(seed)
    bev = cache.bev[0]
    frames, _, height, width = bev.shape
    each = max(1, min(_FIT_CELLS // frames, height * width))
    cells = torch.randint(height * width, (each,), generator=draw)
    return torch.cat([frame.flatten(1)[:, cells].T.float() for frame in bev])


def without_hidden(cache: FeatureCache) -> FeatureCache:
    """The same frames, with the truth that holds points now."""
    shown: list[list[Det3DDataSample]] = []
    for variant in cache.samples:
        shown.append([])
        for sample in variant:
            seen = copy.copy(sample)
            seen.gt_instances_3d = sample.gt_instances_3d[sample.gt_instances_3d.num_points > 0]
            shown[-1].append(seen)
    return replace(cache, samples=shown)


def load_clouds(dataset_cfg: Config) -> list[Any]:
    """The points (P, D) of every test frame, numpy."""
    dataset = DATASETS.build({**dataset_cfg, 'seq_len': 1, 'stride': 1})
    return [dataset[position][0]['inputs']['points'].numpy() for position in range(len(dataset))]


def score_by_points(cfg: Config, predictions: Sequence[dict[str, Any]], clouds: Sequence[Any]) -> dict[str, float]:
    """The official score of the boxes that hold a point of their frame, named with POINTS: visibility without training."""
    counted = []
    for one in predictions:
        boxes = one['pred_instances_3d']
        held = count_own_points(clouds[one['sample_idx']], boxes['bboxes_3d'].tensor.numpy()) > 0
        seen = torch.from_numpy(held).to(boxes['scores_3d'])
        counted.append({**one, 'pred_instances_3d': {**boxes, EXISTS: boxes['scores_3d'], SEEN: seen}})
    by_points = copy.deepcopy(cfg)
    by_points.test_evaluator = [{**cfg.test_evaluator[0], 'hidden_boxes': 'drop', 'prefix': POINTS}]
    return score(by_points, counted, official=True)
