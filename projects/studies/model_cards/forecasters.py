"""Study, model cards. In: the stored results of tools/study_forecasting.py. Out: a card for every forecaster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from ..forecasting.rows import ROWS, WORLDS
from ..forecasting.run import DECIDED, result_path
from ..forecasting.shared import FOLDER, SCORES, TAIL, TASKS
from ..forecasting.world import MORE_SEEDS
from ..fusion.results import cell
from .card import NOT_RUN, Card, read_seeds

SHOWN = {'minADE_1': 'minADE_1', 'minADE_5': 'minADE_5', 'minFDE_1': 'minFDE_1',
         f'{DECIDED}/minADE_5': 'minADE_5 where the scene decides'}
LEARNED_FROM = f'learned from {1 + len(MORE_SEEDS)} worlds, tested on the first:'
DATA = 'synthetic forecast world (preset `forecast`); 12 positions at 2 Hz'


def forecasting_cards(results: Path) -> Iterator[Card]:
    """What forecasts are made of, then one network for boxes and futures and each task alone."""
    for row in ROWS:
        parts = list(read_seeds(result_path(results, row.name, seed) for seed in range(row.seeds)))
        said = [f'{title} {cell([part["scores"][name] for part in parts if name in part["scores"]], digits=2)} m'
                for name, title in SHOWN.items()]
        steps = dict.fromkeys(str(part['steps']) for part in parts if 'steps' in part)
        seconds = [part['train_seconds'] for part in parts if 'train_seconds' in part]
        learns = f'{" or ".join(steps)} steps of the head' + (' on stored features of a memory' if row.has_memory else '')
        yield Card(f'Forecast: {row.title}', {
            'config': f'none: the devkit\'s `{row.devkit}`' if row.devkit else f'`{WORLDS[row.world]}`',
            'kind': 'physics' if row.devkit else f'{row.modes} mode' + 's' * (row.modes > 1) + ' with probabilities',
            'data': f'{LEARNED_FROM} {DATA}', 'command': f'`python tools/study_forecasting.py --rows {row.name}`',
            'numbers': ', '.join(said) if parts else NOT_RUN,
            'seeds': ', '.join(str(part['seed']) for part in parts) or NOT_RUN,
            'training': 'none' if row.devkit else learns if parts else NOT_RUN,
            'cost': 'none' if row.devkit else f'{mean(seconds):.0f} s of training on a CPU' if seconds else NOT_RUN})
    for task in TASKS:
        parts = list(read_seeds([result_path(results, task.name, 0)]))
        scores = parts[0]['scores'] if parts else {}
        yield Card(f'Detector and forecaster: {task.title}', {
            'config': f'`{FOLDER}/{task.config}_{TAIL}`', 'data': DATA,
            'command': '`python tools/study_forecasting.py --shared`',
            'numbers': ', '.join(f'{title} {scores[name]:.3f}' for name, title in SCORES.items() if name in scores) or NOT_RUN,
            'seeds': '0' if parts else NOT_RUN})
