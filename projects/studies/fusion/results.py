"""Study. In: the stored files. Out: the same numbers by row, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from projects.studies.robustness.conditions import make_conditions
from projects.studies.robustness.report import break_even, curve
from projects.studies.robustness.run import Scores

from .faults import FAULTS, result_path
from .rows import ROWS

Table = dict[str, dict[str, list[float]]]
"""{row: {score: one value a seed, the mean over the worlds}}."""
CONDITIONS = make_conditions(6, '', FAULTS)


def read_rows(out: Path, seeds: Sequence[int]) -> Table:
    """The rows that are finished for all seeds."""
    table: Table = {}
    for row in ROWS:
        files = [out / f'seed{seed}' / f'{row.name}.json' for seed in seeds]
        if all(file.is_file() for file in files):
            seen = [average(json.loads(file.read_text())['worlds']) for file in files]
            table[row.name] = {name: [scores[name] for scores in seen] for name in seen[0]}
    return table


def average(parts: Sequence[Mapping[str, float]]) -> Scores:
    """Mean of every score; `boxes/CLASS` is summed."""
    return {name: (sum if name.startswith('boxes/') else mean)([part[name] for part in parts]) for name in parts[0]}


def read_faults(out: Path, seeds: Sequence[int], row: str, roots: Sequence[Path]) -> list[dict[str, Scores]]:
    """{condition: scores} of each seed, means over the worlds, with the LiDAR-only detector's as 'lidar_only'; [] where
    a seed has not been tested under all conditions."""
    found = []
    for seed in seeds:
        files = [result_path(out / f'seed{seed}', row, root) for root in roots]
        contents = [json.loads(file.read_text()) for file in files if file.is_file()]
        names = [condition.name for condition in CONDITIONS]
        if len(contents) < len(roots) or any(name not in content['scores'] for content in contents for name in names):
            return []
        found.append({**{name: average([content['scores'][name] for content in contents]) for name in names},
                      'lidar_only': average([content['lidar_only'] for content in contents])})
    return found


def average_seeds(faults: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    """Means over the seeds."""
    return {name: average([one[name] for one in faults]) for name in faults[0]}


def gain(table: Table, row: str, over: str, name: str) -> list[float]:
    """Difference of two rows' scores, seed by seed."""
    return [a - b for a, b in zip(table[row][name], table[over][name])]


def spread(values: Sequence[float]) -> float:
    """From the lowest to the highest seed."""
    return max(values) - min(values)


def cell(values: Sequence[float], sign: str = '', digits: int = 1, scale: float = 1.0) -> str:
    """Mean and, of several seeds, half their range; '-' of none. `sign='+'` also shows that of a gain; scale 100 is percent."""
    if not values:
        return '-'
    half_range = f' ± {scale * spread(values) / 2:.{digits}f}' if len(values) > 1 else ''
    return f'{scale * mean(values):{sign}.{digits}f}{half_range}'


def lowest(faults: Mapping[str, Scores]) -> tuple[str, float]:
    """The wrong calibration with the lowest mAP, and that mAP less the LiDAR-only detector's; `faults` are means."""
    names = [condition.name for condition in CONDITIONS if condition.group in FAULTS]
    name = min(names, key=lambda name: faults[name]['mAP'])
    return name, faults[name]['mAP'] - faults['lidar_only']['mAP']


def break_even_of(faults: Mapping[str, Scores], group: str) -> float | None:
    """The level of a fault at which the detector is no better than LiDAR alone, mAP; None where it stays better."""
    return break_even(*curve(CONDITIONS, faults, group, 'mAP'), faults['lidar_only']['mAP'])
