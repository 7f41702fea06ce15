"""Unit: ForecastHead: which boxes are which agents, what it pools, futures of true and of detected agents, no agents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forecast_agents import straight_agents
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion import forecasting  # noqa: F401 - its head is built by the registry
from projects.memfusion.heads import ForecastHead
from projects.memfusion.heads.forecast_head import pool_boxes
from projects.memfusion.structures import Agents
from projects.memfusion.structures.detected_agents import detected_agents, match_detections

RANGE = (-32.0, -32.0, -5.0, 32.0, 32.0, 3.0)


def found_boxes(agents: Agents, shift_m: float = 0.5) -> torch.Tensor:
    """(n, 9): the agents' boxes of now, shifted along x, with their velocity."""
    now, speed = agents.boxes[0, :, -1], agents.kinematics[0, :, -1, 2]
    velocity = speed[:, None] * torch.stack([now[:, 6].cos(), now[:, 6].sin()], dim=-1)
    return torch.cat([now + torch.eye(7)[0] * shift_m, velocity], dim=-1).float()


def bev_pose(agents: Agents) -> torch.Tensor:
    """global_from_bev of straight_agents."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:2, 3] = torch.tensor([400.0, 1100.0])
    return pose


def frame(agents: Agents | None, boxes: torch.Tensor | None = None, scores: torch.Tensor | None = None) -> Det3DDataSample:
    pose = np.eye(4)
    pose[:2, 3] = 400.0, 1100.0
    sample = Det3DDataSample(metainfo=dict(
        sample_token='s', scene_token='x', frame_index=0, is_scene_start=True, is_scene_end=False, timestamp_s=0.0,
        global_from_lidar=pose, bev_aug=np.eye(4), frame_valid=True, is_keyframe=True))
    if agents is not None:
        sample.set_field(agents, 'agents')
    if boxes is not None:
        sample.pred_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), scores_3d=scores)
    return sample


def head_of(**settings: object) -> ForecastHead:
    torch.manual_seed(0)
    return ForecastHead(6, RANGE, feature_dim=8, head=dict(hidden_dim=16, num_modes=5), **settings)


def test_boxes_are_given_to_agents_by_score() -> None:
    centers = torch.tensor([[0.0, 0.0], [3.0, 0.0], [20.0, 0.0]])
    boxes = torch.tensor([[1.4, 0.0], [1.6, 0.0], [3.1, 0.0], [0.0, 2.1]])
    agents, rows = match_detections(centers, boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), within_m=2.0)
    assert agents.tolist() == [0, 1] and rows.tolist() == [0, 1]  # the third would have been nearer, but came later
    nobody = match_detections(centers[:0], boxes, torch.ones(4), 2.0)
    assert [len(part) for part in nobody] == [0, 0]
    assert [len(part) for part in match_detections(centers, boxes[:0], torch.ones(0), 2.0)] == [0, 0]


@pytest.mark.parametrize('turned', [False, True])
def test_a_detection_is_an_agent_without_a_past(turned: bool) -> None:
    agents = straight_agents([5.0, 9.0, 3.0], seed=5)
    boxes = found_boxes(agents)[[2, 0]]  # the second agent is not found
    if turned:
        boxes[:, 6] += torch.pi
    found = detected_agents(agents, boxes, torch.tensor([0.5, 0.9]), bev_pose(agents), within_m=2.0)
    assert found.tokens == (('i0_s', 'i2_s'),) and found.history_valid[0].tolist() == [[False, False, True]] * 2
    assert torch.allclose(found.kinematics[0, :, -1], torch.tensor([[0, s / 2, s, 0, 0, 0, 1, 1] for s in (5.0, 3.0)]).double(),
                          atol=1e-5)
    # where its box is, heading as it moves
    expected = agents.global_from_agent[0, [0, 2]].clone()
    expected[:, 0, 3] += 0.5
    assert torch.allclose(found.global_from_agent[0, :, :2, [0, 1, 3]], expected[:, :2, [0, 1, 3]], atol=1e-5)


def test_what_is_pooled() -> None:
    maps, boxes = torch.randn(1, 3, 64, 64), torch.zeros(1, 3, 7)
    boxes[..., 3:6] = 2.0
    boxes[0, 1, :2], boxes[0, 2, 0] = torch.tensor([10.0, -4.0]), 100.0
    pooled, flags = pool_boxes(maps, boxes, torch.tensor([[True, True, True]]), RANGE)
    assert flags.tolist() == [[1, 1, 0]] and not pooled[0, 2].any()
    assert torch.allclose(pooled[0, 1], maps[0, :, 27:29, 41:43].mean(dim=(-2, -1)), atol=1e-6)


def test_what_lies_ahead_is_pooled_too() -> None:
    """Of an agent that heads along -y: 4 m ahead, 2 m to the right; and of one so near the edge that this is beyond the map."""
    agents, maps = straight_agents([5.0, 9.0]), torch.randn(1, 8, 64, 64)
    agents.boxes[0, 0, -1, [0, 1, 6]] = torch.tensor([2.5, 7.5, -torch.pi / 2]).double()
    agents.boxes[0, 1, -1, [0, 1, 6]] = torch.tensor([0.0, 31.5, torch.pi / 2]).double()
    head = head_of(around=dict(ahead_m=[4.0], right_m=[2.0]))
    head.layers, seen = torch.nn.Identity(), []
    head.head.register_forward_hook(lambda _, given, __: seen.append(given[1][:, :, -1]))
    with torch.no_grad():
        head(maps, agents)
    pooled, _ = pool_boxes(maps, agents.boxes[:, :, -1], agents.valid, RANGE)
    assert torch.equal(seen[0][..., :8], pooled) and not seen[0][0, 1, 8:].any()
    assert torch.allclose(seen[0][0, 0, 8:], maps[0, :, 35, 32], atol=1e-5)  # (0.5, 3.5) is the middle of that cell
    assert head_of(around={}).head.feature_dim == 8 * 31 and head_of().head.feature_dim == 8
    with pytest.raises(ValueError, match="around has no 'left_m'"):
        head_of(around=dict(left_m=[1.0]))


def test_a_box_that_stands_keeps_its_heading_and_a_velocity_that_is_not_known_is_none() -> None:
    agents = straight_agents([0.0, 9.0], seed=5)
    boxes = found_boxes(agents)
    boxes[0, 7:9] = -0.3 * torch.stack([boxes[0, 6].cos(), boxes[0, 6].sin()])  # noise
    boxes[1, 7:9] = torch.nan
    found = detected_agents(agents, boxes, torch.ones(2), bev_pose(agents), within_m=2.0)
    assert torch.allclose(found.boxes[0, :, -1, 6], agents.boxes[0, :, -1, 6], atol=1e-6)
    assert torch.allclose(found.kinematics[0, 0, -1, :3], torch.tensor([0.0, -0.15, 0.3]).double(), atol=1e-6)
    assert not found.kinematics[0, 1, -1, :6].any() and found.kinematics[0, 1, -1, 6:].all()


def test_who_is_shown_without_a_past_in_training_is_known_as_a_detection_is() -> None:
    """What earlier labels tell, and a detector does not: acceleration and yaw rate, too."""
    agents = straight_agents([5.0, 9.0], seed=5)
    agents.kinematics[0, :, -1, 3:5] = 1.0
    shown = head_of(unknown_past=1.0)._without_past(agents)
    found = detected_agents(agents, found_boxes(agents, 0.0), torch.ones(2), bev_pose(agents), within_m=2.0)
    assert torch.allclose(shown.kinematics, found.kinematics, atol=1e-5)
    assert torch.equal(shown.history_valid, found.history_valid)
    whole = head_of(unknown_past=0.0)._without_past(agents)
    assert torch.equal(whole.kinematics, agents.kinematics) and torch.equal(whole.history_valid, agents.history_valid)


@torch.no_grad()
def test_futures_of_true_and_of_detected_agents() -> None:
    head, agents = head_of().eval(), straight_agents([5.0, 9.0, 3.0], seed=5)
    samples = [frame(agents, found_boxes(agents)[:2], torch.tensor([0.9, 0.8])), frame(None), frame(agents)]
    head.predict(torch.randn(3, 6, 64, 64), samples, None)
    assert samples[0].pred_futures.tokens == ('i0_s', 'i1_s', 'i2_s')
    found = samples[0].get('pred_detected_futures')
    assert found.tokens == ('i0_s', 'i1_s') and found.global_xy.shape == (2, 5, 12, 2)
    # untrained, both are constant velocity: half a metre apart, as the boxes are
    apart = found.global_xy - samples[0].pred_futures.global_xy[:2]
    assert torch.allclose(apart, torch.tensor([0.5, 0.0], dtype=torch.float64).expand_as(apart), atol=1e-4)
    assert samples[1].get('pred_futures') is None and samples[2].get('pred_detected_futures') is None


def test_losses_reach_everything_and_steps_without_agents_count_nothing() -> None:
    head = head_of(unknown_past=1.0)
    torch.nn.init.normal_(head.head.decode[2].weight)
    agents = straight_agents([5.0, 9.0], accelerations=[1.0, -1.0])
    bev = torch.randn(2, 6, 64, 64, requires_grad=True)
    sum(head.loss(bev, [frame(None), frame(agents)], None).values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert not bev.grad[0].any() and bev.grad[1].any()
    for samples in ([frame(None)], [frame(straight_agents([]))], []):
        head.zero_grad()
        losses = head.loss(torch.randn(len(samples), 6, 64, 64), samples, None)
        total = sum(losses.values())
        total.backward()
        assert float(total.detach()) == 0 and all(parameter.grad is not None for parameter in head.parameters())
    with pytest.raises(ValueError, match='unknown_past must lie in 0..1'):
        head_of(unknown_past=2)
