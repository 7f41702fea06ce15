"""Matching, score threshold, recall by stratum and flicker, all by hand; the seen window to the microsecond."""

import math

import numpy as np
import pytest

from projects.memfusion.metrics.box_tables import PredictionTable, TruthTable
from projects.memfusion.metrics.build_tables import seen_before
from projects.memfusion.metrics.matching import candidate_pairs, match, score_order
from projects.memfusion.metrics.memory_recall import detected_truth, flicker, recalls, score_threshold, strata


def truth_of(frame, x, label=0, points=9, seen=False, track=None, radar=0):
    n = len(frame)
    column = [np.broadcast_to(np.array(value), n).astype(np.int64) for value in (label, points, radar)]
    centre = np.stack([np.array(x, dtype=float), np.zeros(n), np.zeros(n)], axis=1)
    track = np.arange(n) if track is None else np.array(track)
    return TruthTable(frame=np.array(frame, dtype=np.int64), frame_index=np.array(frame, dtype=np.int64), track=track,
                      label=column[0], centre_m=centre, num_lidar_pts=column[1], num_radar_pts=column[2],
                      seen=np.broadcast_to(np.array(seen, dtype=bool), n))


def predictions_of(frame, x, score, label=0, z=7.0):
    n = len(frame)
    centre = np.stack([np.array(x, dtype=float), np.zeros(n), np.full(n, z)], axis=1)
    return PredictionTable(frame=np.array(frame, dtype=np.int64), label=np.broadcast_to(np.array(label), n).astype(np.int64),
                           centre_m=centre, score=np.array(score, dtype=float))


def matched(truth, predictions, match_m=2.0, counts=None, ignored=None):
    counts = np.ones(len(truth.frame), bool) if counts is None else np.array(counts)
    ignored = np.zeros(len(truth.frame), bool) if ignored is None else np.array(ignored)
    return match(candidate_pairs(truth, predictions, 4.0), match_m, counts, ignored).tolist()


def test_better_score_chooses_first_and_takes_the_nearest():
    truth = truth_of([0, 0], [0.0, 1.5])
    # The better prediction takes truth 1 (0.6 m, not 0.9 m); the other is left with truth 0, 1.3 m away.
    assert matched(truth, predictions_of([0, 0], [1.3, 0.9], [0.5, 0.9])) == [0, 1]
    # With equal scores the later row chooses first, as in the devkit: it takes truth 0, and truth 1 is 2.2 m away.
    assert matched(truth, predictions_of([0, 0], [-0.7, 0.1], [0.5, 0.5])) == [-1, 0]
    assert matched(truth, predictions_of([0, 0], [-0.7, 0.1], [0.6, 0.5])) == [0, 1]
    assert score_order(np.array([0.5, 0.9, 0.5])).tolist() == [1, 2, 0]


def test_each_truth_once_and_only_of_the_same_class_and_frame():
    truth = truth_of([0, 0, 2], [0.0, 10.0, 0.0], label=[0, 1, 0])
    predictions = predictions_of([0, 0, 0, 1, 2], [0.1, 0.2, 10.0, 0.0, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5])
    assert matched(truth, predictions) == [0, -1, -1, -1, 2]


def test_the_limit_is_exclusive_and_on_the_ground():
    truth = truth_of([0], [0.0])
    assert matched(truth, predictions_of([0], [2.0], [0.9])) == [-1]
    assert matched(truth, predictions_of([0], [1.999], [0.9], z=100.0)) == [0]
    far = TruthTable(**{**vars(truth), 'centre_m': np.array([[3.0, 4.0, 0.0]])})
    pairs = candidate_pairs(far, predictions_of([0], [0.0], [0.9]), 6.0)
    assert pairs.distance_m.tolist() == [5.0]


def test_truth_that_counts_is_given_away_before_ignored_truth():
    truth = truth_of([0, 0], [0.0, 1.0])
    counts, ignored = [True, False], [False, True]
    # The first is nearer to the ignored truth but finds the one that counts; the second finds the ignored one, once.
    predictions = predictions_of([0, 0, 0], [0.9, 1.0, 1.0], [0.9, 0.8, 0.7])
    assert matched(truth, predictions, counts=counts, ignored=ignored) == [0, 1, -1]
    assert matched(truth, predictions, counts=counts) == [0, -1, -1]  # neither: as if it were not there


def test_nothing_to_match():
    nothing = predictions_of([], [], [])
    assert matched(truth_of([0], [0.0]), nothing) == []
    assert matched(truth_of([], []), predictions_of([0], [0.0], [0.5])) == [-1]


def test_matching_is_the_slow_rule():
    g = np.random.default_rng(3)
    frames = np.sort(g.integers(0, 6, 60))
    truth = truth_of(frames, g.uniform(0, 12, 60), label=g.integers(0, 2, 60))
    counts = g.random(60) < 0.6
    ignored = ~counts & (g.random(60) < 0.7)
    at = np.sort(g.integers(0, 6, 200))
    predictions = predictions_of(at, g.uniform(0, 12, 200), np.round(g.random(200), 1), label=g.integers(0, 2, 200))
    taken, expected = set(), [-1] * 200
    for row in sorted(range(200), key=lambda row: (predictions.score[row], row), reverse=True):
        for group in (counts, ignored):
            free = [(abs(truth.centre_m[t, 0] - predictions.centre_m[row, 0]), t) for t in range(60)
                    if group[t] and t not in taken and truth.label[t] == predictions.label[row] and frames[t] == at[row]]
            if free and min(free)[0] < 1.0:
                expected[row] = min(free)[1]
                taken.add(expected[row])
                break
    assert matched(truth, predictions, 1.0, counts, ignored) == expected
    assert 20 < sum(row >= 0 for row in expected) < 60


@pytest.mark.parametrize(('rate', 'expected'), [
    (0.0, 0.9),       # nothing wrong may remain: only the best, which is right
    (0.5, 0.7),       # one of two frames: the false one of 0.8 remains, those of 0.6 go
    (1.0, 0.7),       # two are allowed, but at 0.6 there would be three: equal scores go together
    (1.5, 0.6),       # three
    (9.0, 0.1),       # all remain
])
def test_threshold_by_hand(rate, expected):
    score = np.array([0.6, 0.9, 0.6, 0.8, 0.7, 0.3, 0.1, 0.6])
    false = np.array([1, 0, 1, 1, 0, 1, 0, 0], dtype=bool)
    assert score_threshold(score, false, 2, rate) == expected
    kept = score >= expected
    assert (kept & false).sum() <= 2 * rate


def test_threshold_at_the_edges():
    assert score_threshold(np.array([0.9, 0.9, 0.5]), np.array([True, False, False]), 3, 0.0) == math.inf
    assert score_threshold(np.zeros(0), np.zeros(0, bool), 3, 1.0) == math.inf
    score = np.linspace(1, 0, 30)
    assert score_threshold(score, np.ones(30, bool), 100, 0.29) == score[28]  # 0.29 * 100 is 28.999...


def test_only_predictions_at_or_above_the_threshold_detect():
    found, score = np.array([2, -1, 0, 1]), np.array([0.5, 0.9, 0.3, 0.29])
    assert detected_truth(found, score, 0.3, 4).tolist() == [True, False, True, False]
    assert not detected_truth(found, score, math.inf, 4).any()


def test_recall_of_each_stratum_by_hand():
    #                          0      1     2      3     4      5     6      7     8     9
    points = np.array([0,     0,    1,     5,    5,     6,    20,    21,   99,   0])
    seen = np.array([False, True, False, True, True, False, True, False, True, True])
    hit = np.array([True,  True, False, True, False, True, False, True, True, False])
    truth = truth_of([0] * 10, np.arange(10), points=points, seen=seen, radar=3)
    values = recalls(truth, hit)
    assert values == {
        'num_all': 9, 'recall_all': 5 / 9,  # without row 0, although it was found and has radar points
        'num_seen': 6, 'recall_seen': 3 / 6, 'num_not_seen': 3, 'recall_not_seen': 2 / 3,
        'num_0pts_seen': 2, 'recall_0pts_seen': 1 / 2,
        'num_1-5pts': 3, 'recall_1-5pts': 1 / 3, 'num_1-5pts_seen': 2, 'recall_1-5pts_seen': 1 / 2,
        'num_1-5pts_not_seen': 1, 'recall_1-5pts_not_seen': 0.0,
        'num_6-20pts': 2, 'recall_6-20pts': 1 / 2, 'num_6-20pts_seen': 1, 'recall_6-20pts_seen': 0.0,
        'num_6-20pts_not_seen': 1, 'recall_6-20pts_not_seen': 1.0,
        'num_over20pts': 2, 'recall_over20pts': 1.0, 'num_over20pts_seen': 1, 'recall_over20pts_seen': 1.0,
        'num_over20pts_not_seen': 1, 'recall_over20pts_not_seen': 1.0}
    empty = recalls(truth_of([], []), np.zeros(0, bool))
    assert set(empty.values()) == {0} and all(name.startswith('num_') for name in empty)
    assert set(strata(truth)) == {name.removeprefix('num_') for name in empty}


def test_flicker_by_hand():
    # frame    0  1  2  3  4    of four tracks, x found, o not, - not there
    tracks = ('x  o  x  x  x',   # frames 1 and 3 are considered, 1 is lost; in frame 2 its frame 1 was not found
              'x  x  x  -  -',   # frame 1 is considered
              'x  o  -  x  -',
              'x  o  x  -  -')   # never holds a point
    cells = [(frame, track, what) for frame in range(5) for track in (2, 0, 3, 1)
             if (what := tracks[track].split()[frame]) != '-']  # sorted by frame, as the tables are
    frame, track = [cell[0] for cell in cells], np.array([cell[1] for cell in cells])
    hit = np.array([cell[2] == 'x' for cell in cells])
    points = np.where(track == 3, 0, 9)
    truth = truth_of(frame, np.zeros(len(cells)), points=points, track=track)
    assert flicker(truth, hit) == (3, 1)
    seen = (track == 3) & (np.array(frame) == 1)
    once = truth_of(frame, np.zeros(len(cells)), points=points, track=track, seen=seen)
    assert flicker(once, hit) == (4, 2)  # counts in the middle; before and after it need not
    assert flicker(truth, np.zeros(len(cells), bool)) == (0, 0)


def info(scene, stamp_s, **points):
    instances = [dict(instance_token=name, num_lidar_pts=value) for name, value in points.items()]
    return dict(scene_token=scene, frame_index=round(2 * stamp_s), lidar_points=dict(timestamp=stamp_s), instances=instances)


def test_seen_window_ends_at_exactly_two_seconds():
    start = 1532402927.647951  # as large as real stamps, where a float's step is a quarter of a microsecond
    later = [info('s', start, a=1), info('s', start + 2.0, a=0), info('s', start + 2.000001, a=0)]
    assert [row.tolist() for row in seen_before(later, 2.0)] == [[False], [True], [False]]
    assert [row.tolist() for row in seen_before(later, 2.000001)] == [[False], [True], [True]]
    assert [row.tolist() for row in seen_before(later, 1.999999)] == [[False], [False], [False]]


def test_seen_is_before_now_of_the_same_scene_and_instance_whatever_the_order():
    infos = [info('s', 1.0, a=0, b=3), info('s', 0.0, a=4, b=0), info('t', 0.5, a=9, b=9), info('s', 1.5, b=0, a=2)]
    expected = [[True, False], [False, False], [False, False], [True, True]]
    assert [row.tolist() for row in seen_before(infos, 2.0)] == expected
    # What was seen lasts: points at 0 s and not since; at 1.5 s `a` is still within 1.5 s.
    assert seen_before(infos, 1.5)[3].tolist() == [True, True]
    assert seen_before(infos, 1.4)[3].tolist() == [True, False]
