"""The numpy voxeliser and NMS against mmdet3d's compiled ones, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.export.numpy_boxes import boxes_of, overlaps
from projects.export.numpy_voxels import voxelize

RANGE, SIZE = (-4.0, -8.0, -2.0, 4.0, 8.0, 2.0), (0.5, 1.0, 4.0)


def cloud(number=3000, seed=0):
    g = np.random.default_rng(seed)
    return (g.random((number, 5)) * [10, 18, 5, 1, 1] - [5, 9, 2.5, 0, 0]).astype(np.float32)


@pytest.mark.parametrize('max_num_points, max_voxels', [(4, 400), (64, 20), (1, 1)])
def test_voxels_are_those_of_the_compiled_op(max_num_points, max_voxels):
    from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape
    points = cloud()
    layer = VoxelizationByGridShape(list(RANGE), max_num_points, list(SIZE), max_voxels=max_voxels)
    voxels, coordinates, counts = layer(torch.from_numpy(points))
    made = voxelize(points, RANGE, SIZE, max_num_points, max_voxels)
    for name, wanted in dict(voxels=voxels, coordinates=coordinates, num_points=counts).items():
        np.testing.assert_array_equal(made[name], wanted.numpy(), err_msg=name)
        assert made[name].dtype == wanted.numpy().dtype


def test_no_points_are_no_voxels_and_a_point_on_the_upper_border_is_outside():
    made = voxelize(np.float32([[4.0, 0, 0], [-4.0, -8.0, -2.0]]), RANGE, SIZE, 2, 9)
    assert made['coordinates'].tolist() == [[0, 0, 0]] and made['num_points'].tolist() == [1]
    assert {name: part.shape for name, part in voxelize(cloud(0), RANGE, SIZE, 2, 9).items()} == dict(
        voxels=(0, 2, 5), num_points=(0,), coordinates=(0, 3))


@pytest.mark.parametrize('points', [np.zeros((5, 2), np.float32), np.zeros(5, np.float32), np.zeros((5, 3), np.int32)])
def test_what_are_no_points_is_said(points):
    with pytest.raises(ValueError, match=r'points must be a \(P, D\) table of floats'):
        voxelize(points, RANGE, SIZE, 2, 9)


def box(x, y, length, width, yaw):
    return np.array([x, y, 0, length, width, 1, yaw, 0, 0], dtype=np.float32)


def test_overlaps_by_hand():
    one = box(100, 50, 4, 2, 0)
    others = np.stack([one, box(102, 50, 4, 2, math.pi), box(100, 50, 2, 4, math.pi / 2), box(104, 50, 4, 2, 0),
                       box(100, 50, 2, 2, math.pi / 4)])
    # An eighth turn of a square of side 2 in a strip of height 2 loses two corners of (sqrt 2 - 1)^2.
    octagon = 4 - 2 * (math.sqrt(2) - 1) ** 2
    np.testing.assert_allclose(overlaps(one, others), [1, 4 / 12, 1, 0, octagon / (8 + 4 - octagon)], atol=1e-6)


def rule(**changes):
    nms = dict(type='rotate', score_at_least=0.2, centre_range=[-30, -30, -10, 30, 30, 10], iou=0.2, pre_max_size=100,
               post_max_size=30, min_radius=[2.0, 1.0], **changes)
    return dict(arrays=['boxes', 'scores', 'labels'], score_above=0.1, centre_range=[-40, -40, -10, 40, 40, 10],
                tasks=[[0, 1], [2]], nms=nms)


def candidates(seed):
    g = np.random.default_rng(seed)
    number = 300
    boxes = g.random((number, 9)) * [70, 70, 4, 6, 4, 2, 7, 2, 2] - [35, 35, 2, -1, -1, -1, 3.5, 1, 1]
    labels = np.sort(g.integers(0, 3, number))
    scores = np.concatenate([np.sort(g.random((labels < 2).sum())), np.sort(g.random((labels == 2).sum()))])
    return dict(boxes=boxes.astype(np.float32), scores=scores.astype(np.float32), labels=labels)


@pytest.mark.parametrize('kind', ['rotate', 'circle'])
def test_boxes_are_those_of_center_heads(kind, monkeypatch):
    """CenterHead's own way from decoded boxes on, with a coder that hands ours out."""
    from mmdet3d.models.dense_heads import CenterHead, centerpoint_head
    from mmdet3d.structures import LiDARInstance3DBoxes
    monkeypatch.setattr(centerpoint_head, 'circle_nms', centerpoint_head.circle_nms.py_func)  # compiling takes seconds
    found = candidates(seed=len(kind))
    wanted_rule = rule()
    wanted_rule['nms']['type'] = kind
    head = CenterHead.__new__(CenterHead)
    torch.nn.Module.__init__(head)
    nms = wanted_rule['nms']
    head.num_classes, head.norm_bbox = [2, 1], True
    head.test_cfg = dict(nms_type=kind, score_threshold=nms['score_at_least'], post_center_limit_range=nms['centre_range'],
                         nms_thr=nms['iou'], pre_max_size=100, post_max_size=30, min_radius=nms['min_radius'])
    if kind == 'circle':  # which looks at neither the head's threshold nor its range
        nms.update(score_at_least=-1.0, centre_range=[])

    class Coder:
        code_size = 9

        def decode(self, *maps, reg, task_id):
            mine = np.isin(found['labels'], wanted_rule['tasks'][task_id]) & (found['scores'] > 0.1)
            mine &= (np.abs(found['boxes'][:, :2]) <= 40).all(1)
            first = wanted_rule['tasks'][task_id][0]
            return [dict(bboxes=torch.from_numpy(found['boxes'][mine]), scores=torch.from_numpy(found['scores'][mine]),
                         labels=torch.from_numpy(found['labels'][mine] - first).float())]

    head.bbox_coder = Coder()
    maps = {name: torch.zeros(1, 2, 1, 1) for name in ('heatmap', 'reg', 'height', 'dim', 'rot', 'vel')}
    wanted = head.predict_by_feat([[maps], [maps]], [dict(box_type_3d=LiDARInstance3DBoxes)])[0]
    got = boxes_of(found, wanted_rule)
    assert 10 < len(wanted) < 61
    np.testing.assert_allclose(got['boxes'], wanted.bboxes_3d.tensor.numpy(), atol=1e-6)
    np.testing.assert_array_equal(got['scores'], wanted.scores_3d.numpy())
    np.testing.assert_array_equal(got['labels'], wanted.labels_3d.numpy())


def test_nothing_found_is_nothing():
    empty = {name: array[:0] for name, array in candidates(0).items()}
    assert {name: array.shape for name, array in boxes_of(empty, rule()).items()} == dict(
        boxes=(0, 9), scores=(0,), labels=(0,))
