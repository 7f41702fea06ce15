"""Study. In: the world of long occlusions. Out: whether StreamPETR's memory finds what is hidden: own history, another's, none.

Rows start from the plain detector of the copying study, which is taught what holds points, and its stored features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import check_architecture, safe_load
from projects.memfusion.runtime.launch import init_registry
from projects.studies.fusion.train_row import new_model
from projects.studies.memory.cache import FeatureCache
from projects.studies.memory.copying import BASE, PLAIN, PRESET, without_hidden
from projects.studies.memory.rows import Budget, Row
from projects.studies.memory.run import load_row, make_data, start_from_plain
from projects.studies.memory.train_row import HISTORIES, predict, score, train

from .run import HEAD, rounded

ROWS = (Row('streampetr', 'StreamPETR with its memory', 'history'),
        Row('streampetr_alone', 'StreamPETR without memory', 'history'))
FRAMES = Budget(iterations=1000, clips=8)
"""What both rows learn on before their clips, as the one without memory: single frames, what holds points in them."""
CLIPS = Budget(iterations=400, clips=2)
COLUMNS = {'hidden, seen before': 'memory/recall_0pts_seen', 'hidden, seen 2-6 s ago': 'memory/recall_0pts_seen_2-6s',
           '1-5 points, seen before': 'memory/recall_1-5pts_seen',
           '1-5 points, not seen before': 'memory/recall_1-5pts_not_seen', 'over 20 points': 'memory/recall_over20pts'}
COUNTS = 'memory/num_0pts_seen'


def history_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'history-{row}-{seed}.json'


def run_history(data_root: Path, out: Path, results: Path, seed: int, budget: Budget) -> None:
    """Trains the rows on the plain detector's stored LiDAR features and streams them; finished ones are skipped.

    Args:
        data_root: the world, made where it is missing.
        out: folder of weights and features, laid out as tools/study_memory.py --study copying has it.
        results: folder of the result files.
        seed: of everything.
        budget: of every row's clips.
    """
    init_registry()
    missing = [row for row in ROWS if not history_path(results, row.name, seed).is_file()]
    if not missing:
        return
    make_data(data_root, PRESET)
    folder = out / f'copying_seed{seed}'
    plain = Row(PLAIN, 'plain', 'history')
    weights, training, testing = start_from_plain(plain, data_root, folder, seed, budget.variants, BASE)
    first = learn_frames(data_root, weights, training, testing, folder, seed)
    for row in missing:
        print_log(f'{row.title}, seed {seed}', 'current')
        cfg = load_row(row, data_root)
        model = new_model(cfg, seed)
        begun = {name: value for name, value in first['state_dict'].items() if not name.endswith('.start_points')}
        model.load_state_dict({**model.state_dict(), **begun})
        model = model.to(get_device())
        seconds = train(model, cfg, training, budget, seed)
        torch.save(dict(state_dict=weights_to_cpu(model.state_dict())), folder / f'{row.name}.pth')
        scores = {history: score(cfg, predict(model, testing, history), official=history == 'own')
                  for history in (HISTORIES if model.temporal is not None else HISTORIES[:1])}
        results.mkdir(parents=True, exist_ok=True)
        write_text(history_path(results, row.name, seed), json.dumps(rounded(dict(
            row=row.name, title=row.title, seed=seed, frame_steps=FRAMES.iterations, frames=FRAMES.clips,
            steps=budget.iterations, clips=budget.clips, frame_seconds=first['seconds'], train_seconds=seconds,
            first=first['scores'], scores=scores)), indent=1) + '\n')


def learn_frames(data_root: Path, plain: dict[str, torch.Tensor], training: FeatureCache, testing: FeatureCache, folder: Path,
                 seed: int) -> dict[str, Any]:
    """state_dict of the row without memory after single frames, scores, and the seconds it took; made where it is missing.

    Args:
        data_root: the world.
        plain: weights of the plain detector, whose LiDAR part is taken.
        training, testing: its features.
        folder: where the answer is kept.
        seed: of everything.
    """
    path = folder / f'{ROWS[-1].name}_frames.pth'
    if not path.is_file():
        print_log(f'{ROWS[-1].title}, single frames, seed {seed}', 'current')
        cfg = load_row(ROWS[-1], data_root)
        model = new_model(cfg, seed)
        lidar = {name: value for name, value in plain.items() if not name.startswith(HEAD)}
        check_architecture(model, lidar, str(folder), allow_missing_slots=True)
        model.load_state_dict({**model.state_dict(), **lidar})
        model = model.to(get_device())
        seconds = train(model, cfg, without_hidden(training), FRAMES, seed, length=1)
        scores = score(cfg, predict(model, testing, HISTORIES[0]), official=False)
        torch.save(dict(state_dict=weights_to_cpu(model.state_dict()), scores=rounded(scores), seconds=seconds), path)
    return safe_load(path, map_location='cpu')


def history_section(results: Path) -> list[str]:
    """The table of all seeds that were run; what else is to be said where none was."""
    paths = [history_path(results, row.name, seed) for seed in seeds_of(results) for row in ROWS]
    parts = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if not parts:
        return ['StreamPETR on the world of long occlusions (`--history`): not run.']
    said, counts = parts[0], next(iter(parts[0]['scores'].values()))
    budget = f'{said["frame_steps"]} steps of {said["frames"]} single frames, {said["steps"]} of {said["clips"]} clips'
    boxes = f'{counts.get(COUNTS, 0):.0f} hidden boxes that were seen within 2 s'
    lines = [f'StreamPETR on LiDAR features of the world of long occlusions, streamed (`--history`; {budget}); recall in '
             f'percent at one false positive a frame ({boxes}). Single frames are what both rows begin with.', '',
             '| row | seed | history | ' + ' | '.join(COLUMNS) + ' |', '|' + '---|' * (3 + len(COLUMNS))]
    if missing := [path.stem.removeprefix('history-') for path in paths if not path.is_file()]:
        lines[0] += f' Not run: {", ".join(missing)}.'
    for part in parts:
        begun = {'single frames': part['first']} if part['row'] == ROWS[-1].name else {}
        for history, scores in {**begun, **part['scores']}.items():
            cells = [f'{100 * scores[name]:.1f}' if name in scores else '-' for name in COLUMNS.values()]
            lines.append(f'| {part["title"]} | {part["seed"]} | {history} | ' + ' | '.join(cells) + ' |')
    return ['\n'.join(lines)]


def seeds_of(results: Path) -> list[int]:
    """The seeds that a row was run with."""
    return sorted({int(path.stem.rpartition('-')[2]) for path in results.glob('history-*.json')})
