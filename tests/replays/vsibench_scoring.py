"""Replays VSI-Bench scores: every row and every table of a file, by both published protocols."""

from __future__ import annotations

import json
import math
from pathlib import Path

from projects.spatial_mllm.scoring import vsibench

PERCENT = 1e-9
"""Tolerance of tables in percent: the order of a sum."""
FRACTION = 1e-6
"""Tolerance of Spatial-MLLM's float32 numbers."""


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """A difference per row and protocol, and per number of each table."""
    del device  # text has none
    content = json.loads(path.read_text())
    differences = [one for number, row in enumerate(content['rows']) for one in _row(f'row {number}', row)]
    for name, aggregate in content['aggregates'].items():
        differences += _table(name, aggregate)
    return differences


def _row(name: str, row: dict) -> list[tuple[str, float]]:
    asked = row['question_type'], row['prediction'], row['ground_truth']
    try:
        official: float | None = vsibench.score_official(*asked)
    except vsibench.GroundTruthError:  # the published code divides by it
        official = None
    return [(f'{name} official', _equal(official, row['official'])),
            (f'{name} official_parsed', _equal(vsibench.read_official(row['prediction']), row['official_parsed'])),
            (f'{name} spatial_mllm', abs(vsibench.score_spatial_mllm(*asked) - row['spatial_mllm']) / FRACTION),
            (f'{name} spatial_mllm_parsed', _equal(vsibench.read_spatial_mllm(row['prediction']), row['spatial_mllm_parsed']))]


def _table(name: str, aggregate: dict) -> list[tuple[str, float]]:
    rows = [(row['question_type'], row['prediction'], row['ground_truth']) for row in aggregate['rows']]
    try:
        official = vsibench.official_table((row[0], vsibench.score_official(*row)) for row in rows)
    except (vsibench.MissingLevelError, vsibench.GroundTruthError) as error:
        ours = f'KeyError: {error}' if isinstance(error, vsibench.MissingLevelError) else 'ZeroDivisionError'
        published = str(aggregate['official'].get('error'))
        return [(f'{name} official', 0.0 if published.startswith(ours) else math.inf), *_spatial(name, rows, aggregate)]
    published = dict(aggregate['official'])
    keys, results = published.pop('tabulated_keys'), published.pop('tabulated_results')
    return [(f'{name} official keys', _equal(', '.join(official), keys)),
            (f'{name} official text', _equal(', '.join(f'{value:.3f}' for value in official.values()), results)),
            *_numbers(f'{name} official', official, published, PERCENT),
            *_spatial(name, rows, aggregate)]


def _spatial(name: str, rows: list[tuple[str, str, str]], aggregate: dict) -> list[tuple[str, float]]:
    own = vsibench.spatial_mllm_table((row[0], vsibench.score_spatial_mllm(*row)) for row in rows)
    return _numbers(f'{name} spatial_mllm', _flat(own), _flat(aggregate['spatial_mllm']), FRACTION)


def _flat(table: dict, start: str = '') -> dict[str, float]:
    flat = {}
    for name, value in table.items():
        flat.update(_flat(value, f'{start}{name}.') if isinstance(value, dict) else {start + name: value})
    return flat


def _numbers(name: str, ours: dict[str, float], published: dict[str, float], tolerance: float) -> list[tuple[str, float]]:
    return [(f'{name} {key}', abs(ours[key] - published[key]) / tolerance if key in ours and key in published else math.inf)
            for key in {**ours, **published}]


def _equal(ours: object, published: object) -> float:
    return 0.0 if ours == published else math.inf
