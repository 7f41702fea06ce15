"""Study. In: the stored numbers. Out: the tables in docs/fusion.md, between its markers, and the picture of the noise sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.logging import print_log

from projects.memfusion.runtime.errors import UserError
from projects.studies.memory.report import write_tables
from projects.studies.robustness.report import AXES, curve, judge
from projects.studies.robustness.run import Scores

from .faults import FAULTS
from .results import CONDITIONS, Table, average_seeds, break_even_of, gain, lowest, read_faults, read_rows, spread
from .rows import BUDGET, FUSED, LIDAR_ONLY, LOOKALIKES, RANGE_M, ROWS, SWEPT, SWEPT_WORLDS

COLUMNS = {'mAP': 'mAP', 'NDS': 'NDS', **{name: f'AP/{name}' for name in LOOKALIKES}, 'look-alikes': 'look-alikes',
           'others': 'others'}
PICTURE = 'images/fusion_noise.png'
ALLOWED_BELOW = 1.0
"""mAP points that a fused detector may lose to LiDAR alone under wrong calibration."""
Faults = Mapping[str, Sequence[Mapping[str, Scores]]]
TITLES = {row.name: row.title for row in ROWS}


def cell(values: Sequence[float]) -> str:
    """Mean and half the range over the seeds."""
    return f'{mean(values):.1f} ± {spread(values) / 2:.1f}'


def main_table(table: Table) -> str:
    """One line a row."""
    lines = ['| row | ' + ' | '.join(COLUMNS) + ' |', '|' + '---|' * (1 + len(COLUMNS))]
    lines += [f'| {TITLES[row]} | ' + ' | '.join(cell(scores[name]) for name in COLUMNS.values()) + ' |'
              for row, scores in table.items()]
    return '\n'.join(lines)


def gain_lines(table: Table) -> list[str]:
    """What each row gains over LiDAR alone, with what the seeds differ by."""
    lines = []
    for row in (row for row in table if row != LIDAR_ONLY):
        found = {name: gain(table, row, LIDAR_ONLY, name) for name in ('look-alikes', 'others')}
        noise = max(spread(table[name]['look-alikes']) for name in (row, LIDAR_ONLY))
        lines.append(f'- {TITLES[row]} over LiDAR only: {mean(found["look-alikes"]):+.1f} on the look-alikes (seeds: '
                     f'{", ".join(f"{value:+.1f}" for value in found["look-alikes"])}; the rows themselves differ by up to '
                     f'{noise:.1f} between seeds), {mean(found["others"]):+.1f} on the others.')
    return lines


def fault_lines(title: str, faults: Mapping[str, Scores]) -> list[str]:
    """Verdict, break-evens and the worst of the sweep; `faults` are means over seeds."""
    lines = [f'- {title}: {line}.' for line in judge(faults, faults['lidar_only']).lines]
    name, short = lowest(faults)
    said = []
    for group in FAULTS:
        level = break_even_of(faults, group)
        said.append(f'{AXES[group][0]}: ' + ('stays better throughout' if level is None else f'{level:.2g} {AXES[group][1]}'))
    verdict = 'no worse than allowed' if short >= -ALLOWED_BELOW else 'WORSE than allowed'
    lines.append(f'- {title}: break-even with LiDAR only: {"; ".join(said)}. Lowest of the sweep: {short:+.1f} mAP to LiDAR '
                 f'only ({name}); {verdict} ({ALLOWED_BELOW:g} point below).')
    return lines


def fault_table(faults: Mapping[str, Mapping[str, Scores]]) -> str:
    """mAP under each condition and what is left of it over LiDAR alone; means over seeds, one column a row."""
    lines = ['| condition | ' + ' | '.join(f'{TITLES[row]} | to LiDAR only' for row in faults) + ' |',
             '|' + '---|' * (1 + 2 * len(faults))]
    for condition in CONDITIONS:
        cells = [f'{one[condition.name]["mAP"]:.1f} | {one[condition.name]["mAP"] - one["lidar_only"]["mAP"]:+.1f}'
                 for one in faults.values()]
        lines.append(f'| {condition.name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def draw(path: Path, faults: Faults) -> None:
    """mAP against rotation and translation error; lines are means over seeds, dots the seeds; PNG."""
    figure = Figure(figsize=(10, 4), dpi=110, layout='constrained')
    panels = figure.subplots(1, len(FAULTS), sharey=True, squeeze=False)[0]
    for axis, group in zip(panels, FAULTS):
        for number, (row, seeds) in enumerate(faults.items()):
            colour = f'C{number}'
            for one in seeds:
                axis.plot(*curve(CONDITIONS, one, group, 'mAP'), '.', color=colour, alpha=0.5)
            means = average_seeds(seeds)
            axis.plot(*curve(CONDITIONS, means, group, 'mAP'), '-', color=colour, label=TITLES[row])
            if number == 0:
                axis.axhline(means['lidar_only']['mAP'], linestyle='--', color='grey', label='LiDAR only')
        axis.set_xlabel(f'{AXES[group][0]} ({AXES[group][1]})')
        axis.grid(alpha=0.3)
    panels[0].set_ylabel('mAP (%)')
    panels[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


def write_report(out: Path, seeds: Sequence[int], roots: Sequence[Path], doc: Path) -> None:
    """Rewrites the tables in `doc` and the picture beside it.

    Raises:
        UserError: where the document has no markers, or LiDAR only or FuTr++ is not finished.
    """
    table = read_rows(out, seeds)
    absent = [row for row in (LIDAR_ONLY, FUSED) if row not in table]
    if absent:
        raise UserError(f'{out}: rows {absent} are not finished for seeds {list(seeds)}; run them before a report is written')
    found = {row: read_faults(out, seeds, row, roots[:SWEPT_WORLDS]) for row in SWEPT}
    faults = {row: seen for row, seen in found.items() if seen}
    parts = [_heading(table, seeds, len(roots)), main_table(table), '\n'.join(gain_lines(table))]
    if faults:
        means = {row: average_seeds(seen) for row, seen in faults.items()}
        draw(doc.parent / PICTURE, faults)
        parts += [f'Wrong calibrations and false images, mAP in the first {SWEPT_WORLDS} worlds, mean of the seeds:',
                  fault_table(means), '\n'.join(line for row, one in means.items() for line in fault_lines(TITLES[row], one)),
                  f'![mAP against rotation and translation error]({PICTURE})']
    write_tables(doc, '\n' + '\n\n'.join(parts) + '\n')
    print_log(f'{len(table)} of {len(ROWS)} rows written to {doc}', 'current')


def _heading(table: Table, seeds: Sequence[int], num_worlds: int) -> str:
    boxes = ', '.join(f'{name} {table[LIDAR_ONLY][f"boxes/{name}"][0]:.0f}' for name in LOOKALIKES)
    return (f'Seeds {", ".join(map(str, seeds))}; {BUDGET.iterations} iterations of {BUDGET.clips} frames; percent, mean and '
            f'half the range over the seeds. mAP and NDS are the official ones, AP that within {RANGE_M:g} m; means over the '
            f'validation frames of {num_worlds} worlds. Truth behind the APs: {boxes}.')
