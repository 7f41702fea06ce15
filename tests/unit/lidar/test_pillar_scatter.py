"""The batched scatter is mmdet3d's, bit for bit, and asks nothing of a GPU."""

from __future__ import annotations

import pytest
import torch
from mmdet3d.models.middle_encoders import PointPillarsScatter
from sync_counts import counting

from projects.memfusion.lidar import BatchedPillarsScatter


@pytest.mark.parametrize('frames', [[0, 0, 1, 3, 3, 3], [2, 0, 2, 1], []])  # a frame without pillars, in any order, none at all
def test_equals_mmdet3ds(frames):
    g = torch.Generator().manual_seed(0)
    cells = torch.randperm(12, generator=g)[:len(frames)]
    coors = torch.stack([torch.tensor(frames, dtype=torch.long), 0 * cells, cells // 4, cells % 4], dim=1).int()
    found = []
    for kind in (PointPillarsScatter, BatchedPillarsScatter):
        features = torch.randn(len(frames), 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
        with counting() as counts:
            bev = kind(5, [3, 4])(features, coors, 4)
        (bev * torch.arange(12.0).view(3, 4)).sum().backward()
        found.append((bev, features.grad))
    assert counts.total == 0, counts
    assert all(map(torch.equal, *found)) and found[1][0].is_contiguous()
