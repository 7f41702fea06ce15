"""Demo, its report. In: what `make demo` scored, drew and logged. Out: report.html in the work dir."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from projects.reports import PlayedScene, Report, config_changes, run_facts, write_report
from projects.reports.plots import plot_curves


def report_demo(work_dir: Path, repo: Path, verdict: Sequence[str], scores: Mapping[str, Mapping[str, Any]],
                scene: PlayedScene, config: Path, options: Mapping[str, Any]) -> Path:
    """Writes the page; returns its path.

    Args:
        work_dir: with logs and pictures.
        repo: the project's folder.
        verdict: the demo's closing lines.
        scores: of `demo_map` and NDS, by detector.
        scene: what the player shows.
        config: that was trained.
        options: on it.
    """
    losses = plot_curves(loss_curves(work_dir), 'training', 'step')
    drawn = sorted((work_dir / 'pictures').glob('*.png'))
    pictures = {path.stem: path for path in drawn if not path.stem.endswith('_overview')}  # whose parts are there
    return write_report(work_dir / 'report.html', Report(
        'MemFusion demo', run_facts(repo), verdict, score_tables(scores), plots={} if losses is None else {'losses': losses},
        pictures=pictures, config=str(config.relative_to(repo)) if config.is_relative_to(repo) else str(config),
        changes=config_changes(config, options), scene=scene))


def score_tables(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: mAP and NDS, and AP by class, of every detector."""
    lines = ['| detector | mAP | NDS |', '|---|---|---|']
    lines += [f'| {name} | {score["mAP"]:.3f} | {score["NDS"]:.3f} |' for name, score in scores.items()]
    names = list(scores)
    lines += ['', '| class | truth boxes | ' + ' | '.join(f'AP, {name}' for name in names) + ' |']
    lines.append('|' + '---|' * (2 + len(names)))
    first = scores[names[-1]]
    for one in first['classes']:
        cells = ' | '.join(f'{scores[name]["per_class"][one]:.3f}' for name in names)
        lines.append(f'| {one} | {first["num_truth"][one]} | {cells} |')
    return '\n'.join(lines)


def loss_curves(work_dir: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Losses over steps, of the newest training log; empty where nothing was logged."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for line in logs[-1].read_text().splitlines() if logs else []:
        logged = json.loads(line)
        for name, value in logged.items():
            if 'loss' in name and 'step' in logged:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(logged['step'])
                values.append(value)
    return curves
