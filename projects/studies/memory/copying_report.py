"""Study, of a memory that copies. In: the stored rows. Out: the tables in docs/memory.md, between markers of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from mmengine.logging import print_log

from projects.memfusion.runtime.errors import UserError
from projects.studies.fusion.results import cell as seeds_cell

from .copying import CLASS_AP, PLAIN, ROWS, SEARCHED, STACK, CopyRow, result_path
from .report import write_tables

MARKERS = ('<!-- copying: begin -->', '<!-- copying: end -->')
PLAIN_SEEN, CONVGRU = 'copy_plain_seen', 'copy_convgru'
CLAIMED = 'copy_world'
"""The row that is claimed to win."""
HIDDEN, LONG, SEEN_MAP, OFFICIAL = ('memory/recall_0pts_seen', 'memory/recall_0pts_seen_2-6s', 'memory/mAP_seen',
                                    'downweight/mAP')
COLUMNS = {
    'mAP': 'NuScenes metric/mAP', 'mAP, downweight': OFFICIAL, 'mAP, drop': 'drop/mAP', 'mAP, by points': 'points/mAP',
    'mAP_seen': SEEN_MAP, 'hidden to 2 s': HIDDEN, 'hidden 2 to 6 s': LONG, '1-5, seen': 'memory/recall_1-5pts_seen',
    '> 20': 'memory/recall_over20pts', 'flicker': 'memory/flicker', 'error of `seen`': 'memory/seen_ece'}
SPLITS = {'standing': '_standing', 'moving': '_moving', 'ego stands': '_ego_standing', 'slow': '_ego_slow', 'fast': '_ego_fast',
          'straight': '_ego_straight', 'turning': '_ego_turning', '1': '_gap1', '2': '_gap2', '3': '_gap3', '4': '_gap4'}
LONG_SPLITS = {'5 to 8': '_gap5-8', '9 to 12': '_gap9-12'}
HISTORY_COLUMNS = {'mAP_seen': SEEN_MAP, 'hidden to 2 s': HIDDEN, 'hidden 2 to 6 s': LONG}

MOST_SEEDS = max(row.seeds for row in ROWS)
TITLES = {row.name: row.title for row in ROWS}
Found = dict[int, dict[str, dict[str, float]]]  # seed -> history -> metric -> value


def read_rows(results: Path) -> dict[str, Found]:
    """{row: {seed: {history: {metric: value}}}} of whatever is finished, in the table's order."""
    rows: dict[str, Found] = {}
    for row in ROWS:
        found = {seed: json.loads(path.read_text())['scores'] for seed in range(MOST_SEEDS)
                 if (path := result_path(results, row.name, seed)).is_file()}
        if found:
            rows[row.name] = found
    return rows


def values_of(found: Found, name: str, history: str = 'own') -> list[float]:
    """One metric of every seed that has it."""
    return [scores[history][name] for scores in found.values() if name in scores.get(history, {})]


def cell(values: Sequence[float], sign: str = '') -> str:
    """Mean and, of several seeds, half their range, in percent."""
    return seeds_cell(values, sign, scale=100)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (heads, ['---'] * len(heads), *lines))


def main_table(rows: dict[str, Found]) -> str:
    """Every row with its own history."""
    titles = {row.name: row for row in ROWS}
    lines = [[titles[name].title, str(len(found)), str(titles[name].iterations),
              *(cell(values_of(found, column)) for column in COLUMNS.values())] for name, found in rows.items()]
    return table(['row', 'seeds', 'steps', *COLUMNS], lines)


def history_table(rows: dict[str, Found]) -> str:
    """Each row less the plain detector of the same seeds and steps, by whose history it was given."""
    lines = []
    for row in ROWS:
        found, plain = rows.get(row.name, {}), rows.get(_plain_of(row), {})
        for history in ('own', 'other', 'none') if (row.of or row.name) not in (PLAIN, PLAIN_SEEN) and found else ():
            gains = [[scores[history][column] - plain[seed]['own'][column] for seed, scores in found.items()
                      if seed in plain and column in scores.get(history, {})] for column in HISTORY_COLUMNS.values()]
            lines.append([row.title, history, *(cell(gain, '+') for gain in gains)])
    return table(['row', 'history', *HISTORY_COLUMNS], lines)


def _plain_of(row: CopyRow) -> str:
    return f'{PLAIN}_{SEARCHED}' if row.iterations == SEARCHED else PLAIN


def split_table(rows: dict[str, Found]) -> str:
    """Recall of hidden objects by how they and the ego move, and by keyframes since they were seen; boxes in the first line."""
    names = [*(f'0pts_seen{end}' for end in SPLITS.values()), *(f'0pts_seen_2-6s{end}' for end in LONG_SPLITS.values())]
    first = next(iter(rows[PLAIN].values()))['own']
    lines = [['boxes', *(f'{first.get(f"memory/num_{name}", 0):.0f}' for name in names)]]
    lines += [[TITLES[row], *(cell(values_of(found, f'memory/recall_{name}')) for name in names)]
              for row, found in rows.items()]
    return table(['row', *SPLITS, *LONG_SPLITS], lines)


def class_table(rows: dict[str, Found]) -> str:
    """Downweighted official AP of each class, of the claimed rows; best known to the plain detector first. '' without any."""
    known = {row.name: {seed: scores for seed, scores in rows[row.name].items() if _classes(scores)} for row in ROWS
             if row.group == 'claim' and not row.of and row.name in rows}
    known = {name: found for name, found in known.items() if found}
    if PLAIN not in known:
        return ''
    first = next(iter(known[PLAIN].values()))
    names = sorted(_classes(first), key=lambda name: -first['own'][name])
    lines = [[TITLES[row], *(cell(values_of(found, name)) for name in names)] for row, found in known.items()]
    seeds = sorted({seed for found in known.values() for seed in found})
    return (f'Official AP by class, hidden boxes downweighted (seed{"s" * (len(seeds) > 1)} {", ".join(map(str, seeds))}):\n\n'
            + table(['row', *(name.removeprefix(CLASS_AP) for name in names)], lines))


def _classes(scores: dict[str, dict[str, float]]) -> list[str]:
    return [name for name in scores['own'] if name.startswith(CLASS_AP)]


def verdict(rows: dict[str, Found]) -> str:
    """The claimed row against what it must beat, over the seeds that both have.

    'Beyond the seeds' means that its worst seed beats the other's best; of one seed that cannot be said.
    """
    if CLAIMED not in rows:
        return ''
    title, lines = TITLES[CLAIMED], []
    for other in (other for other in (STACK, 'copy_stack4_control', CONVGRU) if other in rows):
        for what, name in (('hidden to 2 s', HIDDEN), ('mAP_seen', SEEN_MAP)):
            lines += _compare(title, *_shared(rows, name, other, name), other, what)
    if STACK in rows:
        mine, theirs = (mean(values or [0.0]) for values in _shared(rows, LONG, STACK, LONG))
        lines.append(f'- {title}, hidden 2 to 6 s: {100 * mine:.1f} % against {100 * theirs:.1f} % of the stack of 4 '
                     '(wanted: twice, and at least 5 %)')
    plain = ((PLAIN_SEEN, 'NuScenes metric/mAP'), (PLAIN, OFFICIAL), (PLAIN, 'points/mAP'))
    gains = [mean(mine) - mean(theirs) for name, metric in plain if name in rows
             for mine, theirs in (_shared(rows, OFFICIAL, name, metric),) if mine]
    if gains:
        lines.append(f'- {title}, official mAP with hidden boxes downweighted: {100 * min(gains):+.1f} over the best plain '
                     'detector (wanted: +3)')
    return '\n'.join(lines)


def _shared(rows: dict[str, Found], name: str, other: str, other_name: str) -> tuple[list[float], list[float]]:
    """Values of the claimed row and of another, of the seeds that both have."""
    mine, theirs = ({seed: rows[row][seed] for seed in rows[CLAIMED] if seed in rows[other]} for row in (CLAIMED, other))
    return values_of(mine, name), values_of(theirs, other_name)


def _compare(title: str, mine: Sequence[float], theirs: Sequence[float], other: str, what: str) -> list[str]:
    if not mine or len(mine) != len(theirs):
        return []
    gap, beyond = mean(mine) - mean(theirs), 'beyond the seeds' if min(mine) > max(theirs) else 'within the seeds'
    return [f'- {title} over {TITLES[other]}, {what}: {100 * gap:+.1f} ({beyond if len(mine) > 1 else "one seed"})']


def write_report(results: Path, doc: Path) -> None:
    """Rewrites the tables in `doc`.

    Raises:
        UserError: where the document has no markers, or no plain row is finished.
    """
    rows = read_rows(results)
    if PLAIN not in rows:
        raise UserError(f'{results}: the row {PLAIN!r} is not finished for any seed; run it before a report is written')
    counts = next(iter(rows[PLAIN].values()))['own']
    absent = [row.title for row in ROWS if row.name not in rows]
    boxes = [round(counts[f'memory/num_0pts_seen{end}']) for end in ('', '_2-6s')]
    parts = [
        f'Percent; mean and half the range over the seeds. Recalls at one false positive a frame, of {boxes[0]} boxes hidden '
        f'for up to 2 s and {boxes[1]} for 2 to 6 s.' + (f' Not run yet: {"; ".join(absent)}.' if absent else ''),
        main_table(rows),
        'Gain over the plain detector of the same seeds, by whose history a row is given:', history_table(rows),
        'Hidden objects found, by how the box and the ego move and by keyframes since it was last seen:', split_table(rows),
        class_table(rows), verdict(rows)]
    write_tables(doc, '\n' + '\n\n'.join(part for part in parts if part) + '\n', MARKERS)
    print_log(f'{len(rows)} of {len(ROWS)} rows written to {doc}', 'current')
