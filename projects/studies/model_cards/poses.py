"""Study, model cards. In: the stored results of tools/study_encodings.py. Out: a card for every way to tell poses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from ..encodings.memory import COLUMNS, SCENES, memory_path
from ..encodings.memory import ROWS as MEMORY_ROWS
from ..encodings.rows import DESIGNS, ROWS, config_of
from ..encodings.run import result_path
from ..fusion.results import cell
from ..fusion.rows import WORLDS
from .card import NOT_RUN, Card, read_seeds


def encoding_cards(results: Path) -> Iterator[Card]:
    """How attentions are told of poses, then XMem with the ego's poses in its read."""
    for row in ROWS:
        parts = list(read_seeds(result_path(results, row.name, seed) for seed in range(row.seeds)))
        said = []
        for design, title in DESIGNS.items():
            found, right, unseen = ([part[design][condition][score] for part in parts] for condition, score in (
                ('own', 'found'), ('own', 'accuracy'), ('rig', 'found')))
            said.append(f'{title}: found {cell(found)}, on an unseen rig {cell(unseen)}, right class {cell(right)}')
        seconds = [sum(part[design]['train_seconds'] for design in DESIGNS) for part in parts]
        yield Card(f'Poses in attention: {row.title}', {
            'config': ', '.join(f'`{config_of(design)}`' for design in DESIGNS) + ', changed as the row says',
            'data': f'{WORLDS} synthetic worlds, preset `tiny`, with look-alikes',
            'command': f'`python tools/study_encodings.py --rows {row.name}`',
            'numbers': '; '.join(said) + ' (percent)' if parts else NOT_RUN,
            'seeds': ', '.join(str(part['seed']) for part in parts) or NOT_RUN,
            'training': ' or '.join(dict.fromkeys(f'{part["steps"]} x {part["frames_a_step"]}' for part in parts))
                        + ' steps x frames, LiDAR and image features fixed' if parts else NOT_RUN,
            'cost': f'{mean(seconds):.0f} s of training on a CPU' if parts else NOT_RUN})
    for one in MEMORY_ROWS:
        parts = list(read_seeds(memory_path(results, one.name, seed) for seed in range(2)))
        said = [f'{title} {cell([100 * part["scores"][name] for part in parts if name in part["scores"]])}'
                for name, title in COLUMNS.items()]
        yield Card(f'Poses in memory: {one.title}', {
            'config': f'`{one.config}`', 'data': f'synthetic world, preset `occlusion`, {len(SCENES)} scenes with turns',
            'command': '`python tools/study_encodings.py --memory data/turns`',
            'numbers': 'recall: ' + '; '.join(said) + ' (percent)' if parts else NOT_RUN,
            'seeds': ', '.join(str(part['seed']) for part in parts) or NOT_RUN,
            'training': ' or '.join(dict.fromkeys(f'{part["steps"]} x {part["clips"]}' for part in parts)) + ' steps x clips'
                        if parts else NOT_RUN,
            'cost': f'{mean(part["train_seconds"] for part in parts):.0f} s of training on a CPU' if parts else NOT_RUN})
