"""Study. In: the stored rows. Out: the tables in docs/memory.md, between its markers; the text around them stays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.errors import UserError

from .rows import PLAIN, ROWS, Budget

BEGIN, END = '<!-- tables: begin -->', '<!-- tables: end -->'
COLUMNS = {
    'mAP': 'NuScenes metric/mAP',
    'NDS': 'NuScenes metric/NDS',
    'mAP_seen': 'memory/mAP_seen',
    '0 pts, seen': 'memory/recall_0pts_seen',
    '1-5, seen': 'memory/recall_1-5pts_seen',
    '1-5, not seen': 'memory/recall_1-5pts_not_seen',
    '6-20': 'memory/recall_6-20pts',
    '> 20': 'memory/recall_over20pts',
    'flicker': 'memory/flicker',
}
HISTORY_COLUMNS = ('mAP_seen', '0 pts, seen', '1-5, seen', 'flicker')

Scores = dict[str, dict[str, list[float]]]  # history -> metric -> one value a seed


def read_rows(out: Path, seeds: Sequence[int]) -> dict[str, Scores]:
    """{row: {history: {metric: [value of each seed]}}} of the rows that are finished for all seeds."""
    rows: dict[str, Scores] = {}
    for row in ROWS:
        files = [out / f'seed{seed}' / f'{row.name}.json' for seed in seeds]
        if not all(file.is_file() for file in files):
            continue
        parts = [json.loads(file.read_text())['scores'] for file in files]
        rows[row.name] = {history: {name: [part[history].get(name, float('nan')) for part in parts]
                                    for name in parts[0][history]} for history in parts[0]}
    return rows


def _cell(values: list[float]) -> str:
    """Mean, and half the range over the seeds."""
    return f'{100 * mean(values):.1f} ± {100 * (max(values) - min(values)) / 2:.1f}'


def main_table(rows: dict[str, Scores]) -> str:
    """Every row with its own history."""
    lines = ['| row | ' + ' | '.join(COLUMNS) + ' |', '|---|' + '---|' * len(COLUMNS)]
    for row in ROWS:
        if row.name in rows:
            scores = rows[row.name]['own']
            cells = [_cell(scores[name]) if name in scores else '-' for name in COLUMNS.values()]
            lines.append(f'| {row.title} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def gain_table(rows: dict[str, Scores]) -> str:
    """Each temporal row less the plain detector of the same seed, by whose history it was given."""
    lines = ['| row | history | ' + ' | '.join(HISTORY_COLUMNS) + ' |', '|---|---|' + '---|' * len(HISTORY_COLUMNS)]
    plain = rows[PLAIN]['own']
    for row in ROWS:
        for history, scores in rows.get(row.name, {}).items():
            if row.name == PLAIN:
                continue
            gains = []
            for column in HISTORY_COLUMNS:
                name = COLUMNS[column]
                gains.append(_signed([a - b for a, b in zip(scores[name], plain[name])]) if name in scores else '-')
            lines.append(f'| {row.title} | {history} | ' + ' | '.join(gains) + ' |')
    return '\n'.join(lines)


def _signed(values: list[float]) -> str:
    return f'{100 * mean(values):+.1f} ± {100 * (max(values) - min(values)) / 2:.1f}'


def truth_line(rows: dict[str, Scores]) -> str:
    """How many boxes stand behind the recalls."""
    plain = rows[PLAIN]['own']
    names = {'0 points and seen': 'num_0pts_seen', '1-5 and seen': 'num_1-5pts_seen', '1-5 and not seen': 'num_1-5pts_not_seen',
             '6-20': 'num_6-20pts', 'over 20': 'num_over20pts', 'for flicker': 'num_flicker'}
    return 'Truth boxes behind the recalls: ' + ', '.join(f'{title}: {plain["memory/" + name][0]:.0f}'
                                                          for title, name in names.items()) + '.'


def write_tables(doc: Path, tables: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Puts the tables between the document's markers; UserError where it has none."""
    text, (begin, end) = doc.read_text(), markers
    if begin not in text or end not in text:
        raise UserError(f'{doc} has no lines {begin} and {end} between which the tables go')
    write_text(doc, text.split(begin)[0] + begin + '\n' + tables + '\n' + end + text.split(end)[1])


def write_report(out: Path, seeds: Sequence[int], doc: Path) -> None:
    """Rewrites the tables in `doc`.

    Raises:
        UserError: where the document has no markers, or the plain row is not finished.
    """
    rows = read_rows(out, seeds)
    if PLAIN not in rows:
        raise UserError(f'{out}: the row {PLAIN!r} is not finished for seeds {list(seeds)}; run it before a report is written')
    budget = Budget()
    tables = f'''
Seeds {", ".join(map(str, seeds))}; {budget.iterations} iterations of {budget.clips} clips, each with one labelled frame; mean
and half the range over the seeds, in percent. Recalls at one false positive per frame. {truth_line(rows)}

{main_table(rows)}

Gain over the plain detector of the same seed, when the row is given its own history, another scene's, or none:

{gain_table(rows)}
'''
    write_tables(doc, tables)
    print_log(f'{len(rows)} of {len(ROWS)} rows written to {doc}', 'current')
