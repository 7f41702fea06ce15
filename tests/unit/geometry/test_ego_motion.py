"""ego_motion against answers made by hand: 3-4-5 steps, turns, and the axes of augmented frames."""

import math

import pytest
import torch

from projects.geometry import ego_motion


def pose(yaw=0.0, x=0.0, y=0.0, z=0.0):
    matrix = torch.eye(4, dtype=torch.float64)
    cos, sin = math.cos(yaw), math.sin(yaw)
    matrix[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    matrix[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return matrix


EYE = torch.eye(4, dtype=torch.float64)


def measured(prev, cur, bev_from_cur=EYE, gap=0.5):
    return ego_motion(prev[None], cur[None], bev_from_cur[None], torch.tensor([gap], dtype=torch.float64))[0].tolist()


def test_three_four_five_step_without_a_turn():
    assert measured(pose(0, 100, 200), pose(0, 103, 204)) == pytest.approx([6.0, 8.0, 0.0], abs=1e-9)


def test_velocity_is_in_the_axes_of_the_current_frame():
    """The car looks along global +y and drives that way: forward (+x) in its own axes."""
    assert measured(pose(math.pi / 2), pose(math.pi / 2, 0, 5)) == pytest.approx([10.0, 0.0, 0.0], abs=1e-9)
    # It has turned left by a quarter while it went 5 m along global x: in its axes now, it came from the left.
    assert measured(pose(0), pose(math.pi / 2, 5, 0)) == pytest.approx([0.0, -10.0, math.pi], abs=1e-9)


@pytest.mark.parametrize('turn', [0.3, -0.3, 3.0])
def test_yaw_rate_is_counter_clockwise_and_needs_no_translation(turn):
    assert measured(pose(2.9), pose(2.9 + turn), gap=0.1) == pytest.approx([0, 0, turn / 0.1], abs=1e-9)


def test_a_mirrored_bev_mirrors_velocity_and_turn():
    mirror_y = torch.diag(torch.tensor([1.0, -1, 1, 1], dtype=torch.float64))
    plain = measured(pose(0.2, 1, 2), pose(0.5, 4, 6))
    assert measured(pose(0.2, 1, 2), pose(0.5, 4, 6), mirror_y) == pytest.approx([plain[0], -plain[1], -plain[2]], abs=1e-9)
    both = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))  # a half turn is no mirror
    assert measured(pose(0.2, 1, 2), pose(0.5, 4, 6), both) == pytest.approx([-plain[0], -plain[1], plain[2]], abs=1e-9)


def test_a_turned_scaled_and_shifted_bev_turns_and_scales_the_velocity_only():
    augmented = pose(math.pi / 2, 7, 8)
    augmented[:3, :3] *= 1.1
    vx, vy, rate = measured(pose(0.2, 1, 2), pose(0.5, 4, 6))
    assert measured(pose(0.2, 1, 2), pose(0.5, 4, 6), augmented) == pytest.approx([-1.1 * vy, 1.1 * vx, rate], abs=1e-9)


def test_samples_do_not_mix():
    prev, cur = torch.stack([pose(0), pose(1.0, 5, 5)]), torch.stack([pose(0, 3, 4), pose(1.2, 5, 5)])
    both = ego_motion(prev, cur, EYE.expand(2, 4, 4), torch.tensor([1.0, 0.1], dtype=torch.float64))
    assert both[0].tolist() == pytest.approx([3, 4, 0], abs=1e-9)
    assert both[1].tolist() == pytest.approx([0, 0, 2.0], abs=1e-9)
