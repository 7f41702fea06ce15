"""Study. In: streets in which the ego turns. Out: what XMem finds of hidden objects, with and without ego poses in its read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.launch import init_registry
from projects.studies.compare.run import rounded
from projects.studies.memory.rows import ROWS as PLAIN_ROWS
from projects.studies.memory.rows import Budget, Row
from projects.studies.memory.run import load_row, run_tool, start_from_plain
from projects.studies.memory.train_row import build_row, predict, score, train

SCENES = ('scene-0061', 'scene-1077', 'scene-1100', 'scene-0103')
"""Those in which the ego turns; the last one is nuScenes' for validation."""
ROWS = (Row('residual', 'XMem, distance between cells', 'read'),
        Row('residual_ego-pose', 'XMem, distance and ego poses', 'read'),
        Row('residual_ego-pose_alone', 'XMem, ego poses alone', 'read'))
COLUMNS = {
    'memory/recall_0pts_seen': 'hidden, seen before', 'memory/recall_0pts_seen_ego_turning': 'of these, ego turns',
    'memory/recall_0pts_seen_ego_straight': 'of these, ego straight', 'memory/recall_1-5pts_seen': '1-5 points, seen before',
    'memory/recall_1-5pts_not_seen': '1-5 points, not seen before'}


def memory_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'memory-{row}-{seed}.json'


def make_turns(root: Path) -> None:
    """The occlusion world's scenes with turns, made and prepared where they are missing."""
    if not (root / 'nuscenes_infos_val.pkl').is_file():
        run_tool('tools/create_synthetic_nuscenes.py', '--preset', 'occlusion', '--scenes', *SCENES, '--out', str(root))
        run_tool('tools/create_data.py', 'nuscenes', '--root-path', str(root), '--version', 'v1.0-mini', '--skip-gt-database')


def run_memory(root: Path, out: Path, results: Path, seeds: Sequence[int], budget: Budget) -> None:
    """Trains and streams the rows on the plain detector's stored features; finished ones are skipped.

    Args:
        root: the world of make_turns.
        out: folder of weights and features, laid out as tools/study_memory.py has it.
        results: folder of the result files.
        seeds: which.
        budget: of every row.
    """
    init_registry()
    for seed in seeds:
        missing = [row for row in ROWS if not memory_path(results, row.name, seed).is_file()]
        if not missing:
            continue
        folder = out / f'seed{seed}'
        weights, training, testing = start_from_plain(PLAIN_ROWS[0], root, folder, seed, budget.variants)
        for row in missing:
            print_log(f'{row.title}, seed {seed}', 'current')
            cfg = load_row(row, root)
            model = build_row(cfg, weights, seed)
            seconds = train(model, cfg, training, budget, seed)
            results.mkdir(parents=True, exist_ok=True)
            write_text(memory_path(results, row.name, seed), json.dumps(rounded(dict(
                row=row.name, title=row.title, seed=seed, steps=budget.iterations, clips=budget.clips, train_seconds=seconds,
                scores=score(cfg, predict(model, testing, 'own'), official=False))), indent=1) + '\n')


def memory_section(results: Path) -> list[str]:
    """The table; what was not run says so."""
    lines, counts, budget = [], None, 'none yet'
    for row in ROWS:
        parts = [json.loads(path.read_text()) for path in sorted(results.glob(f'memory-{row.name}-[0-9]*.json'))]
        if not parts:
            lines.append(f'| {row.title} | not run |' + ' - |' * len(COLUMNS))
            continue
        counts = counts or parts[0]['scores']
        budget = f'{parts[0]["steps"]} steps of {parts[0]["clips"]} clips'
        cells = []
        for name in COLUMNS:
            values = [100 * part['scores'][name] for part in parts if name in part['scores']]
            cells.append(f'{sum(values) / len(values):.1f}' if values else '-')
        lines.append(f'| {row.title} | {", ".join(str(part["seed"]) for part in parts)} | ' + ' | '.join(cells) + ' |')
    hidden = '' if counts is None else (
        f' Hidden boxes that were seen before: {counts["memory/num_0pts_seen"]:.0f}, of these '
        f'{counts["memory/num_0pts_seen_ego_turning"]:.0f} in frames in which the ego turns.')
    return [
        'XMem on streets in which the ego turns (`--memory`; the four scenes of the occlusion world with turns, one of them '
        f'for validation; {budget}); recall in percent at one false positive a frame, see [metrics](metrics.md).{hidden}',
        '\n'.join(['| read | seeds | ' + ' | '.join(COLUMNS.values()) + ' |', '|' + '---|' * (2 + len(COLUMNS)), *lines])]
