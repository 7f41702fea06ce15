"""Study. In: the stored files. Out: the tables of docs/encodings.md, between markers of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from projects.studies.fusion.results import cell
from projects.studies.fusion.rows import RANGE_M
from projects.studies.memory.report import write_tables

from .memory import memory_section
from .rows import CONDITIONS, DESIGNS, NOISE_DEG, ROWS, Encoded
from .run import result_path

MARKERS = ('<!-- study: begin -->', '<!-- study: end -->')
NOT_RUN = 'not run'
SCORES = {'found': 'found', 'accuracy': 'right class'}
Found = Mapping[str, Sequence[Mapping[str, Any]]]


def read_rows(results: Path) -> dict[str, list[dict[str, Any]]]:
    """{row: what is stored of each finished seed}."""
    return {row.name: [json.loads(path.read_text()) for seed in range(row.seeds)
                       if (path := result_path(results, row.name, seed)).is_file()] for row in ROWS}


def design_table(design: str, found: Found) -> str:
    """One line a row: both scores under each condition, and what is found less on the unseen rig than on the own one."""
    heads = [f'{said}, {title}' for said in SCORES.values() for title in CONDITIONS.values()]
    heads.append('found less on the unseen rig')
    lines = ['| poses | seeds | ' + ' | '.join(heads) + ' |', '|' + '---|' * (2 + len(heads))]
    for row in ROWS:
        lines.append(_line(row, design, found[row.name], len(heads)))
    return '\n'.join(lines)


def _line(row: Encoded, design: str, parts: Sequence[Mapping[str, Any]], columns: int) -> str:
    if not parts:
        return f'| {row.title} | {NOT_RUN} |' + ' - |' * columns
    cells = [cell([part[design][condition][score] for part in parts]) for score in SCORES for condition in CONDITIONS]
    cells.append(cell([part[design]['own']['found'] - part[design]['rig']['found'] for part in parts]))
    seeds = ', '.join(str(part['seed']) for part in parts)
    if len(parts) < row.seeds:
        seeds += f' (of {row.seeds})'
    return f'| {row.title} | {seeds} | ' + ' | '.join(cells) + ' |'


def write_report(results: Path, doc: Path) -> None:
    """Rewrites the section in `doc`; what was not run says so.

    Raises:
        UserError: where the document has no markers.
    """
    found = read_rows(results)
    done = [part for parts in found.values() for part in parts]
    parts = [_what_was_done(done)]
    for design, title in DESIGNS.items():
        parts += [f'{title}:', design_table(design, found)]
    write_tables(doc, '\n' + '\n\n'.join([*parts, *memory_section(results)]) + '\n', MARKERS)
    print_log(f'{sum(bool(parts) for parts in found.values())} of {len(ROWS)} rows written to {doc}', 'current')


def _what_was_done(done: Sequence[Mapping[str, Any]]) -> str:
    budgets = ' and '.join(sorted({f'{part["steps"]} steps of {part["frames_a_step"]} frames' for part in done})) or 'none yet'
    count = ''
    if done:
        own, rig = (next(iter(done))[next(iter(DESIGNS))][name]['objects'] for name in ('own', 'rig'))
        count = f' ({own:.0f}, and {rig:.0f} from the unseen rig)'
    return (
        f'Training of every row: {budgets}; LiDAR features and image features stay as they are. Percent of the look-alikes '
        f'nearer than {RANGE_M:g} m that a camera sees{count}. Found: the token with the most attention shows the object, or '
        'is the neighbour of one that does. Right class: of the two look-alikes; guessing gives 50. Mean and half the range '
        f'over the seeds. "{CONDITIONS["noise"]}": each camera turned by an error of {NOISE_DEG:g} degrees standard deviation '
        f'that the rig does not know; "{CONDITIONS["rig"]}": `--rig other`, the same scenes and LiDAR points; '
        f'"{CONDITIONS["other"]}": those of another scene: what is still found is found by poses alone.')
