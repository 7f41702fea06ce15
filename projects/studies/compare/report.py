"""Study. In: the stored results. Out: the tables in docs/fusion.md, between markers of their own, and a picture of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.logging import print_log
from scipy.optimize import isotonic_regression

from projects.studies.fusion.results import cell
from projects.studies.fusion.rows import LOOKALIKES, RANGE_M
from projects.studies.memory.report import write_tables
from projects.studies.robustness.report import MARGIN

from .results import Found, break_even_deg, gains, lost_to_other_images, read_all, read_cost, shared
from .rows import LIDAR_ONLY, ROTATIONS_DEG, SWEPT_WORLDS, Compared

MARKERS = ('<!-- compare: begin -->', '<!-- compare: end -->')
PICTURE = 'images/fusion_compare.png'
COSTS = {'parameters': ('parameters', 1e6, 'M', 1), 'flops': ('operations', 1e9, 'GFLOPs', 0),
         'cpu_s': ('time', 1.0, 's', 2), 'peak_bytes': ('peak memory', 1e6, 'MB', 0)}
SCORES = ('mAP', 'NDS', 'look-alikes', 'others')
NOT_RUN = 'not run'
_LINE_SHARE = 0.045
"""Of the picture's height, between two names."""
Costs = Mapping[str, Mapping[str, float] | None]


def cost_table(rows: Sequence[Compared], costs: Costs) -> str:
    """What a frame costs at full size, one line a row."""
    heads = [*(f'{title} ({unit})' for title, _, unit, _ in COSTS.values()), 'time over LiDAR only']
    lines = ['| row | ' + ' | '.join(heads) + " | others' nuScenes val mAP / NDS |", '|' + '---|' * (2 + len(heads))]
    for row in rows:
        cost = costs[row.name]
        cells = [NOT_RUN] * len(heads)
        if cost is not None:
            cells = [f'{cost[name] / unit:.{digits}f}' for name, (_, unit, _, digits) in COSTS.items()]
            times = cost['times_reference']
            cells.append('-' if times is None else f'{times:.1f}x')
        lines.append(f'| {row.title} | ' + ' | '.join(cells) + f' | {row.published or "-"} |')
    return '\n'.join(lines)


def accuracy_table(rows: Sequence[Compared], found: Mapping[str, Found]) -> str:
    """What training alike gave, one line a row."""
    heads = ['steps x frames', 'seeds', *SCORES, 'mAP over LiDAR only', 'break-even rotation',
             "mAP lost with another scene's images"]
    lines = ['| row | ' + ' | '.join(heads) + ' |', '|' + '---|' * (1 + len(heads))]
    for row in rows:
        one = found[row.name]
        if not one.seeds:
            lines.append(f'| {row.title} | {NOT_RUN} |' + ' - |' * (len(heads) - 1))
            continue
        cells = [' and '.join(sorted(set(one.steps))), ', '.join(map(str, one.seeds)),
                 *(cell(one.of(name)) for name in SCORES), *_against_lidar(dict(found), row.name)]
        lines.append(f'| {row.title} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _against_lidar(found: dict[str, Found], row: str) -> list[str]:
    own, floor = found[row], found[LIDAR_ONLY]
    if row == LIDAR_ONLY or not shared(own, floor):
        return ['-', '-', '-']
    lost = lost_to_other_images(own)
    level = said_of(break_even_deg(found, row)) if mean(lost) > MARGIN else 'images not used'
    return [cell(gains(own, floor, 'mAP'), '+'), level, cell(lost, '+')]


def said_of(level: float | None) -> str:
    """A break-even in words."""
    if level is None:
        return f'above {ROTATIONS_DEG[-1]:g} deg'
    return 'no better at 0' if level == 0 else f'{level:.1f} deg'


def draw(path: Path, rows: Sequence[Compared], found: Mapping[str, Found], costs: Costs) -> None:
    """mAP against counted operations, a dot a row with its seeds as a bar; names stand beside, in the order of mAP; PNG."""
    figure = Figure(figsize=(9, 5), dpi=110, layout='constrained')
    axis = figure.subplots()
    dots = [(row, costs[row.name], found[row.name].of('mAP')) for row in rows]
    drawn = sorted(((row, cost['flops'] / 1e9, values) for row, cost, values in dots if cost is not None and values),
                   key=lambda dot: mean(dot[2]))
    axis.set_xscale('log')
    for k, (row, at, values) in enumerate(drawn):
        axis.plot([at, at], [min(values), max(values)], '-', color='grey', linewidth=1)
        axis.plot(at, mean(values), 'o' if row.writes_bev else 's', color=f'C{k}')
    axis.margins(x=0.1, y=0.2)
    low, high = axis.get_ylim()
    heights = spread_apart([(mean(values) - low) / (high - low) for _, _, values in drawn], _LINE_SHARE)
    for k, ((row, at, values), height) in enumerate(zip(drawn, heights)):
        axis.annotate(row.title, (at, mean(values)), (1.05, height), textcoords='axes fraction', fontsize=8, va='center',
                      annotation_clip=False, arrowprops=dict(arrowstyle='-', color=f'C{k}', alpha=0.5, linewidth=0.8,
                                                             relpos=(0, 0.5)))
    axis.set_xlabel('operations of a frame at full size (GFLOPs, counted)')
    axis.set_ylabel('mAP on the synthetic worlds (%)')
    for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        ticks('{x:g}')
    axis.grid(alpha=0.3, which='both')
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little as squares can say so that each is at least `gap` above the one before."""
    steps = gap * np.arange(len(places))
    return (isotonic_regression(np.array(places, dtype=float) - steps).x + steps).tolist()


def write_report(results: Path, rows: Sequence[Compared], seeds: Sequence[int], doc: Path, extra: Sequence[str] = ()) -> None:
    """Rewrites the section in `doc` and the picture beside it.

    Args:
        results: folder of the result files.
        rows: of the table; what was not run says so.
        seeds: whose files are read.
        doc: with MARKERS.
        extra: further parts of the section.

    Raises:
        UserError: where the document has no markers.
    """
    found, costs = read_all(results, rows, seeds), {row.name: read_cost(results, row.name) for row in rows}
    parts = [_of_costs(costs), cost_table(rows, costs), _of_scores(found), accuracy_table(rows, found)]
    if any(cost is not None and found[row].seeds for row, cost in costs.items()):
        draw(doc.parent / PICTURE, rows, found, costs)
        parts.append(f'![mAP against operations]({PICTURE})\n\nDots fuse into the BEV, squares are query detectors; bars span '
                     'the seeds.')
    write_tables(doc, '\n' + '\n\n'.join([*parts, *extra]) + '\n', MARKERS)
    print_log(f'{sum(bool(one.seeds) for one in found.values())} of {len(rows)} rows written to {doc}', 'current')


def _of_costs(costs: Costs) -> str:
    seen = next((cost['machine'] for cost in costs.values() if cost is not None), 'no machine')
    return ('One frame at full size: six images of 256 x 704 through ResNet-50, a BEV of 128 x 128 cells, from points and '
            'pixels to boxes, memories full. Operations are counted while it runs (a multiplication and an addition as two; '
            f'sampling and voxels have no count); time is that of the CPU on {seen}, frame by frame in turn with LiDAR only, '
            'whose time it is divided by; peak memory is beyond inputs and weights. Query detectors are counted with cameras '
            'and LiDAR. '
            "The last column is what others published, with their training, their images' size and often "
            'another image network: it is no result of this project.')


def _of_scores(found: Mapping[str, Found]) -> str:
    lidar = found[LIDAR_ONLY]
    truth = 'none yet'
    if lidar.seeds:
        truth = ', '.join(f'{name} {lidar.scores[0][f"boxes/{name}"]:.0f}' for name in LOOKALIKES)
    return ('Synthetic worlds; percent, mean and half the range over the seeds. mAP and NDS are the official ones, look-alikes '
            f'and others mean APs within {RANGE_M:g} m (truth of the look-alikes: {truth}). Break-even: standard deviation of '
            f"each camera's rotation at which the row is no better than LiDAR alone, in the frames of {SWEPT_WORLDS} world, "
            f'tested at {", ".join(f"{deg:g}" for deg in ROTATIONS_DEG)} deg, linear in between; none where the row does as '
            f'well with the images of another scene (within {MARGIN:g} points). What was not run says so.')
