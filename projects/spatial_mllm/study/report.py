"""Spatial: study. In: finished rows. Out: their table in a document, between its two marks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from projects.spatial_mllm.rooms.output_folder import write_whole
from projects.spatial_mllm.study.learning import KINDS
from projects.spatial_mllm.study.rows import ROWS

CHANCE = {'other': 1 / 3, 'object_rel_direction_easy': 1 / 2, 'object_rel_distance': 1 / 2, 'object_abs_distance': 1 / 3,
          'object_counting': 1 / 4, 'obj_appearance_order': 1 / 2, 'exist': 1 / 2}
BOUND = 0.95
"""Of `exist`: a model below that does not see, and says nothing about poses."""
_BEGIN, _END = '<!-- study: begin -->', '<!-- study: end -->'


def write_report(results: Path, document: Path) -> None:
    """Puts the table of all finished rows between the document's marks.

    Raises:
        ValueError: the document has no marks.
    """
    text = document.read_text()
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f'{document}: needs one line {_BEGIN} and one {_END}, between which the table goes')
    before, rest = text.split(_BEGIN)
    write_whole(document, f'{before}{_BEGIN}\n{table(results)}\n{_END}{rest.split(_END)[1]}')


def table(results: Path) -> str:
    """Accuracies on the test rooms, a row's seeds side by side; rows that have not bound are marked."""
    lines = ['| row | ' + ' | '.join(f'{column} ({CHANCE[kind]:.2f})' for kind, column in KINDS.items()) + ' |',
             '|---' * (len(KINDS) + 1) + '|']
    for row in ROWS:
        seeds = [json.loads(path.read_text())['test'] for path in sorted(results.glob(f'{row.name}-*.json'))]
        if seeds:
            blind = row.video and row.images and min(_of(seed, 'exist') or 0.0 for seed in seeds) < BOUND
            cells = [' '.join(_shown(seed, kind) for seed in seeds) for kind in KINDS]
            lines.append(f'| {row.label}{" (has not learned to see)" if blind else ""} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _shown(found: dict[str, Any], kind: str) -> str:
    value = _of(found, kind)
    return '-' if value is None else f'{value:.2f}'


def _of(found: dict[str, Any], kind: str) -> float | None:
    return found[kind]['accuracy'] if kind in found else None
