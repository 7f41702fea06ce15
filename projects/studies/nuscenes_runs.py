"""Study, of real nuScenes. In: work dirs. Out: the table of docs/nuscenes_runs.md: what was trained, how long, its scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from .memory.report import write_tables

MARKERS = ('<!-- runs: begin -->', '<!-- runs: end -->')
SCORES = {'mAP': 'NuScenes metric/mAP', 'NDS': 'NuScenes metric/NDS', 'mAP_seen': 'memory/mAP_seen',
          'hidden to 2 s': 'memory/recall_0pts_seen', 'hidden 2 to 6 s': 'memory/recall_0pts_seen_2-6s'}


@dataclass(frozen=True)
class Run:
    """One run of the recipe.

    Attributes:
        config: below configs/; its file name is that of the work dir.
        gpus: how many its schedule is for.
        expected_h: hours on so many A100, estimated.
        compare: with which number, published or of another run.
    """

    config: str
    gpus: int
    expected_h: float
    compare: str

    @property
    def name(self) -> str:
        """Of the work dir."""
        return Path(self.config).stem


RUNS = (
    Run('lidar/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 12,
        'OpenPCDet 50.03 / 60.70 (CenterPoint-pillar); mmdet3d, with circle NMS, 48.70 / 59.62'),
    Run('temporal/multihead_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 14,
        'OpenPCDet 44.63 / 58.23 (PointPillars multi-head)'),
    Run('temporal/stack4_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 14, 'the first run'),
    Run('temporal/convgru_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 14, 'the first run'),
    Run('temporal/plain_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', 8, 1, 'its first run'),
    Run('temporal/stack4_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', 8, 5, 'plain, phase 1'),
    Run('temporal/convgru_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', 8, 5, 'plain, phase 1'),
    Run('temporal/copy_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', 8, 5,
        'its first run and plain, phase 1: +3 mAP wanted; hidden: stack4 and convgru, phase 1'),
    Run('temporal/copy_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 18, 'its phase 1, and the first run'),
    Run('temporal/xmem-gate_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', 8, 4, 'its first run: +1 mAP wanted'),
    Run('temporal/xmem-gate_pillar02_second_secfpn_8xb4-phase2-10e_nus-3d.py', 8, 8, 'phase 1'),
    Run('temporal/xmem-residual_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 16, 'stack4 and copy'),
    Run('temporal/xmem-longterm-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', 8, 16, 'hidden 2 to 6 s'),
)


@dataclass(frozen=True)
class Measured:
    """What a work dir tells: logged hours of training, optimizer steps, scores of the last test, else of validation."""

    hours: float
    steps: int
    scores: dict[str, float]
    source: str


def read_work_dir(folder: Path) -> Measured | None:
    """What the logs in a work dir say; None where nothing was logged.

    A run that was resumed has several logs: steps that were done twice count twice, as they took the time twice.

    Raises:
        ValueError: naming a log that is no JSON.
    """
    hours, steps, scores, source = 0.0, 0, {}, ''
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        before = None
        for line in _lines(log):
            step = int(line.get('step', 0))
            if 'time' in line and 'lr' in line:  # of training; validation logs its time without a rate
                hours += line['time'] * (step - (before if before is not None else step - _INTERVAL)) / 3600
                before, steps = step, max(steps, step)
            elif SCORES['mAP'] in line:
                scores, source = line, f'validation, step {step}'
    for log in sorted(folder.glob('*/*.json')):
        found = _lines(log)[-1:] if log.stem == log.parent.name else []
        if found and SCORES['mAP'] in found[0]:
            scores, source = found[0], f'test, {log.stem}'
    return Measured(hours, steps, scores, source) if steps or scores else None


_INTERVAL = 50
"""Steps before a log's first line, as default_hooks.logger has it."""


def _lines(log: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f'{log}: not a log that MMEngine wrote ({error}); remove it') from error


def runs_table(work_dirs: Path, runs: Sequence[Run] = RUNS) -> str:
    """Markdown, in the order of the recipe."""
    lines = ['| run | GPUs | hours: expected | logged | steps | ' + ' | '.join(SCORES) + ' | of | compare with |',
             '|' + '---|' * (7 + len(SCORES))]
    for run in runs:
        found = read_work_dir(work_dirs / run.name)
        scores = [f'{100 * found.scores[name]:.2f}' if found and name in found.scores else '-' for name in SCORES.values()]
        done = ['-', '-'] if found is None or not found.steps else [f'{found.hours:.1f}', str(found.steps)]
        lines.append(f'| `{run.name}` | {run.gpus} | {run.expected_h:g} | ' + ' | '.join([*done, *scores]) +
                     f' | {found.source if found and found.source else "-"} | {run.compare} |')
    return '\n'.join(lines)


def write_runs(work_dirs: Path, doc: Path) -> None:
    """Rewrites the table in `doc`; UserError where it has no markers."""
    found = sum(read_work_dir(work_dirs / run.name) is not None for run in RUNS)
    write_tables(doc, '\n' + runs_table(work_dirs) + '\n', MARKERS)
    print_log(f'{found} of {len(RUNS)} runs found in {work_dirs}, written to {doc}', 'current')
