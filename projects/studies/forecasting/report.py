"""Study. In: the stored files. Out: the tables of docs/forecasting.md, between markers of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from projects.studies.fusion.results import cell
from projects.studies.memory.report import write_tables

from .rows import ROWS
from .run import DECIDED, result_path
from .shared import shared_table

MARKERS = ('<!-- study: begin -->', '<!-- study: end -->')
SCORES = {'minADE_1': 'minADE_1', 'minADE_5': 'minADE_5', 'minADE_10': 'minADE_10', 'minFDE_1': 'minFDE_1',
          'MissRateTopK_2_5': 'missed of 5', 'OffRoadRate': 'off road'}
STRATA = {'brake': 'brakes', 'yield': 'yields', 'turn': 'turns', DECIDED: 'all three', 'keep': 'keeps on'}
Found = Mapping[str, Sequence[Mapping[str, Any]]]


def read_rows(results: Path) -> dict[str, list[dict[str, Any]]]:
    """{row: what is stored of each finished seed}."""
    return {row.name: [json.loads(path.read_text()) for seed in range(row.seeds)
                       if (path := result_path(results, row.name, seed)).is_file()] for row in ROWS}


def table(found: Found, columns: Mapping[str, str], part: str = 'scores') -> str:
    """One line a row with means over its seeds, and half their range; '-' where a row does not have the score.

    Another scene's rasters (`part='other'`) are given to rows with memory alone.
    """
    lines = ['| forecast from | seeds | ' + ' | '.join(columns.values()) + ' |', '|---|---|' + '---|' * len(columns)]
    for row in ROWS if part == 'scores' else [row for row in ROWS if row.has_memory]:
        parts = [one[part] for one in found[row.name] if part in one]
        cells = [cell([one[name] for one in parts if name in one], digits=3) for name in columns]
        lines.append(f'| {row.title} | {len(parts) or "not run"} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def gains(found: Found, row: str, floor: str, name: str, part: str = 'scores') -> list[float]:
    """How much lower a row's score is than the floor's, of each seed that both have, metres."""
    low = {one['seed']: one['scores'][name] for one in found[floor]}
    return [low[one['seed']] - one[part][name] for one in found[row] if part in one and one['seed'] in low]


def verdicts(found: Found) -> list[str]:
    """What the issue asks for, with what came out."""
    lines = []
    for name in (f'{DECIDED}/minADE_5', f'{DECIDED}/minFDE_1'):
        said = f'{name.partition("/")[2]} where the scene decides'
        for row, floor, part, what in (('neighbours', 'kinematics', 'scores', 'what is truly ahead against kinematics alone'),
                                       ('around', 'kinematics', 'scores', 'memory around the agent against kinematics alone'),
                                       ('around', 'masked', 'scores', 'around the agent against under it alone (masked)'),
                                       ('around', 'mean', 'scores', 'around the agent against mean pooling'),
                                       ('masked', 'mean', 'scores', 'masked against mean pooling'),
                                       ('around', 'kinematics', 'other', 'memory of another scene against kinematics'),
                                       ('around_points', 'kinematics', 'scores', 'memory of points alone against kinematics')):
            values = gains(found, row, floor, name, part)
            if values:
                lines.append(f'- {said}, {what}: lower by {", ".join(f"{value:+.3f}" for value in values)} m (each seed).')
    return lines


def write_report(results: Path, doc: Path) -> None:
    """Rewrites the section of `doc`. UserError where it has no markers."""
    found = read_rows(results)
    counted = next((one['agents'] for row in found.values() for one in row), 0)
    tables = '\n\n'.join([
        f'{counted} agents of the validation scenes; metres, shares; mean and half the range over seeds.',
        table(found, SCORES),
        'minADE_5 by what the agent does:', table(found, {f'{name}/minADE_5': title for name, title in STRATA.items()}),
        'minFDE_1 by what the agent does:', table(found, {f'{name}/minFDE_1': title for name, title in STRATA.items()}),
        "minADE_5 with memory of another scene's rasters:",
        table(found, {f'{name}/minADE_5': title for name, title in STRATA.items()}, 'other'), '\n'.join(verdicts(found)),
        'One network for boxes and futures, and each task alone (one seed):', shared_table(results)])
    write_tables(doc, tables, MARKERS)
    print_log(f'{sum(map(bool, found.values()))} of {len(ROWS)} rows written to {doc}', 'current')
