"""One geometric augmentation per clip: points, boxes and velocities move by the matrix that is written down."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints

from projects.memfusion.data.transforms.clip_augmentation import ClipBEVAugmentation


def frame(seed, clip_seed):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(6, 9, generator=g) * 10 - 5
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.5
    return dict(points=LiDARPoints(torch.rand(50, 5, generator=g) * 20 - 10, points_dim=5),
                gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), bev_aug=np.eye(4), clip_seed=clip_seed)


AUGMENT = dict(rot_range=[-3.1, 3.1], scale_ratio_range=[0.8, 1.2], translation_std=[1.0, 1.0, 0.3])


@pytest.mark.parametrize('clip_seed', range(8))
def test_points_boxes_and_velocities_follow_the_matrix(clip_seed):
    before, after = frame(3, clip_seed), ClipBEVAugmentation(**AUGMENT).transform(frame(3, clip_seed))
    matrix = torch.from_numpy(after['bev_aug'])

    def moved(points):
        return points.double() @ matrix[:3, :3].T + matrix[:3, 3]

    assert (after['points'].tensor[:, :3] - moved(before['points'].tensor[:, :3])).abs().max() < 2e-5  # float32: 2e-6
    assert torch.equal(after['points'].tensor[:, 3:], before['points'].tensor[:, 3:])
    # The set of corners is the same; a mirrored box lists them in another order.
    expected = moved(before['gt_bboxes_3d'].corners)
    found = after['gt_bboxes_3d'].corners.double()
    assert torch.cdist(expected, found).min(dim=2).values.max() < 1e-4
    # The front face stays the front face: yaw is not merely right up to half a turn.
    box = after['gt_bboxes_3d'].tensor
    front = box[:, :2] + 0.5 * box[:, 3:4] * torch.stack([box[:, 6].cos(), box[:, 6].sin()], dim=1)
    old = before['gt_bboxes_3d'].tensor
    old_front = old[:, :2] + 0.5 * old[:, 3:4] * torch.stack([old[:, 6].cos(), old[:, 6].sin()], dim=1)
    old_front = torch.cat([old_front, old[:, 2:3]], dim=1)
    assert (moved(old_front)[:, :2] - front).abs().max() < 1e-4
    velocity = old[:, 7:9].double() @ matrix[:2, :2].T
    assert (box[:, 7:9] - velocity).abs().max() < 1e-5


def test_all_frames_of_a_clip_share_the_draw_and_clips_differ():
    transform = ClipBEVAugmentation(**AUGMENT)
    a, b, other = (transform.transform(frame(s, c))['bev_aug'] for s, c in ((1, 7), (2, 7), (1, 8)))
    assert np.array_equal(a, b) and not np.allclose(a, other)


def test_flips_happen_as_often_as_asked():
    transform = ClipBEVAugmentation(rot_range=[0, 0], scale_ratio_range=[1, 1], flip_ratio_bev_horizontal=0.25,
                                    flip_ratio_bev_vertical=1.0)
    matrices = np.stack([transform.transform(copy.deepcopy(frame(0, seed)))['bev_aug'] for seed in range(400)])
    assert (matrices[:, 0, 0] == -1).all()
    assert abs((matrices[:, 1, 1] == -1).mean() - 0.25) < 0.07


def test_frames_without_boxes_are_moved_too():
    data = frame(0, 0)
    del data['gt_bboxes_3d']
    assert ClipBEVAugmentation(**AUGMENT).transform(data)['bev_aug'].shape == (4, 4)
