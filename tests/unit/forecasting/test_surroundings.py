"""Unit: what is pooled around agents: where the points lie, a lit cell ahead, turned and mirrored scenes, batches, nobody."""

from __future__ import annotations

import math

import pytest
import torch
from forecast_agents import permuted, straight_agents
from mmdet3d.registry import MODELS

from projects.geometry import Surroundings
from projects.memfusion import memory  # noqa: F401 - its networks are built by the registry
from projects.memfusion.forecasting import AgentPooling, bev_masks
from projects.memfusion.structures import Agents
from projects.studies.forecasting.world import turned

RANGE = (-32.0, -32.0, -5.0, 32.0, 32.0, 3.0)
POINTS = Surroundings(ahead_m=(-4.0, 6.0, 14.0), right_m=(-4.0, 0.0, 4.0))


def pooled(rasters: torch.Tensor, agents: Agents) -> torch.Tensor:
    """(B, A, T, 3, C): the rasters (B, T, C, 64, 64) at POINTS of each agent, ahead by right."""
    where = bev_masks(agents, RANGE, (64, 64), POINTS)
    assert where.around_px is not None
    maps = rasters[:, :, None].expand(-1, -1, agents.valid.shape[1], -1, -1, -1)
    features, _ = AgentPooling('around', rasters.shape[2], POINTS)(
        maps, where.masks, where.centers_px / 32 - 1, where.there, where.around_px / 32 - 1)
    own, around = features.split([rasters.shape[2], 9 * rasters.shape[2]], dim=-1)
    alone, _ = AgentPooling('masked', rasters.shape[2])(maps, where.masks, where.centers_px / 32 - 1, where.there)
    assert torch.equal(own, alone)
    return around.unflatten(-1, (3, 3, rasters.shape[2]))


def test_where_the_points_lie() -> None:
    box = torch.zeros(7, dtype=torch.float64)
    box[:2], box[6] = torch.tensor([10.0, 5.0]), math.pi / 2  # heading along +y, its right is +x
    places = Surroundings((-4.0, 8.0), (-1.0, 0.0, 2.0)).places_m(box)
    expected = [[9, 1], [10, 1], [12, 1], [9, 13], [10, 13], [12, 13]]
    torch.testing.assert_close(places, torch.tensor(expected, dtype=torch.float64))
    box[6] = math.atan2(3, -4)  # heading (-4, 3) / 5, its right is (3, 4) / 5
    there = Surroundings((10.0,), (5.0,)).places_m(box)
    torch.testing.assert_close(there, torch.tensor([[10 - 8 + 3, 5 + 6 + 4]], dtype=torch.float64))


def test_a_lit_cell_ahead_of_a_turned_agent_is_seen_there_alone() -> None:
    agents = straight_agents([0.0], frames=2)
    agents.boxes[0, 0, :, :2] = torch.tensor([0.5, -10.5])  # the middle of a cell
    agents.boxes[0, 0, 0, 6], agents.boxes[0, 0, 1, 6] = math.pi / 2, math.pi  # first it heads along +y, then along -x
    rasters = torch.zeros(1, 2, 1, 64, 64)
    rasters[0, 0, 0, 21 + 14, 32 + 4] = 1.0  # 14 m ahead, 4 m to the right of one that heads along +y
    rasters[0, 1, 0, 21 + 4, 32 - 6] = 0.5  # 6 m ahead, 4 m to the right of one that heads along -x
    expected = torch.zeros(2, 3, 3)
    expected[0, 2, 2], expected[1, 1, 2] = 1.0, 0.5
    torch.testing.assert_close(pooled(rasters, agents)[0, 0, ..., 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('quarters, mirrored', [(1, False), (2, False), (3, True), (0, True)])
def test_a_turned_scene_looks_the_same_and_a_mirrored_one_has_left_and_right_swapped(quarters: int, mirrored: bool) -> None:
    agents = straight_agents([3.0, 6.0, 9.0], seed=1)
    rasters = torch.rand(1, 3, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs = turned(dict(rasters=rasters, agents=agents), quarters, mirrored)
    before, after = pooled(rasters, agents), pooled(inputs['rasters'], inputs['agents'])
    torch.testing.assert_close(after, before.flip(-2) if mirrored else before, atol=1e-4, rtol=0)
    assert (before[..., 0, :] - before[..., 2, :]).abs().max() > 0.1


def test_by_hand_one_point_after_the_other() -> None:
    agents, rasters = straight_agents([3.0, 6.0], seed=4, appears=[0, 2]), torch.rand(1, 3, 2, 64, 64)
    agents.boxes[0, 1, :, :2] += 30  # some of its points are beyond the map
    found = pooled(rasters, agents)
    assert not found[0, 1, :2].any()  # not there yet
    outside = 0
    for agent, t in agents.history_valid[0].nonzero().tolist():
        x, y, yaw = (float(agents.boxes[0, agent, t, at]) for at in (0, 1, 6))
        for i, ahead in enumerate(POINTS.ahead_m):
            for j, right in enumerate(POINTS.right_m):
                column = x + ahead * math.cos(yaw) + right * math.sin(yaw) + 31.5
                row = y + ahead * math.sin(yaw) - right * math.cos(yaw) + 31.5
                expected = torch.zeros(2)
                for cell_row in (math.floor(row), math.floor(row) + 1):
                    for cell_column in (math.floor(column), math.floor(column) + 1):
                        if 0 <= cell_row < 64 and 0 <= cell_column < 64:
                            share = (1 - abs(row - cell_row)) * (1 - abs(column - cell_column))
                            expected += share * rasters[0, t, :, cell_row, cell_column]
                outside += int(not expected.any())
                torch.testing.assert_close(found[0, agent, t, i, j], expected, atol=1e-4, rtol=0)
    assert outside


def test_each_agent_has_its_own_alone_and_in_a_batch() -> None:
    scenes = [straight_agents([3.0, 6.0, 9.0], seed=1), straight_agents([4.0], seed=2), straight_agents([])]
    rasters = torch.rand(3, 3, 2, 64, 64)
    together = pooled(rasters, Agents.cat(scenes))
    for row, scene in enumerate(scenes):
        count = len(scene.tokens[0])
        torch.testing.assert_close(together[row, :count], pooled(rasters[row:row + 1], scene)[0], atol=1e-6, rtol=0)
        assert not together[row, count:].any()
    shuffled = pooled(rasters[:1], permuted(scenes[0], [2, 0, 1]))
    torch.testing.assert_close(shuffled[0], together[0, [2, 0, 1]], atol=1e-6, rtol=0)


def features_of(**settings: object) -> torch.nn.Module:
    network = dict(type='BEVMemoryNetwork', in_channels=3, key_dim=4, value_dim=6, hidden_dim=5, feature_dim=8)
    return MODELS.build(dict(type='MemoryAgentFeatures', stream=dict(type='AgentStream', network=network),
                             point_cloud_range=RANGE, **settings))


def test_settings_are_checked_and_the_width_says_what_is_given() -> None:
    assert features_of(pooling='around', around=dict(ahead_m=[5, 10], right_m=[0])).dim == 5 * 3
    assert features_of(pooling='around').dim == 5 * (1 + Surroundings().num_points) and features_of().dim == 5
    for wrong in (5, None, 'ab', [True, 3.0]):
        with pytest.raises(ValueError, match='around.ahead_m must be a list of numbers'):
            Surroundings.of('around', dict(ahead_m=wrong))
    with pytest.raises(ValueError, match=r"around.right_m must be rising numbers, metres, one at least, got \[4, -4\]"):
        features_of(pooling='around', around=dict(right_m=[4, -4]))
    with pytest.raises(ValueError, match="around has no 'ahead': it takes ahead_m and right_m"):
        features_of(pooling='around', around=dict(ahead=[4]))
    with pytest.raises(ValueError, match="is of pooling='around', got pooling='masked'"):
        features_of(around=dict(ahead_m=[4]))
    with pytest.raises(ValueError, match="pooling='around' looks at places on the ground, which source='camera' does not"):
        features_of(pooling='around', source='camera')
    maps, where = torch.zeros(1, 3, 1, 2, 64, 64), bev_masks(straight_agents([1.0]), RANGE, (64, 64))
    with pytest.raises(ValueError, match='needs the points around each agent'):
        AgentPooling('around', 2)(maps, where.masks, where.centers_px / 32 - 1, where.there)
