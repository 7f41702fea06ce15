"""Spatial: study. In: finished rows. Out: titles and lines of their model cards, for tools/model_cards.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean

from projects.spatial_mllm.study.learning import KINDS
from projects.spatial_mllm.study.report import CHANCE, accuracies, finished
from projects.spatial_mllm.study.rows import ROWS

NOT_RUN = 'not run'


def spatial_cards(results: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A title and {name of a line: text} for every row; accuracies are those of each seed."""
    for row in ROWS:
        parts = finished(results, row.name)
        seeds = [part['test'] for part in parts]
        said = [f'{column} {accuracies(seeds, kind)} (chance {CHANCE[kind]:.2f})' for kind, column in KINDS.items()
                if any(kind in seed for seed in seeds)]
        steps = dict.fromkeys(sum(part['settings']['schedule']['steps']) for part in parts)
        yield f'Video language model: {row.label}', {
            'config': 'none: a small Qwen2.5-VL with what the row adds, see [spatial_mllm.md](spatial_mllm.md)',
            'data': 'rooms of `tools/create_spatial_qa.py`, questions as in VSI-Bench and SQA3D',
            'command': f'`python tools/study_spatial.py --rows {row.name}`',
            'numbers': ', '.join(said) or NOT_RUN,
            'seeds': ', '.join(str(part['seed']) for part in parts) or NOT_RUN,
            'training': ' or '.join(f'{count} steps' for count in steps) or NOT_RUN,
            'cost': f'{parts[0]["parameters"] / 1e6:.2f} M parameters, {mean(part["seconds"] for part in parts):.0f} s of '
                    'training on a CPU' if parts else NOT_RUN}
