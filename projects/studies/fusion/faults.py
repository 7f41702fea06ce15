"""Study. In: the trained rows of one seed. Out: their scores with wrong calibrations and false images, a file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from projects.memfusion.runtime.launch import build_runner, set_work_dir
from projects.studies.memory.rows import Row
from projects.studies.robustness.run import ResultFile, Scores, file_id, run_conditions, test_once

from .rows import LIDAR_ONLY, ROWS, SWEPT, SWEPT_WORLDS
from .run import load_row

FAULTS = ('rotation_deg', 'translation_m')
"""Groups of conditions beside the clean one and the false images."""


def result_path(folder: Path, row: str, root: Path) -> Path:
    """Where the scores of a row in one world are stored; `folder` is the seed's."""
    return folder / 'robustness' / row / f'{root.name}.json'


def run_faults(roots: Sequence[Path], folder: Path) -> None:
    """Tests the rows of SWEPT that are trained in the first SWEPT_WORLDS worlds; stored conditions are skipped."""
    rows = {row.name: row for row in ROWS}
    lidar_only = rows[LIDAR_ONLY]
    for row in (rows[name] for name in SWEPT):
        weights = [folder / f'{name}.pth' for name in (row.name, LIDAR_ONLY)]
        if not all(path.is_file() for path in weights):
            continue
        detector = dict(config=row.config, weights=' '.join(file_id(path) for path in weights))
        for root in roots[:SWEPT_WORLDS]:
            print_log(f'{row.title}, {root.name}: wrong calibrations and false images', 'current')
            results = ResultFile(result_path(folder, row.name, root), detector)
            if results.content['lidar_only'] is None:
                results.content['lidar_only'] = _test_clean(lidar_only, root, folder)
                results.save()
            runner, cfg = _runner_of(row, root, folder)
            run_conditions(runner, cfg, results, FAULTS)


def _test_clean(row: Row, root: Path, folder: Path) -> Scores:
    runner, cfg = _runner_of(row, root, folder)
    return test_once(runner, cfg, cfg.test_dataloader)


def _runner_of(row: Row, root: Path, folder: Path) -> tuple[Runner, Config]:
    cfg = load_row(row.config, root)
    set_work_dir(cfg, row.config, str(folder / 'robustness' / 'logs'))
    cfg.load_from, cfg.resume = str(folder / f'{row.name}.pth'), False
    return build_runner(cfg), cfg
