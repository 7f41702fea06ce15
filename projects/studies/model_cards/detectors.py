"""Study, model cards. In: the stored results of fusions and memories. Out: a card for every detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from ..compare import rows as fusions
from ..compare.results import read_cost, read_row
from ..fusion.results import cell
from ..fusion.rows import WORLDS
from ..memory import copying, copying_report
from ..nuscenes_runs import RUNS
from .card import NOT_RUN, Card, read_seeds

KINDS = dict(LiDAR='LiDAR alone', BEV='cameras fused into the BEV', queries='query decoder')
SEEDS = range(8)
"""Seeds whose files are looked for."""


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
        parts = list(read_seeds(copying.result_path(results, row.name, seed) for seed in range(row.seeds)))
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
