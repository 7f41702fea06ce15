"""Gaussians of centres: mmdet3d's one by one, any chunk; radii as mmdet's and mmdet3d's."""

import pytest
import torch
from mmdet.models.utils import gaussian_radius as mmdet_radius
from mmdet3d.models.utils import draw_heatmap_gaussian
from mmdet3d.models.utils import gaussian_radius as mmdet3d_radius

from projects.geometry import centerpoint_radius, cornernet_radius, draw_gaussians, gaussians


@pytest.mark.parametrize('chunk_cells', [gaussians.CHUNK_CELLS, 1, 1200])
def test_maps_are_those_drawn_one_by_one(chunk_cells, monkeypatch):
    monkeypatch.setattr(gaussians, 'CHUNK_CELLS', chunk_cells)
    g = torch.Generator().manual_seed(0)
    centers = torch.stack([torch.randint(20, (2, 9), generator=g), torch.randint(12, (2, 9), generator=g)], dim=-1)
    radii, channels = torch.randint(0, 8, (2, 9), generator=g), torch.randint(3, (2, 9), generator=g)
    valid = torch.rand(2, 9, generator=g) > 0.3
    want = torch.zeros(2, 3, 12, 20)
    for frame, index in valid.nonzero().tolist():
        draw_heatmap_gaussian(want[frame, channels[frame, index]], centers[frame, index], int(radii[frame, index]))
    drawn = draw_gaussians(centers, radii, valid, (3, 12, 20), channels)
    assert torch.equal(drawn.eq(1), want.eq(1)) and (drawn - want).abs().max() < 1e-7
    assert torch.equal(draw_gaussians(centers, radii, valid, (1, 12, 20)), drawn.amax(dim=1, keepdim=True))
    assert draw_gaussians(centers[:, :0], radii[:, :0], valid[:, :0], (3, 12, 20)).sum() == 0


@pytest.mark.parametrize('min_overlap', [0.1, 0.3, 0.7])
def test_radii(min_overlap):
    length, width = (torch.rand(2, 50, generator=torch.Generator().manual_seed(0)) * 30 + 0.1)
    sizes = list(zip(length, width))
    assert torch.equal(centerpoint_radius(length, width, min_overlap),
                       torch.stack([mmdet3d_radius((b, a), min_overlap) for a, b in sizes]))
    want = torch.tensor([mmdet_radius((float(a), float(b)), min_overlap) for a, b in sizes], dtype=torch.float64)
    assert (cornernet_radius(length.double(), width.double(), min_overlap) - want).abs().max() < 1e-12
