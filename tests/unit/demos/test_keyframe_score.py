"""Unit: the keyframe's figures by hand: matching, yaw, marks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from projects.demos.keyframe.score import (
    KeyframeScore,
    box_points_error,
    match_greedily,
    score_keyframe,
    yaw_errors_deg,
)

NAMES = ['car', 'barrier', 'traffic_cone']
RANGE_M = [-20, -20, -5, 20, 20, 3]


def boxes(*rows: tuple[float, float, float]) -> np.ndarray:
    """x, y, yaw -> (N, 7)."""
    return np.array([[x, y, -1.0, 4.0, 2.0, 1.5, yaw] for x, y, yaw in rows], dtype=np.float64).reshape(-1, 7)


def test_points_error_does_not_cancel() -> None:
    assert box_points_error(np.array([110, 90]), np.array([100, 100])) == pytest.approx(0.1)
    assert box_points_error(np.array([100, 100]), np.array([100, 100])) == 0
    with pytest.raises(ValueError, match='num_lidar_pts'):
        box_points_error(np.array([3]), np.array([0]))


def test_yaw_error_wraps_and_knows_symmetry() -> None:
    turned = np.deg2rad([179.0, 10.0, 175.0, 90.0])
    found = np.deg2rad([-179.0, -170.0, -1.0, 0.0])
    # a car across 180 degrees, a car the wrong way round, a barrier the wrong way round, a cone
    errors = yaw_errors_deg(turned, found, ['car', 'car', 'barrier', 'traffic_cone'])
    np.testing.assert_allclose(errors, [2.0, 180.0, 4.0], atol=1e-9)


def test_matching_takes_each_truth_once_by_score() -> None:
    truth, labels = boxes((0, 0, 0), (1.5, 0, 0), (10, 0, 0)), np.array([0, 0, 1])
    found = boxes((0.2, 0, 0), (0.1, 0, 0), (10, 0, 0), (10, 2.1, 0))
    pairs = match_greedily(truth, labels, found, np.array([0, 0, 0, 1]), np.array([0.5, 0.9, 0.8, 0.7]))
    # the best takes the nearest, the next best what is left within 2 m; wrong class and 2.1 m are no match
    assert pairs == [(0, 1), (1, 0)]
    assert match_greedily(truth[:0], labels[:0], found, np.zeros(4), np.ones(4)) == []


def test_score_counts_what_it_says() -> None:
    truth = boxes((0, 0, 0), (6, 0, 0), (12, 0, 0), (30, 0, 0), (0, 9, 0), (0, -9, 0))
    labels, points = np.array([0, 0, 0, 0, 0, -1]), np.array([5, 5, 4, 50, 0, 50])
    found = boxes((0, 1, 0.1), (12, 1, 0.3), (0, 9, 0), (6, 0, 0), (31, 0, 0))
    score = score_keyframe(truth, labels, points, found, np.zeros(5, dtype=int), np.array([0.9, 0.9, 0.9, 0.29, 0.9]),
                           0.02, NAMES, RANGE_M)
    assert score.objects == 2  # in range, known class, at least 5 points
    assert score.recall_2m == 0.5  # the second scores too little
    assert score.precision == pytest.approx(2 / 3)  # a box without points is no truth; outside the range does not count
    assert score.yaw_error_deg == pytest.approx(math.degrees(0.2))
    assert [text.split()[0] for text in score.failures()] == ['recall_2m', 'precision', 'yaw_error_deg']


def test_no_predictions_miss_every_mark() -> None:
    score = score_keyframe(boxes((0, 0, 0)), np.zeros(1, dtype=int), np.array([9]), boxes(), np.zeros(0, dtype=int),
                           np.zeros(0), 0.0, NAMES, RANGE_M)
    assert score.recall_2m == 0 and score.precision == 0 and math.isnan(score.yaw_error_deg)
    assert len(score.failures()) == 3


def test_line_is_as_promised() -> None:
    score = KeyframeScore(1.0, 0.958, 0.349, 0.0287, 20)
    assert score.line() == 'keyframe: recall_2m=1.00 precision=0.96 yaw_error_deg=0.3 box_points_error=0.03 objects=20'
    assert score.failures() == []
    assert KeyframeScore(1.0, 1.0, 0.3, 0.0401, 20).failures() and not KeyframeScore(0.9, 0.7, 9.9, 0.04, 1).failures()
