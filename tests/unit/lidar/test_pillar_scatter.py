"""BatchedPillarsScatter: mmdet3d's PointPillarsScatter bit for bit, gradients included, also for empty clouds."""

import torch
from mmdet3d.models.middle_encoders import PointPillarsScatter

from projects.memfusion.lidar import BatchedPillarsScatter


def test_it_is_mmdet3ds_scatter():
    g = torch.Generator().manual_seed(0)
    places = torch.cat([torch.cat([torch.full((count, 1), frame), torch.zeros(count, 1, dtype=torch.long), torch.stack(
        [cells // 7, cells % 7], dim=1)], dim=1) for frame, count in enumerate((20, 0, 35))
        for cells in [torch.randperm(35, generator=g)[:count]]])
    features = torch.randn(len(places), 4, generator=g)
    ours, theirs = (features.clone().requires_grad_() for _ in range(2))
    found = BatchedPillarsScatter(4, [5, 7])(ours, places.int(), 4)
    expected = PointPillarsScatter(4, [5, 7])(theirs, places.int(), 4)
    assert torch.equal(found, expected) and found.is_contiguous()
    weight = torch.randn(found.shape, generator=g)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
