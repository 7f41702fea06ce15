"""Model cards: what is stored is told with its seeds, what is not says so, and the committed page has every system."""

from __future__ import annotations

import json
import re

import pytest
from tool_mains import main_of

from projects.spatial_mllm.study.cards import spatial_cards
from projects.spatial_mllm.study.rows import ROWS as SPATIAL
from projects.studies.compare.rows import ROWS
from projects.studies.encodings.memory import ROWS as POSE_MEMORIES
from projects.studies.encodings.rows import ROWS as ENCODINGS
from projects.studies.forecasting.rows import ROWS as FORECASTS
from projects.studies.forecasting.shared import TASKS
from projects.studies.fusion.results import cell
from projects.studies.memory import copying
from projects.studies.model_cards.detectors import memory_cards
from projects.studies.model_cards.forecasters import forecasting_cards
from projects.studies.model_cards.poses import encoding_cards
from projects.studies.nuscenes_runs import RUNS

SYSTEMS = [*ROWS, *copying.ROWS, *FORECASTS, *TASKS, *ENCODINGS, *POSE_MEMORIES, *RUNS]


def stored(folder, **files):
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))


def card_of(cards, title):
    return next(card for card in cards if card.title == title).lines


def test_cards_by_hand(tmp_path):
    fusion = tmp_path / 'fusion'
    fusion.mkdir()
    row = ROWS[2].name
    for seed, value in ((0, 20.0), (3, 22.0)):
        worlds = [dict(mAP=value - 1, NDS=30.0), dict(mAP=value + 1, NDS=30.0)]
        (fusion / f'{row}-{seed}.json').write_text(json.dumps(dict(steps=100, frames_a_step=2, worlds=worlds)))
    cost = dict(parameters=32_100_000, flops=3.17e11, cpu_s=6.1, peak_bytes=712_000_000, machine='a CPU')
    (fusion / f'{row}-cost.json').write_text(json.dumps(cost))
    doc = tmp_path / 'cards.md'
    main_of('model_cards')(['--results', tmp_path, '--doc', doc])
    assert doc.read_text().count('\n## ') == len(SYSTEMS) + len(SPATIAL)
    card = next(part for part in doc.read_text().split('\n## ') if part.startswith('FuTr++\n'))
    assert '| numbers | mAP 21.0 ± 1.0, NDS 30.0 ± 0.0 (percent, mean of the worlds) |' in card and '| seeds | 0, 3 |' in card
    assert '32.1 M parameters, 317 GFLOPs, 6.1 s and 712 MB a frame on a CPU' in card and '| training | 100 x 2 ' in card
    assert doc.read_text().count('| seeds | not run |') == len(SYSTEMS) + len(SPATIAL) - 1
    assert cell([]) == '-' and cell([1.0]) == '1.0'


def test_forecasters_by_hand(tmp_path):
    scores = {'minADE_1': 3.0, 'minADE_5': 1.0, 'minFDE_1': 8.0, 'decided/minADE_5': 1.25}
    stored(tmp_path, **{f'masked-{seed}': dict(
        seed=seed, steps=1500, train_seconds=40.0, scores={**scores, 'minADE_5': 1.0 + seed}) for seed in (0, 1)})
    stored(tmp_path, **{'constant_velocity-0': dict(seed=0, scores=scores)},
           **{'shared_both-0': dict(seed=0, scores={'NuScenes metric/NDS': 0.25, 'forecast/minADE_5': 1.5})})
    cards = list(forecasting_cards(tmp_path))
    masked = card_of(cards, 'Forecast: + memory with map, masked')
    assert masked['numbers'] == ('minADE_1 3.00 ± 0.00 m, minADE_5 1.50 ± 0.50 m, minFDE_1 8.00 ± 0.00 m, '
                                 'minADE_5 where the scene decides 1.25 ± 0.00 m')
    assert (masked['seeds'], masked['kind']) == ('0, 1', '5 modes with probabilities')
    assert masked['training'] == '1500 steps of the head on stored features of a memory' and masked['cost'].startswith('40 s')
    devkit = card_of(cards, 'Forecast: constant velocity and heading (devkit)')
    assert devkit['config'] == "none: the devkit's `ConstantVelocityHeading`" and devkit['training'] == devkit['cost'] == 'none'
    assert card_of(cards, 'Detector and forecaster: both on one network')['numbers'] == 'NDS 0.250, minADE_5 1.500'


def test_ways_to_tell_poses_by_hand(tmp_path):
    design = dict(train_seconds=20.0, own=dict(found=60.0, accuracy=55.0), rig=dict(found=58.0, accuracy=1.0))
    stored(tmp_path, **{'gta-0': dict(seed=0, steps=200, frames_a_step=4, futrpp=design, petrv2=design)},
           **{'memory-residual-0': dict(seed=0, steps=300, clips=4, train_seconds=7.0,
                                        scores={'memory/recall_0pts_seen': 0.03})})
    cards = list(encoding_cards(tmp_path))
    gta = card_of(cards, 'Poses in attention: GTA')
    assert gta['numbers'].startswith(
        'FuTr++, cells that read tokens: found 60.0, on an unseen rig 58.0, right class 55.0; PETRv2')
    assert gta['training'].startswith('200 x 4 steps x frames') and gta['cost'].startswith('40 s')
    memory = card_of(cards, 'Poses in memory: XMem, distance between cells')
    assert memory['numbers'].startswith('recall: hidden, seen before 3.0; of these, ego turns -')


def test_spatial_rows_by_hand(tmp_path):
    settings = dict(schedule=dict(steps=[500, 2600, 400]))
    stored(tmp_path, **{f'poses-{seed}': dict(
        seed=seed, settings=settings, seconds=600 + 10 * seed, parameters=510_080,
        test=dict(other=dict(accuracy=0.9 + 0.05 * seed, count=9))) for seed in (0, 1)})
    cards = dict(spatial_cards(tmp_path))
    poses = cards['Video language model: + poses: PRoPE on half of the channels']
    assert len(cards) == len(SPATIAL) and poses['numbers'] == 'ego direction 0.90 0.95 (chance 0.33)'
    assert poses['seeds'] == '0, 1' and poses['cost'] == '0.51 M parameters, 605 s of training on a CPU'
    assert poses['training'] == '3500 steps' and cards['Video language model: HW: positions without time']['seeds'] == 'not run'


def test_a_broken_result_is_named(tmp_path):
    (tmp_path / 'copy-0.json').write_text('{')
    with pytest.raises(ValueError, match='copy-0.json: is no result of a study'):
        list(memory_cards(tmp_path))


def test_the_committed_page_has_every_system(repo):
    page = (repo / 'docs' / 'model_cards.md').read_text()
    titles = [row.title for row in ROWS] + [f'nuScenes: {run.name}' for run in RUNS] + [
        f'Forecast: {row.title}' for row in FORECASTS] + [f'Detector and forecaster: {task.title}' for task in TASKS] + [
        f'Poses in attention: {row.title}' for row in ENCODINGS] + [f'Video language model: {row.label}' for row in SPATIAL]
    assert [title for title in titles if f'\n## {title}\n' not in page] == []
    assert page.count('\n## Memory: ') >= 6
    configs = re.findall(r'`(configs/\S+\.py)`', page)
    assert len(configs) > 30 and [path for path in configs if not (repo / path).is_file()] == []
