"""Replays the devkit's prediction metrics: every row and every mean of a file, with its drivable mask."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from nuscenes.eval.prediction.data_classes import Prediction

from projects.memfusion.metrics.forecast_scores import (
    TOLERANCE_M,
    MaskedOffRoadRate,
    displacement_errors,
    mean_scores,
    prediction_metrics,
    score_futures,
)

from .compare import difference

TOLERANCE = 1e-9
SHORT = {'MinADEK': 'minADE', 'MinFDEK': 'minFDE', 'MissRateTopK_2.0': 'MissRateTopK_2'}


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """A difference per row and metric, and per mean. Raises ValueError for settings that nobody scores by."""
    del device  # these are numpy's
    content = json.loads(path.read_text())
    drivable = content['drivable_mask']
    if content['tolerance'] != TOLERANCE_M or content['pixels_per_meter'] != 10:
        raise ValueError('misses are scored at 2 m, drivable masks at 10 pixels a metre')
    mask = np.zeros(drivable['shape'], dtype=np.uint8)
    for top, bottom, left, right in drivable['rectangles_one']:
        mask[top:bottom, left:right] = 1
    helper = SimpleNamespace(get_map_name_from_sample_token=lambda token: 'given')
    metrics = prediction_metrics(MaskedOffRoadRate(dict(given=mask), helper), content['k'])
    rows = content['rows']
    truths = [np.array(row['ground_truth']) for row in rows]
    made = [Prediction('instance', 'sample', np.array(row['modes']), np.array(row['probabilities'])) for row in rows]
    scores = score_futures(truths, made, metrics)
    found = [(f'row {number} {name}', difference(values[number], np.ravel(row[name]), TOLERANCE))
             for number, row in enumerate(rows) for name, values in scores.items()]
    if 1 in content['k']:
        at = content['k'].index(1)
        plain = np.array([displacement_errors(truth, np.ones(len(truth), dtype=bool), prediction)
                          for truth, prediction in zip(truths, made)])
        published = np.array([[row['MinADEK'][at], row['MinFDEK'][at]] for row in rows])
        found.append(('plain ADE and FDE', difference(plain, published, TOLERANCE)))
    means = mean_scores(scores, content['k'])
    for name, values in content['row_mean'].items():
        ours = [means[f'{SHORT[name]}_{k}'] for k in content['k']] if name in SHORT else [means[name]]
        found.append((f'mean {name}', difference(np.array(ours), np.ravel(values), TOLERANCE)))
    for name, value in content['flat'].items():
        metric, _, k = name.rpartition('_')
        own = means[f'{SHORT[metric]}_{k}'] if metric in SHORT else means[name]
        found.append((f'flat {name}', difference(np.ravel(own), np.ravel(value), TOLERANCE)))
    return found
