"""Metric. In: names of the devkit's baselines or files of predictions, tokens. Out: their predictions, global xy in metres."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nuscenes.eval.prediction.data_classes import Prediction
from nuscenes.prediction import PredictHelper
from nuscenes.prediction.models import physics

BASELINES = ('ConstantVelocityHeading', 'PhysicsOracle')
NETWORKS = ('MTP', 'CoverNet')
"""Of the devkit, too; their weights are not published, and they need torchvision, which MemFusion does without."""
SECONDS = 6.0


def named_baselines(baselines: Sequence[str | Mapping[str, str]]) -> dict[str, str | None]:
    """{name: file of its predictions, or None where the devkit's class of that name makes them}.

    Raises:
        ValueError: naming what is neither a physics baseline of the devkit nor a name with a file, or a name given twice.
    """
    found: dict[str, str | None] = {}
    for one in baselines:
        if isinstance(one, str):
            name, file = one, None
            if name in NETWORKS:
                raise ValueError(
                    f'NuScenesForecastMetric.baselines: {name!r} is a network of the devkit without published weights: train '
                    'it with the devkit where torchvision is installed, store its predictions as the challenge takes them, '
                    f"and give dict(name={name!r}, submission='FILE.json')")
            if name not in BASELINES:
                raise ValueError(f'NuScenesForecastMetric.baselines: no {name!r}; there are {BASELINES}, or '
                                 "dict(name=..., submission='FILE.json') for any other model's predictions")
        elif set(one) == {'name', 'submission'}:
            name, file = one['name'], one['submission']
        else:
            raise ValueError(f'NuScenesForecastMetric.baselines: {dict(one)} has the keys {sorted(one)}; it takes name and '
                             'submission')
        if name in found:
            raise ValueError(f'NuScenesForecastMetric.baselines: {name!r} is there twice')
        found[name] = file
    return found


def predict_baseline(name: str, file: str | None, helper: PredictHelper, tokens: Sequence[str]) -> list[Prediction]:
    """The predictions of a baseline for these tokens, in their order.

    Raises:
        ValueError: naming the file, where it cannot be read or has no prediction of a token.
    """
    if file is None:
        return [*map(getattr(physics, name)(SECONDS, helper), tokens)]
    found = {f'{one.instance}_{one.sample}': one for one in read_submission(Path(file))}
    missing = [token for token in tokens if token not in found]
    if missing:
        raise ValueError(f'{file}, predictions of {name!r}: {len(missing)} of {len(tokens)} tokens are not in it (first: '
                         f'{missing[0]}); it must be of the split that is scored')
    return [found[token] for token in tokens]


def write_submission(predictions: Sequence[Prediction], path: Path) -> None:
    """Writes predictions as the challenge takes them: a JSON list that the devkit's `Prediction.deserialize` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([prediction.serialize() for prediction in predictions]))


def read_submission(path: Path) -> list[Prediction]:
    """What `write_submission` or the devkit's own models wrote; ValueError naming the file, where it is nothing such."""
    try:
        content: list[dict[str, Any]] = json.loads(path.read_text())
        return [Prediction.deserialize(one) for one in content]
    except OSError as error:
        raise ValueError(f'cannot read {path} ({error.strerror}), which should hold predictions') from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not a list of predictions as the prediction challenge takes them ({error!r})') from error
