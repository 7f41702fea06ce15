"""Study, the order of events. In: a fused detector. Out: mAP and NDS under each condition; finished ones are skipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.errors import UserError

from .conditions import CLEAN, NO_CAMERAS, Condition, make_conditions, with_condition

Scores = dict[str, float]
SCORES = ('mAP', 'NDS')


def file_id(path: Path) -> str:
    """The first 16 digits of a file's SHA-256; UserError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error


def config_id(cfg: Config) -> str:
    """The first 16 digits of the SHA-256 of what a config says, options of the command line included."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ResultFile:
    """Scores by condition in DIR/robustness.json; one detector a file, written whole or not at all.

    Raises:
        UserError: where the file is of another detector, or is none.
    """

    def __init__(self, path: Path, detector: Mapping[str, str]) -> None:
        self.path = path
        self.content: dict[str, Any] = dict(detector=dict(detector), scores={}, lidar_only=None)
        if path.is_file():
            try:
                self.content = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise UserError(f'{path}: is no result file ({error}); remove it or give another --out') from error
            if self.content.get('detector') != dict(detector):
                raise UserError(f'{path}: holds results of {self.content.get("detector")}, not of {dict(detector)}: give '
                                'another --out, or remove the file')

    @property
    def scores(self) -> dict[str, Scores]:
        """Scores by the condition's name."""
        return self.content['scores']

    def save(self) -> None:
        """Writes the file."""
        if is_main_process():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(self.content, indent=1))


def official(metrics: Mapping[str, Any]) -> Scores:
    """mAP and NDS out of what a test loop returns, in percent; other metrics have an mAP, too, but no NDS beside it."""
    for prefix in (key.removesuffix('NDS') for key in metrics if key.rsplit('/', 1)[-1] == 'NDS'):
        if f'{prefix}mAP' in metrics:
            return {name: 100 * float(metrics[prefix + name]) for name in SCORES}
    raise UserError(f'test_evaluator gives no mAP and NDS (it gives {sorted(metrics)[:5]}...): use OrderedNuScenesMetric')


def test_once(runner: Runner, cfg: Config, dataloader: Any) -> Scores:
    """One run of the test loop over this loader, by the evaluators of 3-D boxes alone."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    boxes = [one for one in evaluators if issubclass(METRICS.get(one['type']), NuScenesMetric)] or evaluators
    runner._test_dataloader, runner._test_evaluator, runner._test_loop = dataloader, boxes, dict(cfg.test_cfg)
    return official(runner.test())


def rig_of(cfg: Config) -> tuple[int, str]:
    """Number of cameras, and the test set's info file; UserError where the config has no cameras, or does not name them."""
    dataset = cfg.test_dataloader.dataset
    load: Mapping[str, Any] | None = next((step for step in dataset.pipeline if step['type'] == 'LoadMultiViewImages'), None)
    if load is None:
        raise UserError(NO_CAMERAS)
    ann_file = str(Path(dataset.data_root) / dataset.ann_file)
    names: Sequence[str] | None = load.get('cam_names')
    if names is None:
        raise UserError('LoadMultiViewImages.cam_names is not set in the test pipeline: name the cameras of the rig')
    return len(names), ann_file


def run_conditions(runner: Runner, cfg: Config, results: ResultFile, groups: Sequence[str]) -> list[Condition]:
    """Tests under every condition that is not stored yet; returns all conditions of the groups."""
    conditions = make_conditions(*rig_of(cfg), groups)
    missing = [condition for condition in conditions if condition.name not in results.scores]
    for number, condition in enumerate(missing):
        print_log(f'condition {number + 1} of {len(missing)}: {condition.name}', 'current')
        results.scores[condition.name] = test_once(runner, cfg, with_condition(cfg.test_dataloader, condition))
        results.save()
    return conditions


def gains(scores: Mapping[str, Scores]) -> dict[str, float]:
    """How much mAP true images give beyond other images, blank ones, none; percent points."""
    return {name.removeprefix('images '): scores[CLEAN]['mAP'] - value['mAP']
            for name, value in scores.items() if name.startswith('images ')}
