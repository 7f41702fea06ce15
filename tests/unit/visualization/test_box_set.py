"""Unit: corners and heading of drawn boxes against mmdet3d and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.visualization import BoxSet


def test_corners_equal_mmdet3d() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = LiDARInstance3DBoxes(torch.rand(20, 7, generator=generator) * 6 + 0.1)
    ours, theirs = BoxSet(boxes).corners_m, boxes.corners.numpy()
    distance = np.linalg.norm(ours[:, :, None] - theirs[:, None], axis=-1)
    assert distance.min(axis=1).max() < 1e-4 and distance.min(axis=2).max() < 1e-4  # the same eight, in whatever order


def test_3_4_5_heading() -> None:
    # length 10 along (3, 4) / 5: the middle of the front is 3 right and 4 ahead of the centre
    box = BoxSet([[1.0, 2.0, -1.0, 10.0, 2.0, 1.5, np.arctan2(4, 3)]])
    np.testing.assert_allclose(box.heading_m()[0], [[1, 2, -1], [4, 6, -1]], atol=1e-12)
    np.testing.assert_allclose(box.heading_m(0.5)[0, 1], [4, 6, -0.25], atol=1e-12)
    # front left of the bottom: one metre to the left of it, (-4, 3) / 5
    np.testing.assert_allclose(box.corners_m[0, 0], [4 - 0.8, 6 + 0.6, -1], atol=1e-12)
    np.testing.assert_allclose(box.corners_m[0, 4], [4 - 0.8, 6 + 0.6, 0.5], atol=1e-12)


def test_filtering_and_instances() -> None:
    instances = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(torch.rand(3, 9), box_dim=9), labels_3d=torch.tensor([0, 1, 2]),
        scores_3d=torch.tensor([0.3, 0.29, 0.9]))
    kept = BoxSet.from_instances(instances).above(0.3 - 1e-7)
    assert kept.labels.tolist() == [0, 2] and len(kept) == 2
    assert len(BoxSet(torch.zeros(0, 9)).corners_m) == 0
    assert len(BoxSet(torch.rand(4, 7)).above(0.9)) == 4  # no scores: truth


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match='boxes'):
        BoxSet(torch.rand(4, 5))
    with pytest.raises(ValueError, match='labels'):
        BoxSet(torch.rand(4, 7), torch.zeros(3))
