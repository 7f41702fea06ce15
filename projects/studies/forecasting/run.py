"""Study, the order of events. In: a world, rows, seeds. Out: one result file per row and seed; finished ones are skipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from nuscenes.eval.prediction.data_classes import Prediction
from nuscenes.eval.prediction.metrics import OffRoadRate, RowMean

from projects.memfusion.data.files import write_text
from projects.memfusion.data.prediction_tables import prediction_helper
from projects.memfusion.metrics.forecast_baselines import predict_baseline
from projects.memfusion.metrics.forecast_metric import ForecastScorer
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.structures import Agents, Forecast
from projects.studies.compare.run import rounded
from projects.studies.memory.rows import Budget

from .neighbours import true_neighbours
from .rows import NEIGHBOURS, Row
from .train import StoredFeatures, run_head, standardised, store_features, train_head, train_memory
from .world import ForecastWorld, flattened, load_config, load_world, training_roots

MANEUVERS = 'maps/prediction/maneuvers.json'
DECIDED = 'decided'
"""Stratum of all agents that brake, yield or turn: where the scene decides."""


def result_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'{row}-{seed}.json'


class Study:
    """What rows share: the world's agents, memories and features of each seed, made when they are first wanted.

    Args:
        root: the world's folder.
        out: folder of the stored features.
        memory, head: budgets.
    """

    def __init__(self, root: Path, out: Path, memory: Budget, head: Budget) -> None:
        self.root, self.out, self.memory, self.head = root, out, memory, head
        self._worlds: dict[tuple[str, str], ForecastWorld] = {}
        helper = prediction_helper(str(root), load_config(root).test_dataloader.dataset.version)
        strata = json.loads((root / MANEUVERS).read_text())
        out.mkdir(parents=True, exist_ok=True)
        decided = {token: DECIDED for token, kind in strata.items() if kind != 'keep'}
        write_text(out / 'decided.json', json.dumps(decided))
        off_road = OffRoadRate(helper, [RowMean()]) if (root / 'maps' / 'expansion').is_dir() else None
        self.scorers = (ForecastScorer(helper, off_road, str(root / MANEUVERS)),
                        ForecastScorer(helper, None, str(out / 'decided.json')))
        self.helper = helper

    def world(self, phase: str, kind: str = 'map') -> ForecastWorld:
        """All clips to learn from, of all worlds, or to test on, of one of WORLDS."""
        if (phase, kind) not in self._worlds:
            roots = training_roots(self.root) if phase == 'train' else [self.root]
            self._worlds[phase, kind] = ForecastWorld.join([load_world(load_config(root, kind), phase) for root in roots])
        return self._worlds[phase, kind]

    def features(self, kind: str, seed: int) -> dict[str, StoredFeatures]:
        """Of the agents of 'train' and 'test', and of the latter with another scene's rasters ('other')."""
        cfg = load_config(self.root, kind)
        shown = cfg.model.to_dict(), cfg.forecast_pipeline, str(self.root.resolve())  # what else features may be of is not read
        settings = hashlib.sha256(repr(shown).encode()).hexdigest()[:8]
        path = self.out / f'{kind}-{seed}-{self.memory.iterations}-{settings}.pt'
        if not path.is_file():
            training, testing = self.world('train', kind), self.world('test', kind)
            model = train_memory(cfg, training, self.memory, seed)
            stored = dict(train=store_features(model, training), test=store_features(model, testing),
                          other=store_features(model, testing, testing.of_other_scenes()))
            torch.save({name: vars(one) for name, one in stored.items()}, path)
        return {name: StoredFeatures(**parts) for name, parts in safe_load(path).items()}

    @cached_property
    def neighbours(self) -> dict[str, StoredFeatures]:
        """Of the agents of 'train' and 'test': what is truly before them now, the same in every frame."""
        stored = {}
        for phase, roots in dict(train=training_roots(self.root), test=[self.root]).items():
            world, parts = self.world(phase), []
            for number, root in enumerate(roots):
                helper = prediction_helper(str(root), load_config(root)[f'{phase}_dataloader'].dataset.version)
                parts += [true_neighbours(helper, one.tokens[0]) for one in world.agents_of(number)]
            values = torch.cat(parts)[:, None].expand(-1, world.agents[0].num_frames, -1)
            stored[phase] = StoredFeatures({NEIGHBOURS: values}, {NEIGHBOURS: torch.ones(values.shape[:2])})
        return stored

    def score(self, agents: Agents, forecast: Forecast) -> dict[str, float]:
        """Scores of all agents, of each manoeuvre and of those that the scene decides."""
        xy, probabilities = forecast.global_xy(agents)[0].numpy(), forecast.logits[0].double().softmax(dim=-1).numpy()
        tokens = agents.tokens[0]
        return self.score_predictions(tokens, [Prediction(*token.split('_'), xy[row], probabilities[row])
                                               for row, token in enumerate(tokens)])

    def score_predictions(self, tokens: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        """As `score`."""
        every, decided = (scorer.score(tokens, predictions) for scorer in self.scorers)
        return every | {name: value for name, value in decided.items() if name.startswith(f'{DECIDED}/')}


def run_rows(root: Path, out: Path, results: Path, plan: Sequence[tuple[Row, int]],
             memory: Budget, head: Budget) -> None:
    """Trains and scores what is not finished, in this order.

    Args:
        root: the world.
        out: folder of stored features: what lies there is used.
        results: folder of the result files.
        plan: rows and seeds.
        memory, head: budgets of every memory and of every row.
    """
    init_registry()
    missing = [(row, seed) for row, seed in plan if not result_path(results, row.name, seed).is_file()]
    if not missing:
        return
    study = Study(root, out, memory, head)
    for number, (row, seed) in enumerate(missing):
        print_log(f'{row.title}, seed {seed}: {number + 1} of {len(missing)}', 'current')
        result = run_row(study, row, seed)
        path = result_path(results, row.name, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rounded(result), indent=1) + '\n')


def run_row(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """What is stored of a row: its scores, and `other` where memory is given another scene's rasters."""
    result: dict[str, Any] = dict(row=row.name, title=row.title, seed=seed)
    testing = flattened(study.world('test').agents)
    tokens = testing.tokens[0]
    if row.devkit is not None:
        made = predict_baseline(row.devkit, None, study.helper, tokens)
        return result | dict(agents=len(tokens), scores=study.score_predictions(tokens, made))
    stored = None
    if row.pooling is not None:
        stored = study.features(row.world, seed) if row.has_memory else study.neighbours
    training = flattened(study.world('train').agents)
    if stored is not None and row.has_memory and row.pooling is not None:
        stored = standardised(stored, row.pooling, training.history_valid[0])
    head, seconds = train_head(row, training, None if stored is None else stored['train'], study.head, seed)
    result |= dict(agents=len(tokens), steps=study.head.iterations, train_seconds=seconds)
    if row.has_memory:
        result['memory_steps'] = study.memory.iterations
    every = torch.arange(len(tokens))
    with torch.no_grad():
        for name, part in dict(scores='test', other='other').items():
            if part == 'test' or stored is not None and part in stored:
                forecast = run_head(head, row, testing, None if stored is None else stored[part], every)
                result[name] = study.score(testing, forecast)
    said = result['scores']
    print_log(f'  minADE_5 {said["minADE_5"]:.3f}, minFDE_1 {said["minFDE_1"]:.3f} m, {seconds:.0f} s', 'current')
    return result
