"""Study. In: the forecast world. Out: a detector that forecasts beside, and each task alone: one result file each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from projects.memfusion.data.files import write_text
from projects.studies.compare.run import rounded
from projects.studies.memory.run import run_tool

from .run import result_path

FOLDER, TAIL = Path('configs/forecasting'), 'pillar04_tiny-synthetic.py'
PERCEPTION = 'shared-perception'


@dataclass(frozen=True)
class Task:
    """name: of its result file; title: in the table; config: that trains it, from stage 1's checkpoint unless it is stage 1;
    tests: configs that its checkpoint is tested with."""

    name: str
    title: str
    config: str
    tests: tuple[str, ...]


TASKS = (
    Task('shared_start', 'stage 1: boxes', PERCEPTION, (PERCEPTION,)),
    Task('shared_boxes', 'boxes alone', 'shared-boxes-alone', (PERCEPTION,)),
    Task('shared_futures', 'futures alone', 'shared-futures', ('shared-futures',)),
    Task('shared_both', 'both on one network', 'shared-all', ('shared-all', 'shared-boxes')),
)
SCORES = {
    'NuScenes metric/NDS': 'NDS', 'NuScenes metric/mAP': 'mAP', 'forecast/minADE_5': 'minADE_5',
    'forecast/minFDE_1': 'minFDE_1', 'detected/minADE_5': 'minADE_5, found', 'detected/minFDE_1': 'minFDE_1, found',
    'detected/recall': 'found'}


def run_shared(root: Path, out: Path, results: Path, options: Sequence[str] = ()) -> None:
    """Trains and tests what is not finished, by tools/train.py and tools/test.py, in the order of TASKS.

    Args:
        root: the world.
        out: folder of configs and checkpoints; what was trained to its end is not trained again.
        results: folder of the result files.
        options: more --cfg-options of the training runs.
    """
    for task in TASKS:
        path = result_path(results, task.name, 0)
        if path.is_file():
            continue
        print_log(f'{task.title}: configs/forecasting/{task.config}_{TAIL}', 'current')
        folder = out / task.name
        start = [] if task.config == PERCEPTION else [f'load_from={checkpoint_of(out / TASKS[0].name)}']
        more = ['--cfg-options', *start, *options] if start or options else []
        if not (folder / 'done').is_file():
            run_tool('tools/train.py', str(write_config(task.config, root, folder)), '--work-dir', str(folder), *more)
            (folder / 'done').touch()
        scores: dict[str, Any] = {}
        for name in task.tests:
            tested = folder / f'test_{name}'
            run_tool('tools/test.py', str(write_config(name, root, tested)), str(checkpoint_of(folder)), '--work-dir',
                     str(tested))
            scores |= json.loads(max(tested.glob('2*/2*.json')).read_text())
        kept = {name: value for name, value in scores.items() if name in SCORES or name.startswith(('forecast/', 'detected/'))}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rounded(dict(row=task.name, title=task.title, seed=0, options=list(options),
                                                 scores=kept)), indent=1) + '\n')


def checkpoint_of(folder: Path) -> Path:
    """The last checkpoint of a training run; a file that is not there where nothing was trained."""
    last = folder / 'last_checkpoint'
    return Path(last.read_text().strip()) if last.is_file() else folder / 'epoch_1.pth'


def write_config(name: str, root: Path, folder: Path) -> Path:
    """A config of this name that reads `root`, as a file in the folder."""
    cfg = Config.fromfile(FOLDER / f'{name}_{TAIL}')
    cfg.load_from = None
    for phase in ('train', 'val', 'test'):
        cfg[f'{phase}_dataloader'].dataset.data_root = f'{root}/'
    for phase in ('val', 'test'):
        evaluators = cfg[f'{phase}_evaluator']
        for one in evaluators if isinstance(evaluators, list) else [evaluators]:
            one.data_root = f'{root}/'
            for key, tail in (('ann_file', 'nuscenes_infos_val.pkl'), ('strata', 'maps/prediction/maneuvers.json')):
                if key in one:
                    one[key] = f'{root}/{tail}'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.py'
    write_text(path, ''.join(f'{key} = {value!r}\n' for key, value in cfg.to_dict().items()))  # dump formats for seconds
    return path


def shared_table(results: Path) -> str:
    """One line a task, with what its training was told beyond its config; '-' where it has no such score."""
    lines = ['| learns | ' + ' | '.join(SCORES.values()) + ' |', '|---|' + '---|' * len(SCORES)]
    for task in TASKS:
        path = result_path(results, task.name, 0)
        stored = json.loads(path.read_text()) if path.is_file() else {}
        scores, options = stored.get('scores', {}), ', '.join(stored.get('options', ()))
        cells = [f'{scores[name]:.3f}' if name in scores else '-' for name in SCORES]
        title = f'{task.title} (`{options}`)' if options else task.title
        lines.append(f'| {title} | ' + (' | '.join(cells) if scores else 'not run' + ' |' * (len(SCORES) - 1)) + ' |')
    return '\n'.join(lines)
