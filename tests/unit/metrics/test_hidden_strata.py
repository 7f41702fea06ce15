"""Strata of hidden boxes and the calibration of `seen_3d`, all by hand."""

import math

import numpy as np
import pytest

from projects.memfusion.metrics import evaluate_memory
from projects.memfusion.metrics.hidden_strata import ego_motion, last_seen
from projects.memfusion.metrics.memory_metric import format_memory_table
from projects.memfusion.metrics.visibility import visibility

CLASSES, CATEGORIES = ['car'], {'car': 0}


def world(frames=16, hidden_from=2, speed=0.0, turn=0.0, ego_mps=0.0):
    """One car 8 m ahead of the first pose, with points until frame `hidden_from`; keyframes every 0.5 s."""
    infos = []
    for index in range(frames):
        yaw = turn * 0.5 * index
        ego = np.eye(4)
        ego[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        ego[0, 3] = 0.5 * ego_mps * index
        place = np.linalg.inv(ego) @ [8.0 + 0.5 * speed * index, 0, 0, 1]
        instance = dict(instance_token='car', bbox_3d=[*place[:3], 4.0, 2.0, 1.5, 0.0], bbox_label_3d=0, num_radar_pts=0,
                        num_lidar_pts=9 if index < hidden_from else 0, velocity=[speed, 0.0])
        infos.append(dict(
            token=str(index), scene_token='s', frame_index=index, ego2global=ego.tolist(), global_from_lidar=ego.tolist(),
            lidar_points=dict(timestamp=1.5e9 + 0.5 * index, lidar2ego=np.eye(4).tolist()), instances=[instance]))
    return infos


def predictions_of(infos, wanted, seen=None):
    """The car where it is, in the frames that are wanted; nothing else."""
    import torch
    from mmdet3d.structures import LiDARInstance3DBoxes
    found = []
    for index, info in enumerate(infos):
        rows = torch.tensor([[*info['instances'][0]['bbox_3d'], 0, 0]] if index in wanted else []).reshape(-1, 9).float()
        one = dict(bboxes_3d=LiDARInstance3DBoxes(rows, box_dim=9, origin=(0.5, 0.5, 0.5)),
                   scores_3d=torch.full((len(rows),), 0.5), labels_3d=torch.zeros(len(rows), dtype=torch.long))
        if seen is not None:
            one.update(exists_3d=one['scores_3d'], seen_3d=torch.full((len(rows),), seen[index]))
        found.append(one)
    return found


def test_boxes_seen_between_two_and_six_seconds_ago_are_a_stratum_of_their_own():
    infos = world()  # last seen in frame 1: frames 2 to 5 within 2 s, 6 to 13 within 6 s, then longer ago
    values = evaluate_memory(infos, predictions_of(infos, {0, 3, 7, 8, 14}), CLASSES, CATEGORIES)
    assert (values['num_0pts_seen'], values['recall_0pts_seen']) == (4, 1 / 4)
    assert (values['num_0pts_seen_2-6s'], values['recall_0pts_seen_2-6s']) == (8, 2 / 8)
    assert [values[f'num_0pts_seen_gap{gap}'] for gap in range(1, 5)] == [1, 1, 1, 1] and values['recall_0pts_seen_gap2'] == 1
    assert (values['num_0pts_seen_2-6s_gap5-8'], values['recall_0pts_seen_2-6s_gap5-8']) == (4, 2 / 4)
    assert (values['num_0pts_seen_2-6s_gap9-12'], values['recall_0pts_seen_2-6s_gap9-12']) == (4, 0)
    shorter = evaluate_memory(infos, predictions_of(infos, {0, 3, 7}), CLASSES, CATEGORIES, seen_s=1.0, long_s=3.0)
    assert (shorter['num_0pts_seen'], shorter['num_0pts_seen_1-3s'], shorter['recall_0pts_seen_1-3s']) == (2, 4, 1 / 4)
    assert '  2-6s_gap5-8' in format_memory_table(values) and 'seen now' not in format_memory_table(values)


@pytest.mark.parametrize('motion, box, ego, turn', [
    (dict(), 'standing', 'standing', 'straight'), (dict(speed=0.6, ego_mps=0.6), 'moving', 'slow', 'straight'),
    (dict(speed=0.4, ego_mps=5.5, turn=math.radians(3.1)), 'standing', 'fast', 'turning')])
def test_hidden_boxes_are_split_by_how_they_and_the_ego_move(motion, box, ego, turn):
    infos = world(frames=5, **motion)
    values = evaluate_memory(infos, predictions_of(infos, {2, 3, 4}), CLASSES, CATEGORIES)
    assert values['num_0pts_seen'] == 3
    for name in ('standing', 'moving', 'ego_standing', 'ego_slow', 'ego_fast', 'ego_straight', 'ego_turning'):
        chosen = name in (box, f'ego_{ego}', f'ego_{turn}')
        assert values[f'num_0pts_seen_{name}'] == 3 * chosen and values.get(f'recall_0pts_seen_{name}', 1) == 1
    assert values['num_0pts_seen_2-6s'] == 0 and 'recall_0pts_seen_2-6s' not in values


def test_when_boxes_were_seen_and_how_the_ego_moves_whatever_the_order():
    infos = world(frames=4, turn=0.2, ego_mps=3.0)
    order = [2, 0, 3, 1]
    shuffled = [infos[row] for row in order]
    assert [(gap[0][0], gap[1][0]) for gap in last_seen(shuffled)] == [(500_000, 1), (-1, -1), (1_000_000, 2), (500_000, 1)]
    assert np.abs(ego_motion(shuffled) - [3.0, 0.2]).max() < 1e-6  # of the first frame, to the next
    assert ego_motion(infos[:1]).tolist() == [[0, 0]]


def test_calibration_by_hand():
    values = visibility(np.array([0.05, 0.95, 0.95, 0.95, 0.45]), np.array([False, True, True, False, True]))
    assert values['num_seen_rated'] == 5 and values['num_seen_bin9'] == 3
    assert values['seen_true_bin9'] == pytest.approx(2 / 3) and values['seen_said_bin4'] == pytest.approx(0.45)
    assert values['seen_ece'] == pytest.approx((0.05 + 3 * (0.95 - 2 / 3) + 0.55) / 5)
    assert values['seen_brier'] == pytest.approx((3 * 0.05 ** 2 + 0.95 ** 2 + 0.55 ** 2) / 5)
    assert values['seen_accuracy'] == 3 / 5
    assert visibility(np.zeros(0), np.zeros(0, dtype=bool)) == dict(num_seen_rated=0)


def test_the_metric_reports_calibration_of_the_predictions_that_found_something():
    infos = world(frames=6)
    seen = [0.9, 0.9, 0.2, 0.2, 0.8, 0.5]
    values = evaluate_memory(infos, predictions_of(infos, {0, 1, 2, 4}, seen), CLASSES, CATEGORIES)
    assert values['num_seen_rated'] == 4 and values['seen_accuracy'] == 3 / 4
    assert 'seen now' in format_memory_table(values)
