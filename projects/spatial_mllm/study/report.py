"""Spatial: study. In: finished rows. Out: their tables in a document, between its two marks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from projects.spatial_mllm.rooms.output_folder import write_whole
from projects.spatial_mllm.study.data import SAMPLERS
from projects.spatial_mllm.study.learning import KINDS
from projects.spatial_mllm.study.probes import MERGED, PAIRS, PROBES
from projects.spatial_mllm.study.rows import PROBED, ROWS, SAMPLED, Row, choose_rows

CHANCE = {'other': 1 / 3, 'object_rel_direction_easy': 1 / 2, 'object_rel_distance': 1 / 2, 'object_abs_distance': 1 / 3,
          'object_counting': 1 / 4, 'obj_appearance_order': 1 / 2, 'exist': 1 / 2}
BOUND = 0.95
"""Of `exist`: a model below that does not see, and says nothing about poses."""
_HOW = dict(second='the first of them alone', first="both, the first's pose", midpoint='both, the pose half-way',
            duplicate='none: each is a step of its own')
Accuracies = Mapping[str, Mapping[str, Any]]
_POSED = ('other', 'object_rel_direction_easy', 'object_rel_distance', 'object_abs_distance')
"""Kinds that a pose helps to answer."""
MARKERS = ('<!-- study: begin -->', '<!-- study: end -->')


def write_report(results: Path, document: Path) -> None:
    """Puts the tables of all finished rows between the document's marks.

    Raises:
        ValueError: the document has no marks.
    """
    text, (begin, end) = document.read_text(), MARKERS
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f'{document}: needs one line {begin} and one {end}, between which the table goes')
    before, rest = text.split(begin)
    write_whole(document, f'{before}{begin}\n{table(results)}\n{end}{rest.split(end)[1]}')


def table(results: Path) -> str:
    """Accuracies on the test rooms, a row's seeds side by side; then other rooms, frames that samplers chose, merged pairs."""
    parts = [_rows(results), _probes(results), _samplers(results), _merged(results)]
    return '\n\n'.join('\n'.join(part) for part in parts if part)


def _rows(results: Path) -> list[str]:
    lines = ['| row | ' + ' | '.join(f'{column} ({CHANCE[kind]:.2f})' for kind, column in KINDS.items()) + ' |',
             '|---' * (len(KINDS) + 1) + '|']
    missing = []
    for row in ROWS:
        seeds = [found['test'] for found in finished(results, row.name)]
        if seeds:
            lines.append(f'| {row.label}{_mark(row, seeds)} | ' + ' | '.join(accuracies(seeds, kind) for kind in KINDS) + ' |')
        else:
            missing.append(row.label)
    return lines + (['', f'Not run: {"; ".join(missing)}.'] if missing else [])


def _mark(row: Row, seeds: Sequence[Accuracies]) -> str:
    bound = min((_of(seed, 'exist') or 0.0) for seed in seeds) >= BOUND
    return '' if bound or not (row.video and row.images) else ' (`exist` below .95)'


def _probes(results: Path) -> list[str]:
    lines = ['| rooms | row | ' + ' | '.join(KINDS[kind] for kind in _POSED) + ' |', '|---' * (len(_POSED) + 2) + '|']
    for name, label in (('test', 'as in training'), *((probe.name, probe.label) for probe in PROBES)):
        for row in choose_rows(PROBED):
            found = finished(results, row.name if name == 'test' else f'probes_{row.name}')
            if found and finished(results, f'probes_{row.name}'):
                cells = [accuracies([seed[name] for seed in found], kind) for kind in _POSED]
                lines.append(f'| {label} | {row.label} | ' + ' | '.join(cells) + ' |')
    return lines if len(lines) > 2 else []


def _samplers(results: Path) -> list[str]:
    found = finished(results, f'samplers_{SAMPLED}')
    if not found:
        return []
    lines = ['| sampler, frames of 32 | ' + ' | '.join(KINDS.values()) + ' |', '|---' * (len(KINDS) + 1) + '|']
    for name in SAMPLERS:
        kind, count = name.rsplit('_', 1)
        cells = [accuracies([seed[name] for seed in found], each) for each in KINDS]
        lines.append(f'| {kind}, {count} | ' + ' | '.join(cells) + ' |')
    return lines


def _merged(results: Path) -> list[str]:
    found = finished(results, f'merged_{SAMPLED}')
    if not found:
        return []
    lines = ['| two frames of | become one step by | ' + ' | '.join(KINDS.values()) + ' |', '|---' * (len(KINDS) + 2) + '|']
    for probe in PAIRS:
        for how in MERGED:
            cells = [accuracies([seed[f'{probe.name}_{how}'] for seed in found], kind) for kind in KINDS]
            lines.append(f'| {probe.label} | {_HOW[how]} | ' + ' | '.join(cells) + ' |')
    return lines


def finished(results: Path, name: str) -> list[dict[str, Any]]:
    """What is stored of each finished seed of a row; ValueError names a file that cannot be read."""
    found = []
    for path in sorted(results.glob(f'{name}-*.json')):
        try:
            found.append(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f'{path}: is no result of a study ({error}); remove it and run the study again') from error
    return found


def accuracies(seeds: Sequence[Accuracies], kind: str) -> str:
    """A kind's accuracy of each seed."""
    values = [_of(seed, kind) for seed in seeds]
    return ' '.join('-' if value is None else f'{value:.2f}' for value in values)


def _of(found: Accuracies, kind: str) -> float | None:
    return found[kind]['accuracy'] if kind in found else None
