"""Distances of poses, medoid and k-centre: answers by hand."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import FrameDistance, angles_and_distances, k_centre


def poses(x=(), yaw_deg=None):
    made = np.tile(np.eye(4), (len(x), 1, 1))
    made[:, 0, 3] = x
    yaw = np.radians(np.zeros(len(x)) if yaw_deg is None else yaw_deg)
    made[:, 0, 0], made[:, 1, 1], made[:, 1, 0], made[:, 0, 1] = np.cos(yaw), np.cos(yaw), np.sin(yaw), -np.sin(yaw)
    return made


def test_angles_and_distances_small_and_large():
    angle, distance = angles_and_distances(poses([0.0]), poses([3.0, 0.0, 1e-9, -4.0], [90.0, 180.0, 1e-7, 0.0]))
    assert np.degrees(angle[0]) == pytest.approx([90, 180, 1e-7, 0], rel=1e-6, abs=1e-12)
    assert distance[0] == pytest.approx([3, 0, 1e-9, 4])
    assert FrameDistance(poses([0.0, 3.0], [0.0, 90.0]), 2, theta0_deg=45, scale_m=2).rows([0])[0] == pytest.approx([0, 3.5])


def test_from_the_medoid_to_the_farthest_and_on():
    distance = FrameDistance(poses([0, 1, 2, 3, 10.0]), 5)
    assert distance.medoid() == 2  # sums 16, 13, 12, 13, 34
    assert k_centre(distance, 5) == [2, 4, 0, 1, 3]  # 0 is 2 away; then 1 and 3 are 1 away each: the lower one
    assert k_centre(distance, 2, chosen=[0]) == [4, 3]
    assert k_centre(distance, 3, chosen=[4], among=np.array([1, 2])) == [1, 2]  # then they run out


def test_without_poses_by_frame_number():
    assert k_centre(FrameDistance(None, 11), 3) == [5, 0, 10]


def test_a_long_video_needs_no_square_table(monkeypatch):
    long = FrameDistance(poses(np.linspace(0, 9, 40)), 40)
    expected = long.medoid(), k_centre(long, 7)
    monkeypatch.setattr('projects.geometry.frame_sampling.pose_distance.CHUNK', 7)
    assert (long.medoid(), k_centre(long, 7)) == expected


def test_scales_must_be_positive():
    with pytest.raises(ValueError, match='theta0_deg and scale_m must be positive, got 0 and 1.0'):
        FrameDistance(None, 3, theta0_deg=0)
