"""warp_bev: a static world point lands in the right cell, whatever the motion and the grid; against a slow bilinear oracle."""

import math

import pytest
import torch

from projects.geometry import cell_positions, move_positions, warp_bev

# (range, (H, W)): square; H != W; cells of 0.5 x 2 m; a range that is not centred on the sensor.
GRIDS = [
    ((-16.0, -16.0, -5.0, 16.0, 16.0, 3.0), (32, 32)),
    ((-24.0, -12.0, -5.0, 24.0, 12.0, 3.0), (24, 48)),
    ((-16.0, -32.0, -5.0, 16.0, 32.0, 3.0), (32, 64)),
    ((-8.0, -20.0, -5.0, 40.0, 28.0, 3.0), (40, 64)),
]


def motion(angle, x=0.0, y=0.0, flip=False, z=0.0):
    """(4, 4) float64 cur_from_prev."""
    matrix = torch.eye(4, dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    if flip:
        matrix[:2, 1] *= -1
    matrix[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return matrix


def blob(point, point_cloud_range, shape, sigma_m):
    offset = cell_positions(shape, point_cloud_range) - torch.tensor(point, dtype=torch.float64)
    return torch.exp(-(offset / sigma_m).square().sum(-1) / 2).float()


def centroid(image):
    """(row, column) in cells of one (H, W) map, weighted by its values."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in image.shape), indexing='ij')
    weight = image.double() / image.double().sum()
    return torch.stack([(weight * rows).sum(), (weight * columns).sum()])


def cell_of(point, point_cloud_range, shape):
    """(row, column) of a metric point, fractional, 0 at the first cell's centre."""
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    column = (point[0] - x_min) / (x_max - x_min) * shape[1] - 0.5
    row = (point[1] - y_min) / (y_max - y_min) * shape[0] - 0.5
    return torch.tensor([row, column], dtype=torch.float64)


@pytest.mark.parametrize('point_cloud_range, shape', GRIDS)
@pytest.mark.parametrize('angle', [0.0, 0.4, math.pi / 2, 2.6, -1.9])
@pytest.mark.parametrize('backward', [False, True])
def test_a_static_point_lands_in_its_cell(point_cloud_range, shape, angle, backward):
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    middle = torch.tensor([(x_min + x_max) / 2, (y_min + y_max) / 2], dtype=torch.float64)
    point = middle + torch.tensor([2.3, -1.7], dtype=torch.float64)
    cur_from_prev = motion(angle, 1.9, -1.1)
    if backward:
        cur_from_prev = torch.linalg.inv(cur_from_prev)
    # Turned about the middle of the map, so that the blob stays on it on every grid.
    about = torch.eye(4, dtype=torch.float64)
    about[:2, 3] = middle
    cur_from_prev = about @ cur_from_prev @ torch.linalg.inv(about)
    moved = cur_from_prev[:2, :2] @ point + cur_from_prev[:2, 3]
    sigma = 1.2 * max((x_max - x_min) / shape[1], (y_max - y_min) / shape[0])
    before = blob(point.tolist(), point_cloud_range, shape, sigma)
    after = warp_bev(before[None, None], cur_from_prev[None], point_cloud_range)[0, 0]
    off = (centroid(after) - cell_of(moved, point_cloud_range, shape)).norm()
    assert off < 0.05, (angle, off)
    stayed = (centroid(before) - cell_of(moved, point_cloud_range, shape)).norm()
    assert stayed > 0.5  # the test could not fail without a motion


def bilinear(image, x, y, point_cloud_range):
    """One sample at a metric point, by hand; cells outside are 0."""
    row, column = cell_of((x, y), point_cloud_range, image.shape).tolist()
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * float(image[r, c])
    return total


@pytest.mark.parametrize('point_cloud_range, shape', GRIDS)
def test_every_cell_equals_the_oracle_and_each_sample_takes_its_own_motion(point_cloud_range, shape):
    g = torch.Generator().manual_seed(0)
    bev = torch.randn(3, 2, *shape, generator=g)
    motions = torch.stack([motion(0.7, 3.0, -5.0), motion(-2.2, 0.4, 0.9, flip=True), motion(0.05, -7.0, 2.0)])
    warped = warp_bev(bev, motions, point_cloud_range)
    centers = cell_positions(shape, point_cloud_range)
    for b in range(3):
        prev_from_cur = torch.linalg.inv(motions[b])
        for row in range(0, shape[0], 5):
            for column in range(0, shape[1], 5):
                x, y = (prev_from_cur[:2, :2] @ centers[row, column] + prev_from_cur[:2, 3]).tolist()
                for c in range(2):
                    assert abs(float(warped[b, c, row, column]) - bilinear(bev[b, c], x, y, point_cloud_range)) < 1e-4
    alone = torch.cat([warp_bev(bev[b:b + 1], motions[b:b + 1], point_cloud_range) for b in range(3)])
    assert torch.equal(warped, alone)


@pytest.mark.parametrize('point_cloud_range, shape', GRIDS)
def test_whole_cells_are_moved_exactly_and_what_was_not_seen_is_zero(point_cloud_range, shape):
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    cell_x, cell_y = (x_max - x_min) / shape[1], (y_max - y_min) / shape[0]
    bev = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(1)) + 5
    warped = warp_bev(bev, motion(0.0, 3 * cell_x, -2 * cell_y)[None], point_cloud_range)
    # float32 rounds the positions: 1.5e-5 of a value
    assert (warped[..., :-2, 3:] - bev[..., 2:, :-3]).abs().max() < 2e-4
    assert warped[..., -2:, :].abs().max() < 2e-4 and warped[..., :3].abs().max() < 2e-4
    far = warp_bev(bev, motion(0.0, x_max - x_min + 2 * cell_x, 0.0)[None], point_cloud_range)
    assert (far == 0).all()
    assert (warp_bev(bev, torch.eye(4)[None], point_cloud_range) - bev).abs().max() < 1e-4


def test_three_four_five():
    """Turned by the angle of the 3-4-5 triangle about the sensor: the world point (5, 0) comes to (4, 3)."""
    point_cloud_range, shape = (-8.0, -8.0, -5.0, 8.0, 8.0, 3.0), (32, 32)
    warped = warp_bev(blob((5.0, 0.0), point_cloud_range, shape, 0.8)[None, None], motion(math.asin(0.6))[None],
                      point_cloud_range)
    assert (centroid(warped[0, 0]) - torch.tensor([21.5, 23.5])).abs().max() < 0.02  # (3 + 8) / 0.5 - 0.5, (4 + 8) / 0.5 - 0.5


def test_there_and_back_again():
    point_cloud_range, shape = GRIDS[1]
    before = blob((1.3, 2.1), point_cloud_range, shape, 2.0)[None, None]
    cur_from_prev = motion(0.5, 2.3, -1.2)[None]
    back = warp_bev(warp_bev(before, cur_from_prev, point_cloud_range), torch.linalg.inv(cur_from_prev), point_cloud_range)
    assert (back - before).abs().max() < 0.1  # two bilinear samplings blur the peak
    assert (centroid(back[0, 0]) - centroid(before[0, 0])).norm() < 0.05


def test_repeated_warps_arrive_where_one_does_but_blur():
    """Why stored frames keep their grid: twenty small warps bring a point to the same cell, but its peak is lost."""
    point_cloud_range, shape = GRIDS[0]
    before = torch.zeros(1, 1, *shape)
    before[0, 0, 16, 16] = 1.0
    step = motion(0.02, 0.13, -0.07)
    many, total = before, torch.eye(4, dtype=torch.float64)
    for _ in range(20):
        many, total = warp_bev(many, step[None], point_cloud_range), step @ total
    once = warp_bev(before, total[None], point_cloud_range)
    assert (centroid(many[0, 0]) - centroid(once[0, 0])).norm() < 0.1
    point = total[:2, :2] @ torch.tensor([0.5, 0.5], dtype=torch.float64) + total[:2, 3]
    assert (centroid(many[0, 0]) - cell_of(point, point_cloud_range, shape)).norm() < 0.05
    assert many.max() < 0.4 * once.max()


def test_poses_far_from_the_origin_keep_their_precision():
    """Global coordinates are kilometres; the difference of two poses must not lose the cell."""
    point_cloud_range, shape = GRIDS[0]
    prev, cur = motion(1.0, 3.1e3, 2.2e3), motion(1.3, 3.1e3 + 1.5, 2.2e3 - 0.7)
    near = motion(0.0, -3.1e3, -2.2e3)
    bev = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(2))
    far = warp_bev(bev, (torch.linalg.inv(cur) @ prev)[None], point_cloud_range)
    close = warp_bev(bev, (torch.linalg.inv(near @ cur) @ near @ prev)[None], point_cloud_range)
    assert (far - close).abs().max() < 1e-4


def test_gradients_flow_back_to_where_the_values_came_from():
    point_cloud_range, shape = GRIDS[0]
    bev = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(3), requires_grad=True)
    warped = warp_bev(bev, motion(0.0, 2.0, 0.0)[None], point_cloud_range)  # two cells to the right
    warped[0, 0, 10, 12].backward()
    assert bev.grad.abs().sum() == pytest.approx(1.0, abs=1e-4)
    assert bev.grad[0, 0, 10, 10] == pytest.approx(1.0, abs=1e-4)


def test_dtype_is_kept_and_autocast_does_not_round_the_positions():
    point_cloud_range, shape = GRIDS[1]
    bev = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(4))
    expected = warp_bev(bev, motion(0.3, 1.0, 2.0)[None], point_cloud_range)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(warp_bev(bev, motion(0.3, 1.0, 2.0)[None], point_cloud_range), expected)
    rounded = warp_bev(bev.bfloat16(), motion(0.3, 1.0, 2.0)[None], point_cloud_range)
    assert rounded.dtype == torch.bfloat16 and (rounded.float() - expected).abs().max() < 0.03


def test_a_wrong_batch_of_motions_is_named():
    with pytest.raises(ValueError, match=r'\(2, 4, 4\).*\(1, 4, 4\)'):
        warp_bev(torch.zeros(2, 1, 4, 4), torch.eye(4)[None], GRIDS[0][0])
    with pytest.raises(ValueError, match='cur_from_prev'):
        warp_bev(torch.zeros(2, 1, 4, 4), torch.eye(4), GRIDS[0][0])


def test_positions_move_as_points_do():
    """move_positions, with which stored cells are re-expressed, against the whole 3D product."""
    centers = cell_positions((3, 5), GRIDS[1][0])
    motions = torch.stack([motion(0.3, 1.0, 2.0, z=4.0), motion(-1.0, 5.0, 0.0, flip=True)])
    moved = move_positions(centers.expand(2, 3, 5, 2), motions)
    points = torch.cat([centers, torch.zeros(3, 5, 1), torch.ones(3, 5, 1)], dim=-1).double()
    expected = torch.einsum('bij,hwj->bhwi', motions, points)[..., :2]
    assert (moved - expected).abs().max() < 1e-12
