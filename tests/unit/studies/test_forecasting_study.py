"""Unit: the study of forecasting: clips that are turned stay true, other scenes' clips, rows, tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forecast_agents import straight_agents

from projects.memfusion.forecasting import bev_masks
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures import Agents
from projects.studies.forecasting import shared
from projects.studies.forecasting.neighbours import true_neighbours
from projects.studies.forecasting.report import MARKERS, write_report
from projects.studies.forecasting.rows import ROWS, planned
from projects.studies.forecasting.train import StoredFeatures, standardised, store_features, train_memory
from projects.studies.forecasting.world import ForecastWorld, flattened, load_config, picked, turned
from projects.studies.memory.rows import Budget

RANGE = (-32.0, -32.0, -5.0, 32.0, 32.0, 3.0)


@pytest.mark.parametrize('quarters, mirrored', [(0, True), (1, False), (3, True)])
def test_a_turned_clip_shows_its_agents_where_they_are(quarters: int, mirrored: bool) -> None:
    agents = straight_agents([3.0, 6.0, 9.0], seed=1)
    masks = bev_masks(agents, RANGE, (64, 64)).masks  # as rasters: what is seen of each agent
    inputs = turned(dict(rasters=masks[:, :, :3], agents=agents), quarters, mirrored)
    again = bev_masks(inputs['agents'], RANGE, (64, 64)).masks
    overlap = (again * inputs['rasters']).sum(dim=(-2, -1)) / inputs['rasters'].sum(dim=(-2, -1))
    assert overlap.min() > 0.8  # cells on the edge may fall either way
    side = -1 if mirrored else 1
    assert torch.equal(inputs['agents'].future_xy, agents.future_xy * torch.tensor([side, 1]))
    assert torch.equal(agents.boxes, straight_agents([3.0, 6.0, 9.0], seed=1).boxes)


def test_worlds_give_batches_and_other_scenes() -> None:
    scenes = [straight_agents([1.0] * count, scene=str(row), seed=row) for row, count in enumerate((2, 0, 3))]
    world = ForecastWorld(torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 3, 3, 4, 4).half(), scenes, ['a', 'a', 'b'])
    assert world.of_other_scenes() == [2, 2, 0]
    with pytest.raises(UserError, match='another one is needed'):
        replace(world, scenes=['a', 'a', 'a']).of_other_scenes()
    joined = ForecastWorld.join([world, world])
    assert joined.of_other_scenes() == [2, 2, 3, 5, 5, 0] and len(joined.agents) == len(joined.rasters) == 6
    assert joined.agents_of(1) == scenes
    inputs = world.batch([2, 0], donors=[0, 2])
    assert inputs['rasters'][:, 0, 0, 0, 0].tolist() == [0, 2] and inputs['clip_shape'] == (2, 3)
    assert inputs['agents'].tokens == (scenes[2].tokens[0], scenes[0].tokens[0])
    every = flattened(scenes)
    assert every.tokens == ((*scenes[0].tokens[0], *scenes[2].tokens[0]),)
    assert torch.equal(every.boxes, torch.cat([scenes[0].boxes, scenes[2].boxes], dim=1))
    batch = Agents.cat(scenes)
    assert torch.equal(batch.boxes[batch.valid], every.boxes[0])  # the order of stored features
    some = picked(every, torch.tensor([4, 0]))
    assert some.tokens == ((scenes[2].tokens[0][2], scenes[0].tokens[0][0]),)
    assert torch.equal(some.future_xy[0], every.future_xy[0, [4, 0]]) and replace(some).num_frames == 3


def test_who_is_truly_before_an_agent() -> None:
    """Heading to +x at (10, 5): a leader 8 m ahead at 4 m/s, a person 12 m ahead and 3 m to the left who walks to the right."""
    ahead, turned = [1.0, 0.0, 0.0, 0.0], [2 ** -0.5, 0.0, 0.0, 2 ** -0.5]
    boxes = [dict(token=name, instance_token=name, translation=[*place, 0.0], rotation=rotation, category_name=kind)
             for name, place, rotation, kind in (
                 ('me', (10.0, 5.0), ahead, 'vehicle.car'), ('leader', (18.0, 6.0), turned, 'vehicle.bus'),
                 ('farther', (30.0, 5.0), ahead, 'vehicle.car'), ('beside', (12.0, 8.5), ahead, 'vehicle.car'),
                 ('behind', (2.0, 5.0), ahead, 'vehicle.car'), ('walker', (22.0, 8.0), ahead, 'human.pedestrian.adult'))]
    speeds = dict(leader=(4.0, 0.0, 0.0), walker=(0.0, -1.5, 0.0), farther=(math.nan,) * 3)
    helper = SimpleNamespace(get_annotations_for_sample=lambda sample: boxes if sample == 's' else boxes[:1],
                             data=SimpleNamespace(box_velocity=lambda token: np.array(speeds.get(token, (1.0, 0.0, 0.0)))))
    found = true_neighbours(helper, ['me_s', 'me_alone'])  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor([[8 / 20, 4 / 5, 1, 12 / 20, -3 / 5, 1.5, 1], [2, 0, 0, 2, 0, 0, 0]]))


def test_features_are_brought_to_one_scale_by_the_training_agents() -> None:
    torch.manual_seed(0)
    known = torch.rand(40, 3) < 0.8
    made = {name: StoredFeatures(dict(masked=torch.randn(count, 3, 4) * 0.05 + 3, mean=torch.zeros(count, 3, 4)),
                                 dict(masked=torch.ones(count, 3), mean=torch.ones(count, 3)))
            for name, count in (('train', 40), ('test', 7))}
    made['train'].features['masked'][~known] = 99.0  # who is not there counts for nothing
    scaled = standardised(made, 'masked', known)
    seen = scaled['train'].features['masked'][known]
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(dim=0), torch.ones(4), atol=1e-4, rtol=0)
    before = made['train'].features['masked'][known]
    expected = (made['test'].features['masked'] - before.mean(dim=0)) / before.std(dim=0)
    torch.testing.assert_close(scaled['test'].features['masked'], expected)
    assert set(scaled['test'].features) == {'masked'} and not standardised(made, 'mean', known)['test'].features['mean'].any()


def test_features_of_a_memory_are_those_of_each_clip_alone() -> None:
    """What is stored of a memory that stays as it was drawn: all poolings, in the order of the agents; other rasters differ."""
    cfg = load_config(Path('nowhere'))
    cfg.model.features.point_cloud_range = RANGE
    cfg.model.features.stream.network.update(feature_dim=8, key_dim=4, value_dim=8, hidden_dim=4)
    scenes = [straight_agents([1.0] * count, scene=str(row), seed=row) for row, count in enumerate((2, 0, 3))]
    world = ForecastWorld(torch.rand(3, 3, 3, 32, 32).half(), scenes, ['a', 'a', 'b'])
    model = train_memory(cfg, world, Budget(iterations=0), seed=3)
    again = train_memory(cfg, world, Budget(iterations=0), seed=3)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters()))
    stored, together = store_features(model, world), store_features(model, world, clips=3)
    assert {name: part.shape[-1] for name, part in stored.features.items()} == dict(around=4 * 31, masked=4, center=4, mean=4)
    for name in ('around', 'masked', 'center'):
        torch.testing.assert_close(stored.features[name], together.features[name], atol=1e-5, rtol=0)
    inputs = world.batch([2])
    torch.testing.assert_close(stored.features['around'][2:], model.features(inputs, inputs['agents'])[0][0].detach())
    other = store_features(model, world, world.of_other_scenes())
    assert (other.features['around'] - stored.features['around']).abs().max() > 1e-3


def test_rows_are_planned_first_seeds_first() -> None:
    plan = [(row.name, seed) for row, seed in planned(None, None)]
    assert plan[:len(ROWS)] == [(row.name, 0) for row in ROWS] and plan[len(ROWS):] == [
        (row.name, 1) for row in ROWS if row.seeds == 2]
    assert [(row.name, seed) for row, seed in planned(['mean'], [3])] == [('mean', 3)]
    with pytest.raises(UserError, match="no row 'medium'"):
        planned(['medium'], None)


def test_the_report_says_what_memory_adds_and_what_another_scene_leaves(tmp_path: Path) -> None:
    names = [f'{stratum}{score}' for stratum in ('', 'decided/', 'brake/') for score in ('minADE_5', 'minFDE_1')]
    for row, value in (('kinematics', 3.0), ('around', 2.5), ('mean', 2.9)):
        for seed in (0, 1):
            part = dict(row=row, seed=seed, agents=10, scores={name: value + 0.1 * seed for name in names})
            if row != 'kinematics':
                part['other'] = {name: 3.2 for name in names}
            (tmp_path / f'{row}-{seed}.json').write_text(json.dumps(part))
    doc = tmp_path / 'doc.md'
    doc.write_text('before\n' + '\n'.join(MARKERS) + '\nafter\n')
    write_report(tmp_path, doc)
    text = doc.read_text()
    assert '| + memory with map, around | 2 | - | 2.550 ± 0.050 |' in text and '| + memory with map, centre | not run |' in text
    assert 'memory around the agent against kinematics alone: lower by +0.500, +0.500 m' in text
    assert 'memory of another scene against kinematics: lower by -0.200, -0.100 m' in text


def test_tasks_start_from_stage_one_and_are_tested_by_their_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run_tool(tool: str, config: str, *more: str) -> None:
        folder = Path(more[more.index('--work-dir') + 1])
        calls.append((Path(tool).stem, Path(config).stem, [one for one in more if one.startswith('load_from')]))
        if tool.endswith('train.py'):
            (folder / 'last_checkpoint').write_text(f'{folder.name}.pth')
        else:
            (folder / '20260101').mkdir(parents=True)
            boxes = 'boxes' in config or 'perception' in config
            scores = {'NuScenes metric/NDS': 0.25} if boxes else {'forecast/minADE_5': 1.5, 'detected/recall': 0.8, 'time': 1.0}
            (folder / '20260101' / '20260101.json').write_text(json.dumps(scores))

    monkeypatch.setattr(shared, 'run_tool', run_tool)
    for _ in range(2):  # what is finished is not done again
        shared.run_shared(tmp_path / 'world', tmp_path / 'out', tmp_path / 'results')
    start = ['load_from=shared_start.pth']
    assert calls == [
        ('train', 'shared-perception', []), ('test', 'shared-perception', []),
        ('train', 'shared-boxes-alone', start), ('test', 'shared-perception', []),
        ('train', 'shared-futures', start), ('test', 'shared-futures', []),
        ('train', 'shared-all', start), ('test', 'shared-all', []), ('test', 'shared-boxes', [])]
    lines = shared.shared_table(tmp_path / 'results').splitlines()
    assert lines[-1] == '| both on one network | 0.250 | - | 1.500 | - | - | - | 0.800 |'
    assert lines[2] == '| stage 1: boxes | 0.250 | - | - | - | - | - | - |'
    assert f'{tmp_path}/world/' in (tmp_path / 'out' / 'shared_both' / 'shared-all.py').read_text()
