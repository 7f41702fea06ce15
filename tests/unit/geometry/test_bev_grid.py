"""BEV cells and rasterised boxes against hand counts and mmdet3d's own corners."""

import math

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from shapely.geometry import Point, Polygon

from projects.geometry import BEVGrid, check_rigid, invert_rigid, rasterize_boxes, transform_points

GRID = BEVGrid((-8.0, -4.0, -5.0, 8.0, 4.0, 3.0), (0.25, 0.5, 8.0), 2)  # anisotropic: cells of 0.5 x 1.0 m


def test_numbers_of_an_anisotropic_grid():
    assert GRID.num_voxels == (64, 16, 1)
    assert GRID.bev_shape == (8, 32)
    assert GRID.cell_m == (0.5, 1.0)
    centers = GRID.cell_centers_m()
    assert centers.shape == (8, 32, 2)
    assert centers[0, 0].tolist() == [-7.75, -3.5] and centers[7, 31].tolist() == [7.75, 3.5]


def test_axis_aligned_box_covers_the_cells_counted_by_hand():
    mask = rasterize_boxes(torch.tensor([[1.0, 0.0, 2.0, 2.0, 0.0]]), GRID)  # x 0..2, y -1..1
    rows, columns = mask.nonzero(as_tuple=True)
    assert sorted(set(rows.tolist())) == [3, 4] and sorted(set(columns.tolist())) == [16, 17, 18, 19]
    assert mask.sum() == 8


@pytest.mark.parametrize('yaw', [0.0, 0.3, math.pi / 2, 2.5, -1.1])
def test_rotated_boxes_agree_with_mmdet3d_corners(yaw):
    grid = BEVGrid((-8, -8, -5, 8, 8, 3), (0.25, 0.25, 8), 1)
    box = torch.tensor([[1.3, -2.1, -1.0, 4.7, 1.9, 1.5, yaw, 0.0, 0.0]])
    corners = LiDARInstance3DBoxes(box, box_dim=9).corners[0, [0, 3, 7, 4], :2].numpy()
    polygon = Polygon(corners)
    centers = grid.cell_centers_m().numpy()
    expected = np.array([[polygon.contains(Point(*c)) for c in row] for row in centers])
    assert abs(polygon.area - 4.7 * 1.9) < 1e-4
    assert (rasterize_boxes(box, grid).numpy() != expected).sum() == 0


def test_no_box_vanishes_between_centres():
    thin = torch.tensor([[0.0, 0.0, 0.1, 0.1, 0.7]])
    assert rasterize_boxes(thin, GRID).sum() >= 1
    assert rasterize_boxes(torch.zeros(0, 7), GRID).sum() == 0


@pytest.mark.parametrize('kwargs, word', [
    (dict(point_cloud_range=(-8, -8, -5, 8.1, 8, 3), voxel_size=(0.25, 0.25, 8), out_size_factor=1), 'along x'),
    (dict(point_cloud_range=(-8, -8, -5, 8, 8, 3), voxel_size=(0.5, 0.5, 8), out_size_factor=3), 'out_size_factor'),
    (dict(point_cloud_range=(-8, -8, -5, 8, 8, 3), voxel_size=(0.5, 0.5, 8), out_size_factor=0), 'out_size_factor'),
    (dict(point_cloud_range=(-8, -8, 8, 8), voxel_size=(0.5, 0.5, 8), out_size_factor=1), '6 numbers'),
])
def test_bad_grids_are_named(kwargs, word):
    with pytest.raises(ValueError, match=word):
        BEVGrid(**kwargs)


def test_rigid_transforms_three_four_five():
    dst_from_src = torch.eye(4, dtype=torch.float64)
    dst_from_src[:2, :2] = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    dst_from_src[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    moved = transform_points(dst_from_src, torch.tensor([[5.0, 0.0, 1.0]], dtype=torch.float64))
    assert torch.allclose(moved, torch.tensor([[4.0, 6.0, 4.0]], dtype=torch.float64), atol=1e-12)
    back = transform_points(invert_rigid(dst_from_src), moved)
    assert torch.allclose(back, torch.tensor([[5.0, 0.0, 1.0]], dtype=torch.float64), atol=1e-12)
    check_rigid(dst_from_src, 'pose')
    for broken in (dst_from_src * 2, dst_from_src.flip(0), torch.full((4, 4), math.nan)):
        with pytest.raises(ValueError, match='pose is not a rigid'):
            check_rigid(broken, 'pose')
