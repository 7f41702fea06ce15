"""Study, model cards. In: the stored results. Out: docs/model_cards.md: config, data, command, numbers, seeds, cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text

from .compare import rows as fusions
from .compare.results import read_cost, read_row
from .fusion.results import cell
from .fusion.rows import WORLDS
from .memory import copying, copying_report
from .nuscenes_runs import RUNS

HEAD = """# Model cards

Written by `python tools/model_cards.py` from `docs/results`; what was not run says so. **No number here is of real nuScenes**:
data are synthetic worlds of this project, training is minutes on a CPU, and the numbers compare rows with each other, not with
other papers. Of several seeds: the mean, and ± half the range. What all systems share: ten nuScenes classes; trained on nothing
but the data that a card names; not for use in a vehicle.
"""
NOT_RUN = 'not run'
KINDS = dict(LiDAR='LiDAR alone', BEV='cameras fused into the BEV', queries='query decoder')
SEEDS = range(8)
"""Seeds whose files are looked for."""


@dataclass(frozen=True)
class Card:
    """A system: its title, and name and text of every line."""

    title: str
    lines: dict[str, str]

    def text(self) -> str:
        """Markdown."""
        return '\n'.join([f'## {self.title}', '', '| | |', '|---|---|', *(f'| {name} | {said} |' for name, said in
                                                                        self.lines.items())])


def write_cards(results: Path, doc: Path) -> int:
    """Writes the document whole; returns how many cards it has.

    Raises:
        ValueError: naming a result file that cannot be read.
    """
    cards = [*fusion_cards(results / 'fusion'), *memory_cards(results / 'memory'), *nuscenes_cards()]
    write_text(doc, '\n\n'.join([HEAD.strip(), *(card.text() for card in cards)]) + '\n')
    print_log(f'{len(cards)} cards written to {doc}', 'current')
    return len(cards)


def fusion_cards(results: Path) -> Iterator[Card]:
    """Fusions and query detectors, as tools/compare_fusions.py stores them."""
    for row in fusions.ROWS:
        found, cost = read_row(results, row, SEEDS), read_cost(results, row.name)
        numbers = f'mAP {cell(found.of("mAP"))}, NDS {cell(found.of("NDS"))}'
        yield Card(row.title, {
            'config': f'`{row.full}`; of the numbers: `configs/study/{row.name}.py`',
            'kind': KINDS[row.group],
            'data': f'{WORLDS} synthetic worlds, preset `tiny`',
            'command': f'`python tools/compare_fusions.py --out work_dirs/compare_fusions --rows {row.name}`',
            'numbers': f'{numbers} (percent, mean of the worlds)' if found.seeds else NOT_RUN,
            'seeds': ', '.join(map(str, found.seeds)) or NOT_RUN,
            'training': ', '.join(dict.fromkeys(found.steps)) + ' steps x frames' if found.steps else NOT_RUN,
            'cost at full size': NOT_RUN if cost is None else (
                f'{cost["parameters"] / 1e6:.1f} M parameters, {cost["flops"] / 1e9:.0f} GFLOPs, {cost["cpu_s"]:.1f} s and '
                f'{cost["peak_bytes"] / 1e6:.0f} MB a frame on {cost["machine"]}'),
            'published by others': row.published or '-'})


def memory_cards(results: Path) -> Iterator[Card]:
    """Memories and their baselines, as tools/study_memory.py --study copying stores them."""
    for row in copying.ROWS:
        parts = [_read(path) for seed in range(row.seeds) if (path := copying.result_path(results, row.name, seed)).is_file()]
        own = [part['scores']['own'] for part in parts]
        steps = dict.fromkeys(str(part['iterations']) for part in parts)
        shown = {'mAP': 'NuScenes metric/mAP', 'mAP_seen': copying_report.SEEN_MAP, 'hidden to 2 s': copying_report.HIDDEN,
                 'hidden 2 to 6 s': copying_report.LONG}
        said = [f'{name} {cell([100 * one[key] for one in own if key in one])}' for name, key in shown.items()]
        yield Card(f'Memory: {row.title}', {
            'config': f'`{row.config}`',
            'data': f'synthetic world, preset `{copying.PRESET}`',
            'command': f'`python tools/study_memory.py --study copying --rows {row.name}`',
            'numbers': ', '.join(said) + ' (percent)' if own else NOT_RUN,
            'seeds': ', '.join(str(part['seed']) for part in parts) or NOT_RUN,
            'training': f'{" or ".join(steps)} steps on stored features of the plain detector' if parts else NOT_RUN,
            'cost': f'{mean(part["train_seconds"] for part in parts):.0f} s of training on a CPU' if parts else NOT_RUN})


def nuscenes_cards() -> Iterator[Card]:
    """The recipe for real nuScenes, which nobody has run here."""
    for run in RUNS:
        yield Card(f'nuScenes: {run.name}', {
            'config': f'`configs/{run.config}`', 'data': 'nuScenes v1.0-trainval',
            'command': f'`tools/dist_train.sh configs/{run.config} {run.gpus}`',
            'numbers': f'{NOT_RUN}; docs/nuscenes_runs.md holds them when they are', 'seeds': NOT_RUN,
            'cost': f'{run.expected_h:g} hours on {run.gpus} A100, estimated', 'published by others': run.compare})


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: is no result of a study ({error}); remove it and run the study again') from error
