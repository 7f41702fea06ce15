"""AP equals the devkit's own where nothing is hidden, and where something is, the devkit's on what is left."""

import numpy as np
import pytest
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.algo import accumulate, calc_ap
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox

from projects.memfusion.metrics.box_tables import PredictionTable, TruthTable
from projects.memfusion.metrics.matching import candidate_pairs
from projects.memfusion.metrics.mean_ap_seen import average_precisions, interpolated_ap, mean_over

CLASSES = ['car', 'barrier', 'bus']
FRAMES = 12


def world(seed):
    """Boxes at 1000 m from the origin, as global coordinates are; predictions around truth and anywhere; many ties."""
    g = np.random.default_rng(seed)
    n, m = 90, 400
    frame = np.sort(g.integers(0, FRAMES, n))
    label = g.integers(0, 2, n)  # no bus
    centre = g.uniform(0, 25, (n, 3)) + 1000
    truth = TruthTable(frame=frame, frame_index=frame, track=np.arange(n), label=label, centre_m=centre,
                       num_lidar_pts=g.integers(1, 30, n), num_radar_pts=np.zeros(n, int), seen=np.zeros(n, bool))
    target, near = g.integers(0, n, m), g.random(m) < 0.4
    at = np.where(near, frame[target], g.integers(0, FRAMES, m))
    around = centre[target] + g.normal(0, 1.0, (m, 3))
    rows = np.argsort(at, kind='stable')
    predicted = PredictionTable(
        frame=at[rows], label=np.where(near, label[target], g.integers(0, 3, m))[rows],
        centre_m=np.where(near[:, None], around, g.uniform(0, 25, (m, 3)) + 1000)[rows],
        score=np.round(g.random(m) * 0.5 + 0.3 * near, 2)[rows])
    return truth, predicted


def eval_boxes(table, rows):
    boxes = EvalBoxes()
    for frame in range(FRAMES):
        boxes.add_boxes(str(frame), [
            DetectionBox(sample_token=str(frame), translation=tuple(table.centre_m[row]), size=(1, 1, 1),
                         rotation=(1, 0, 0, 0), velocity=(0, 0), detection_name=CLASSES[table.label[row]],
                         detection_score=float(table.score[row]) if hasattr(table, 'score') else -1.0)
            for row in rows if table.frame[row] == frame])
    return boxes


def devkit_ap(truth, truth_rows, predicted, predicted_rows, label, distance_m):
    config = config_factory('detection_cvpr_2019')
    data = accumulate(eval_boxes(truth, truth_rows), eval_boxes(predicted, predicted_rows), CLASSES[label],
                      config.dist_fcn_callable, distance_m)
    return calc_ap(data, config.min_recall, config.min_precision)


def left_by_the_slow_rule(truth, predicted, counts, distance_m):
    """Rows of predictions without those that only ignored truth excuses; one by one, from the definition."""
    taken, left = set(), []
    for row in sorted(range(len(predicted.score)), key=lambda row: (predicted.score[row], row), reverse=True):
        found = nearest(truth, predicted, row, counts, taken, distance_m)
        excused = found < 0 and (found := nearest(truth, predicted, row, ~counts, taken, distance_m)) >= 0
        taken |= {found} - {-1}
        left += [] if excused else [row]
    return sorted(left)


def nearest(truth, predicted, row, group, taken, distance_m):
    best = (distance_m, -1)
    for t in np.flatnonzero((truth.frame == predicted.frame[row]) & (truth.label == predicted.label[row]) & group):
        distance = np.hypot(*(truth.centre_m[t] - predicted.centre_m[row])[:2])
        if t not in taken and distance < best[0]:
            best = distance, t
    return best[1]


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_without_hidden_truth_it_is_the_devkits(seed):
    truth, predicted = world(seed)
    everything = np.ones(len(truth.frame), bool)
    ours = average_precisions(truth, predicted, candidate_pairs(truth, predicted, 4.0), everything, ~everything, 3)
    rows, all_rows = range(len(truth.frame)), range(len(predicted.score))
    expected = [np.mean([devkit_ap(truth, rows, predicted, all_rows, label, d) for d in (0.5, 1.0, 2.0, 4.0)])
                for label in range(3)]
    assert ours.tolist() == expected  # to the last bit
    assert 0.02 < expected[0] < 0.9 and 0.02 < expected[1] < 0.9 and expected[2] == 0


@pytest.mark.parametrize('seed', [3, 4])
def test_with_hidden_truth_it_is_the_devkits_on_what_is_left(seed):
    truth, predicted = world(seed)
    counts = np.random.default_rng(seed).random(len(truth.frame)) < 0.6
    pairs = candidate_pairs(truth, predicted, 4.0)
    ours = average_precisions(truth, predicted, pairs, counts, ~counts, 3)
    expected = np.zeros((4, 3))
    for step, distance_m in enumerate((0.5, 1.0, 2.0, 4.0)):
        left = left_by_the_slow_rule(truth, predicted, counts, distance_m)
        assert len(left) < len(predicted.score) - 5
        expected[step] = [devkit_ap(truth, np.flatnonzero(counts), predicted, left, label, distance_m) for label in range(3)]
    assert ours.tolist() == expected.mean(axis=0).tolist()
    # Truth that is neither counted nor ignored is not there: then it is the devkit's on all predictions.
    plain = average_precisions(truth, predicted, pairs, counts, np.zeros_like(counts), 3)
    rows = np.flatnonzero(counts)
    assert plain[0] == np.mean([devkit_ap(truth, rows, predicted, range(400), 0, d) for d in (0.5, 1.0, 2.0, 4.0)])
    assert plain[0] < ours[0]


def test_average_precision_by_hand():
    assert interpolated_ap(np.array([True, True]), 2, 0.1, 0.1) == pytest.approx(1.0)
    # Half found, nothing wrong: precision 1 at recall 0.11 to 0.50, that is 40 of 90 steps.
    assert interpolated_ap(np.array([True]), 2, 0.1, 0.1) == pytest.approx(40 / 90)
    # First wrong, then right: precision rises from 0 (recall 0) to 1/2 (recall 1); (p - 0.1) / 0.9 where p > 0.1.
    precision = np.interp(np.linspace(0, 1, 101), [0, 1], [0, 0.5])[11:]
    expected = np.mean(np.maximum(precision - 0.1, 0)) / 0.9
    assert interpolated_ap(np.array([False, True]), 1, 0.1, 0.1) == pytest.approx(expected)
    assert interpolated_ap(np.array([False, False]), 3, 0.1, 0.1) == 0
    assert interpolated_ap(np.array([False]), 0, 0.1, 0.1) == interpolated_ap(np.zeros(0, bool), 2, 0.1, 0.1) == 0


def test_mean_over_chosen_classes():
    values = np.array([0.5, 0.2, 0.8])
    assert mean_over(values, CLASSES, np.array([True, False, True])) == pytest.approx(0.65)
    assert mean_over(values, CLASSES, np.zeros(3, bool)) == 0
