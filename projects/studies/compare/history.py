"""Study. In: the occlusion world. Out: whether StreamPETR's memory finds what is hidden: its own history, another's, none."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner.checkpoint import weights_to_cpu

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import check_architecture
from projects.memfusion.runtime.launch import init_registry
from projects.studies.fusion.train_row import new_model
from projects.studies.memory.rows import ROWS as PLAIN_ROWS
from projects.studies.memory.rows import Budget, Row
from projects.studies.memory.run import load_row, start_from_plain
from projects.studies.memory.train_row import HISTORIES, predict, score, train

from .run import HEAD, rounded

ROWS = (Row('streampetr', 'StreamPETR with its memory', 'history'),
        Row('streampetr_alone', 'StreamPETR without memory', 'history'))
FRAMES = Budget(iterations=1000, clips=8)
"""What a row's decoder learns on before its clips: single frames. Begun on clips, it finds nothing for 700 steps."""
COLUMNS = {'hidden, seen before': 'memory/recall_0pts_seen', '1-5 points, seen before': 'memory/recall_1-5pts_seen',
           '1-5 points, not seen before': 'memory/recall_1-5pts_not_seen', 'over 20 points': 'memory/recall_over20pts'}
COUNTS = 'memory/num_0pts_seen'


def history_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'history-{row}-{seed}.json'


def run_history(data_root: Path, out: Path, results: Path, seed: int, budget: Budget) -> None:
    """Trains the rows on the plain detector's stored LiDAR features and streams them; finished ones are skipped.

    Args:
        data_root: the occlusion world, prepared.
        out: folder of weights and features, laid out as tools/study_memory.py has it.
        results: folder of the result files.
        seed: of everything.
        budget: of every row.
    """
    init_registry()
    missing = [row for row in ROWS if not history_path(results, row.name, seed).is_file()]
    if not missing:
        return
    folder = out / f'seed{seed}'
    weights, training, testing = start_from_plain(PLAIN_ROWS[0], data_root, folder, seed, budget.variants)
    lidar = {name: value for name, value in weights.items() if not name.startswith(HEAD)}
    for row in missing:
        print_log(f'{row.title}, seed {seed}', 'current')
        cfg = load_row(row, data_root)
        model = new_model(cfg, seed)
        check_architecture(model, lidar, str(folder), allow_missing_slots=True)
        model = model.to(get_device())
        seconds = train(model, cfg, training, FRAMES, seed, length=1) + train(model, cfg, training, budget, seed)
        torch.save(dict(state_dict=weights_to_cpu(model.state_dict())), folder / f'{row.name}.pth')
        scores = {history: score(cfg, predict(model, testing, history), official=history == 'own')
                  for history in (HISTORIES if model.temporal is not None else HISTORIES[:1])}
        results.mkdir(parents=True, exist_ok=True)
        write_text(history_path(results, row.name, seed), json.dumps(rounded(dict(
            row=row.name, title=row.title, seed=seed, frame_steps=FRAMES.iterations, frames=FRAMES.clips,
            steps=budget.iterations, clips=budget.clips, train_seconds=seconds, scores=scores)), indent=1) + '\n')


def history_section(results: Path, seed: int = 0) -> list[str]:
    """The table; empty where nothing was run."""
    parts = [(row, json.loads(path.read_text())) for row in ROWS if (path := history_path(results, row.name, seed)).is_file()]
    if not parts:
        return ['StreamPETR on the occlusion world (`--history`): not run.']
    boxes = next(iter(parts[0][1]['scores'].values())).get(COUNTS, 0)
    said = parts[0][1]
    budget = (f'{said["frame_steps"]} steps of {said["frames"]} single frames, {said["steps"]} of {said["clips"]} clips, '
              f'seed {seed}')
    lines = [f'StreamPETR on LiDAR features of the occlusion world, streamed (`--history`; {budget}); recall in percent at one '
             f'false positive a frame ({boxes:.0f} hidden boxes that were seen before).', '',
             '| row | history | ' + ' | '.join(COLUMNS) + ' |', '|' + '---|' * (2 + len(COLUMNS))]
    if missing := [row.title for row in ROWS if row not in dict(parts)]:
        lines[0] += f' Not run: {", ".join(missing)}.'
    for row, part in parts:
        for history, scores in part['scores'].items():
            cells = [f'{100 * scores[name]:.1f}' if name in scores else '-' for name in COLUMNS.values()]
            lines.append(f'| {row.title} | {history} | ' + ' | '.join(cells) + ' |')
    return ['\n'.join(lines)]
