"""Metric. In: samples with futures, global xy. Out: the devkit's scores of a prediction split; a submission file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet3d.registry import METRICS, TASK_UTILS
from mmengine.logging import MMLogger
from nuscenes.eval.prediction.data_classes import Prediction
from nuscenes.eval.prediction.metrics import OffRoadRate, RowMean
from nuscenes.eval.prediction.splits import get_prediction_challenge_split
from nuscenes.map_expansion.map_api import locations
from nuscenes.prediction import PredictHelper

from projects.common.build import build_from

from .forecast_baselines import SECONDS, named_baselines, predict_baseline, read_submission, write_submission
from .forecast_scores import (
    MaskedOffRoadRate,
    displacement_errors,
    mean_scores,
    prediction_metrics,
    score_futures,
)
from .nuscenes_metric import OrderedMetric
from .sample_fields import describe, read_field


@METRICS.register_module()
class NuScenesForecastMetric(OrderedMetric):
    """The devkit's prediction scores: minADE_k, minFDE_k, MissRateTopK_2_k for k = 1, 5, 10, OffRoadRate, and ADE, FDE.

    Names are 'forecast/minADE_5', ...; with `baselines` those of the devkit's classes, run unchanged on the same tokens, as
    'forecast/PhysicsOracle/minADE_5', ...; with `strata` also 'forecast/{stratum}/minADE_5', ... of every stratum.

    Args:
        data_root: folder with the version's tables and maps/prediction/prediction_scenes.json.
        split: 'val', 'train_val', 'train', 'mini_val' or 'mini_train' of the prediction challenge.
        version: of the tables; None is the data set's.
        off_road: whether OffRoadRate is scored, which reads the maps.
        drivable_masks: map name -> image file, not 0 where it is drivable, 10 pixels a metre, as MaskedOffRoadRate; None reads
            the map expansion by the devkit.
        baselines: of the devkit's 'ConstantVelocityHeading' and 'PhysicsOracle', and of any other models dict(name='MTP',
            submission='FILE.json'), whose predictions are in a file as the challenge takes them.
        strata: JSON file, token -> name of its stratum.
        submission: file to write the predictions to, as the challenge takes them; None is none.
        field: of the samples, where the futures are: 'pred_futures', or 'pred_detected_futures' of what a detector found.
        partial: whether tokens may go without a prediction, as agents that were not found do; scores are then of the others,
            and 'forecast/recall' is their share.
        prefix: of the metric names.
        collect_device: where ranks exchange results.

    Raises:
        ValueError: naming an unknown baseline; when the data set is known: naming a file that is missing or unreadable.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'val',
        version: str | None = None,
        off_road: bool = True,
        drivable_masks: Mapping[str, str] | None = None,
        baselines: Sequence[str | Mapping[str, str]] = (),
        strata: str | None = None,
        submission: str | None = None,
        field: str = 'pred_futures',
        partial: bool = False,
        prefix: str = 'forecast',
        collect_device: str = 'cpu',
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.data_root, self.split, self.version, self.off_road = data_root, split, version, off_road
        self.drivable_masks, self.baselines, self.strata = drivable_masks, named_baselines(baselines), strata
        self.submission, self.field, self.partial = submission, field, partial

    def check_before(self, dataset_meta: Mapping[str, Any]) -> None:
        """Raises ValueError for files that would be missed after hours of testing only."""
        del dataset_meta
        read_strata(self.strata)
        for file in filter(None, self.baselines.values()):
            read_submission(Path(file))
        if self.off_road and self.drivable_masks is None:
            missing = [name for name in locations if not (Path(self.data_root) / 'maps/expansion' / f'{name}.json').is_file()]
            if missing:
                raise ValueError(f'NuScenesForecastMetric: {self.data_root}/maps/expansion/{missing[0]}.json is missing, which '
                                 'OffRoadRate reads: unpack the map expansion (v1.3) into maps/, give drivable_masks, or set '
                                 'off_road=False')
        elif self.off_road:
            self._masks()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps each agent's prediction.

        Args:
            data_batch: not used.
            data_samples: dicts with `field`: tokens (n `instance_sample`), global_xy (n, M, 12, 2) metres and
                probabilities (n, M).

        Raises:
            ValueError: naming the sample or the token, where they are missing or not finite.
        """
        del data_batch
        for sample in data_samples:
            if self.partial and sample.get(self.field) is None:
                continue  # nobody to be forecast
            found = read_field(sample, self.field, 'the model must forecast (AgentForecaster, ForecastHead), or take '
                               'NuScenesForecastMetric out')
            modes, probabilities = found['global_xy'].cpu().double().numpy(), found['probabilities'].cpu().double().numpy()
            for token, xy, probability in zip(found['tokens'], modes, probabilities, strict=True):
                if not (np.isfinite(xy).all() and np.isfinite(probability).all()):
                    raise ValueError(f'{describe(sample)}: the future of {token} is not finite')
                self.results.append(dict(token=token, xy=xy, probabilities=probability))

    def order(self, parts: list[list[dict]], size: int) -> list[dict]:
        """The ranks' predictions in the split's order, one for each of its tokens (or, where `partial`, at most one).

        Raises:
            ValueError: naming the first token of the split without a prediction, or the first prediction of no such token.
        """
        del size  # counts samples, which may have any number of agents
        found: dict[str, dict] = {}
        for part in parts:  # samplers repeat samples to fill up the ranks
            for one in part:
                found.setdefault(one['token'], one)
        tokens = get_prediction_challenge_split(self.split, self.data_root)
        missing, unknown = [token for token in tokens if token not in found], sorted(set(found) - set(tokens))
        self._recall = len(found) / max(1, len(tokens))
        if unknown or (missing and not self.partial):
            what = (f'{len(missing)} of its {len(tokens)} tokens were not predicted (first: {missing[0]})' if not unknown else
                    f'{unknown[0]} was predicted, but it is not among its {len(tokens)} tokens')
            raise ValueError(f'prediction split {self.split!r} of {self.data_root}: {what}; data set and evaluator need the '
                             'same data_root and split')
        return [found[token] for token in tokens if token in found]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Scores ordered results, and writes the submission."""
        predictions = [Prediction(*one['token'].split('_'), one['xy'], one['probabilities']) for one in results]
        if self.submission is not None:
            write_submission(predictions, Path(self.submission))
        version = self.version or (self.dataset_meta or {}).get('version')
        if version is None:
            raise ValueError('NuScenesForecastMetric.version is not set, and the data set does not say its own')
        helper = build_from(TASK_UTILS, dict(type='prediction_helper', data_root=self.data_root, version=version))
        tokens = [one['token'] for one in results]
        scorer = ForecastScorer(helper, self._off_road_rate(helper), self.strata)
        values = scorer.score(tokens, predictions)
        if self.partial:
            values['recall'] = self._recall
        for name, file in self.baselines.items():
            made = predict_baseline(name, file, helper, tokens)
            values |= {f'{name}/{key}': value for key, value in scorer.score(tokens, made).items()}
        lines = [f'{name:<40}{value:>9.3f}' for name, value in values.items()]
        MMLogger.get_current_instance().info(f'{self.prefix}: {len(results)} agents of {self.split}\n' + '\n'.join(lines))
        return values

    def _off_road_rate(self, helper: PredictHelper) -> OffRoadRate | None:
        if not self.off_road:
            return None
        if self.drivable_masks is None:
            return OffRoadRate(helper, [RowMean()])
        return MaskedOffRoadRate(self._masks(), helper)

    def _masks(self) -> dict[str, np.ndarray]:
        given = self.drivable_masks or {}
        masks = {name: cv2.imread(path, cv2.IMREAD_GRAYSCALE) for name, path in given.items()}
        unreadable = [name for name, mask in masks.items() if mask is None]
        if unreadable:
            raise ValueError(f'NuScenesForecastMetric.drivable_masks[{unreadable[0]!r}]: {given[unreadable[0]]} is no readable '
                             'image')
        return masks


class ForecastScorer:
    """Scores predictions against the futures that the devkit's helper knows.

    Args:
        helper: of the tables.
        off_road: scores leaving the road; None leaves it out.
        strata: JSON file, token -> name; None is none.
    """

    def __init__(self, helper: PredictHelper, off_road: OffRoadRate | None = None, strata: str | None = None) -> None:
        self.helper, self.metrics = helper, prediction_metrics(off_road)
        self.strata = read_strata(strata)

    def score(self, tokens: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Means over all tokens, and over those of each stratum as '{stratum}/{name}'."""
        truths = [self.helper.get_future_for_agent(*token.split('_'), SECONDS, in_agent_frame=False) for token in tokens]
        scores = score_futures(truths, predictions, self.metrics)
        plain = np.array([displacement_errors(truth, np.ones(len(truth), dtype=bool), prediction)
                          for truth, prediction in zip(truths, predictions)]).reshape(-1, 2)
        everything = {**scores, 'ADE': plain[:, :1], 'FDE': plain[:, 1:]}
        values = mean_scores(everything)
        names = [self.strata.get(token) for token in tokens]
        for stratum in sorted({name for name in names if name is not None}):
            members = [name == stratum for name in names]
            means = mean_scores({name: rows[members] for name, rows in everything.items()})
            values |= {f'{stratum}/{name}': value for name, value in means.items()}
        return values


def read_strata(file: str | None) -> dict[str, str]:
    """{token: name of its stratum}, empty without a file; ValueError naming it, where it is nothing such."""
    if file is None:
        return {}
    try:
        strata = json.loads(Path(file).read_text())
    except OSError as error:
        raise ValueError(f'NuScenesForecastMetric.strata: cannot read {file} ({error.strerror})') from error
    except ValueError as error:
        raise ValueError(f'NuScenesForecastMetric.strata: {file} is not JSON ({error})') from error
    if not isinstance(strata, dict):
        raise ValueError(f'NuScenesForecastMetric.strata: {file} is not {{instance_sample: name}}')
    return strata
