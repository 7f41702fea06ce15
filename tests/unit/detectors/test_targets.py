"""Unit: the map of box centres, against mmdet3d's drawing box by box."""

from __future__ import annotations

import pytest
import torch
from mmdet3d.models.utils import draw_heatmap_gaussian, gaussian_radius

from projects.geometry import BEVGrid, gaussians
from projects.memfusion.detectors import targets

GRID = BEVGrid(point_cloud_range=(-20.0, -12.8, -5.0, 20.0, 12.8, 3.0), voxel_size=(0.2, 0.1, 8.0), out_size_factor=2)


def box_by_box(boxes: torch.Tensor) -> torch.Tensor:
    height, width = GRID.bev_shape
    heatmap = torch.zeros(height, width)
    low, size = torch.tensor(GRID.point_cloud_range[:2]), torch.tensor(GRID.voxel_size[:2]) * GRID.out_size_factor
    for center, extent in zip(((boxes[:, :2] - low) / size).int(), boxes[:, 3:5] / size):
        if 0 <= center[0] < width and 0 <= center[1] < height and (extent > 0).all():
            radius = max(targets.MIN_RADIUS, int(gaussian_radius((extent[1], extent[0]), targets.MIN_OVERLAP)))
            draw_heatmap_gaussian(heatmap, center, radius)
    return heatmap


@pytest.mark.parametrize('most', [1, 1 << 24])
def test_centers_equal_mmdet3d_drawing_box_by_box(most, monkeypatch):
    """Large and tiny boxes, some outside, some without an extent, a frame without any."""
    monkeypatch.setattr(gaussians, 'CHUNK_CELLS', most)
    generator = torch.Generator().manual_seed(0)
    frames = [torch.rand(count, 9, generator=generator) for count in (40, 0, 7)]
    for boxes in frames:
        boxes[:, :2] = (boxes[:, :2] - 0.5) * torch.tensor([44.0, 30.0])
        boxes[:, 3:5] = 20 * boxes[:, 3:5] ** 4
        boxes[::6, 3] = 0.0
    found = targets.center_heatmaps(frames, GRID, 'cpu')
    wanted = torch.stack([box_by_box(boxes) for boxes in frames])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert torch.equal(found == 1, wanted == 1) and (wanted == 1).sum((1, 2)).tolist()[1] == 0 and (wanted == 1).sum() > 20
    assert targets.center_heatmaps([], GRID, 'cpu').shape == (0, *GRID.bev_shape)
