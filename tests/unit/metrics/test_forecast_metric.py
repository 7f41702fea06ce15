"""Unit: forecasts are scored by the devkit, for exactly the split's tokens, and the submission is read back by it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from nuscenes.eval.prediction.data_classes import Prediction

from projects.memfusion.metrics import forecast_metric
from projects.memfusion.metrics.forecast_baselines import read_submission
from projects.memfusion.metrics.forecast_metric import NuScenesForecastMetric

STRAIGHT = np.stack([np.zeros(12), np.arange(1.0, 13)], axis=-1)
GOLDEN = STRAIGHT + np.array([[0.5, 0.0], [0.0, 3.0], [0.0, 0.0]])[:, None]
TOKENS = ['i0_a', 'i1_a', 'i0_b']


class Helper:
    """Every agent drives straight on along global y, 10 m beside the one before."""

    def __init__(self, cfg: object) -> None:
        self.offset = {token: np.array([10.0 * number, 0.0]) for number, token in enumerate(TOKENS)}

    def get_future_for_agent(self, instance: str, sample: str, seconds: float, in_agent_frame: bool) -> np.ndarray:
        assert seconds == 6.0 and not in_agent_frame
        return STRAIGHT + self.offset[f'{instance}_{sample}']

    def get_sample_annotation(self, instance: str, sample: str) -> dict:
        half = np.sqrt(0.5)
        return dict(translation=[*self.offset[f'{instance}_{sample}'], 0.0], rotation=[half, 0, 0, half])

    def get_velocity_for_agent(self, instance: str, sample: str) -> float:
        return 2.0

    def get_acceleration_for_agent(self, instance: str, sample: str) -> float:
        return np.nan

    def get_heading_change_rate_for_agent(self, instance: str, sample: str) -> float:
        return 0.1

    def get_map_name_from_sample_token(self, sample: str) -> str:
        return 'field'


@pytest.fixture
def metric(monkeypatch):
    """metric(**settings), without tables or maps."""
    monkeypatch.setattr(forecast_metric, 'build_from', lambda registry, cfg: Helper(cfg))
    monkeypatch.setattr(forecast_metric, 'get_prediction_challenge_split', lambda split, dataroot: TOKENS)
    return lambda **settings: NuScenesForecastMetric('data', version='v1.0-x', **{'off_road': False, **settings})


def samples(shift: float = 0.0) -> list[dict]:
    """The golden futures of the three agents, in two samples; `shift` is along x, metres."""
    offset, found = Helper(None).offset, []
    for tokens in (TOKENS[2:], TOKENS[:2]):
        xy = np.stack([GOLDEN + offset[token] + (shift, 0) for token in tokens])
        found.append(dict(sample_token=tokens[0][-1], pred_futures=dict(
            tokens=tokens, global_xy=torch.tensor(xy), probabilities=torch.tensor([[0.5, 0.3, 0.2]] * len(tokens)))))
    return found


def test_golden_numbers(metric) -> None:
    one = metric()
    one.process({}, samples())
    values = one.evaluate(size=2)
    expected = {'minADE_1': 0.5, 'minADE_5': 0, 'minADE_10': 0, 'minFDE_1': 0.5, 'MissRateTopK_2_1': 0, 'MissRateTopK_2_5': 0,
                'ADE': 0.5, 'FDE': 0.5}
    assert {name: values[f'forecast/{name}'] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 'forecast/OffRoadRate' not in values
    one.process({}, samples(shift=2.0))  # the likeliest is 2.5 m off, another exactly 2: both are misses
    values = one.evaluate(size=2)
    assert values['forecast/MissRateTopK_2_1'] == values['forecast/MissRateTopK_2_10'] == 1
    assert values['forecast/minADE_1'] == pytest.approx(2.5) and values['forecast/minADE_5'] == pytest.approx(2)


def test_strata_baselines_masks_and_submission(metric, tmp_path: Path) -> None:
    (tmp_path / 'strata.json').write_text(json.dumps({TOKENS[0]: 'brake', TOKENS[1]: 'keep'}))
    drivable = np.zeros((400, 400), dtype=np.uint8)
    drivable[:, :105] = 1  # 10.5 m along x: the second agent's futures leave the road, the third's lie outside
    cv2.imwrite(str(tmp_path / 'field.png'), drivable)
    one = metric(strata=str(tmp_path / 'strata.json'), baselines=['ConstantVelocityHeading', 'PhysicsOracle'], off_road=True,
                 drivable_masks=dict(field=str(tmp_path / 'field.png')), submission=str(tmp_path / 'out' / 'submission.json'))
    one.process({}, samples())
    values = one.evaluate(size=2)
    assert values['forecast/brake/minADE_1'] == pytest.approx(0.5) and values['forecast/brake/OffRoadRate'] == 0
    assert values['forecast/keep/OffRoadRate'] == pytest.approx(1 / 3)
    assert values['forecast/OffRoadRate'] == pytest.approx((0 + 1 / 3 + 1) / 3)
    # 2 m/s along y is the truth itself
    assert values['forecast/ConstantVelocityHeading/minADE_5'] == pytest.approx(0, abs=1e-9)
    assert values['forecast/PhysicsOracle/ADE'] == pytest.approx(0, abs=1e-9)
    read = read_submission(tmp_path / 'out' / 'submission.json')
    assert [f'{one.instance}_{one.sample}' for one in read] == TOKENS and all(isinstance(one, Prediction) for one in read)
    assert np.allclose(read[1].prediction, GOLDEN + (10, 0)) and np.allclose(read[1].probabilities, [0.5, 0.3, 0.2])


def test_exactly_the_splits_tokens(metric) -> None:
    one = metric()
    one.process({}, samples()[1:])
    with pytest.raises(ValueError, match=r"split 'val' of data: 1 of its 3 tokens were not predicted \(first: i0_b\)"):
        one.evaluate(size=2)
    strange = samples()
    strange[0]['pred_futures']['tokens'] = ['i9_b']
    one.process({}, [*samples(), *strange])
    with pytest.raises(ValueError, match='i9_b was predicted, but it is not among its 3 tokens'):
        one.evaluate(size=2)
    one.process({}, [*samples(), *samples()[:1]])  # samplers repeat samples to fill up the ranks
    assert one.evaluate(size=2)['forecast/minADE_5'] == pytest.approx(0, abs=1e-6)


def test_bad_predictions_are_named(metric) -> None:
    broken = samples()
    broken[1]['pred_futures']['global_xy'][1, 0, 3] = torch.nan
    with pytest.raises(ValueError, match='sample a: the future of i1_a is not finite'):
        metric().process({}, broken)
    with pytest.raises(ValueError, match='has no pred_futures'):
        metric().process({}, [dict(sample_token='a')])
    with pytest.raises(ValueError, match="no 'LSTM'"):
        metric(baselines=['LSTM'])
    one = metric(off_road=True, drivable_masks=dict(field='nothing.png'))
    one.process({}, samples())
    with pytest.raises(ValueError, match="'field'.*nothing.png is no readable image"):
        one.evaluate(size=2)


def test_other_models_are_scored_from_their_files_on_the_same_tokens(metric, tmp_path: Path) -> None:
    file = tmp_path / 'mtp.json'
    submitting = metric(submission=str(file))
    submitting.process({}, samples(shift=1.0))
    submitting.evaluate(size=2)
    one = metric(baselines=['PhysicsOracle', dict(name='MTP', submission=str(file))])
    one.dataset_meta = {}
    one.process({}, samples())
    values = one.evaluate(size=2)
    assert values['forecast/minADE_1'] == pytest.approx(0.5) and values['forecast/MTP/minADE_1'] == pytest.approx(1.5)
    assert values['forecast/PhysicsOracle/ADE'] == pytest.approx(0, abs=1e-9)
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    one.process({}, samples())
    with pytest.raises(ValueError, match=r"mtp\.json, predictions of 'MTP': 1 of 3 tokens are not in it \(first: i0_a\)"):
        one.evaluate(size=2)


@pytest.mark.parametrize('name', ['MTP', 'CoverNet'])
def test_the_devkits_networks_are_refused_with_what_to_do(metric, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*torchvision.*dict\(name='{name}', submission='FILE.json'\)"):
        metric(baselines=[name])
    with pytest.raises(ValueError, match=f"'{name}' is there twice"):
        metric(baselines=[dict(name=name, submission='a.json'), dict(name=name, submission='b.json')])
    with pytest.raises(ValueError, match=r"the keys \['file', 'name'\]; it takes name and submission"):
        metric(baselines=[dict(name=name, file='a.json')])


def test_files_are_missed_before_anything_is_predicted(metric, tmp_path: Path) -> None:
    def told(**settings: object) -> None:
        metric(**settings).dataset_meta = {}

    told()
    broken = tmp_path / 'broken.json'
    for content in ('{', '[1]'):
        broken.write_text(content)
        with pytest.raises(ValueError, match=r'strata: .*broken\.json is not'):
            told(strata=str(broken))
        with pytest.raises(ValueError, match=r'broken\.json is not a list of predictions'):
            told(baselines=[dict(name='other', submission=str(broken))])
    for settings in (dict(strata='nothing.json'), dict(baselines=[dict(name='other', submission='nothing.json')])):
        with pytest.raises(ValueError, match=r'cannot read nothing\.json'):
            told(**settings)
    with pytest.raises(ValueError, match=r'data/maps/expansion/.*json is missing.*off_road=False'):
        told(off_road=True)
    with pytest.raises(ValueError, match=r"'field'.*nothing\.png is no readable image"):
        told(off_road=True, drivable_masks=dict(field='nothing.png'))
