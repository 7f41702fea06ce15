"""Unit: fusions of BEV queries, with cameras alone and under augmentation; what holds with LiDAR is in test_invariants.py."""

from __future__ import annotations

import pytest
import torch

from projects.encodings.sine import sine_points
from projects.memfusion.fusion.bev_queries import BEVQueries
from projects.memfusion.fusion.fusion_state import FusionState

from .conftest import RANGE, build, inputs, ring

BEVFORMER = dict(kind='bevformer', query_init='learned')
CAMERAS_ONLY = [
    pytest.param(BEVFORMER, id='bevformer'),
    pytest.param(dict(**BEVFORMER, cross_attention=dict(kind='deformable')), id='bevformer-deformable'),
    pytest.param(dict(kind='petr', query_init='learned'), id='petr'),
    pytest.param(dict(kind='petr', query_init='learned', embedding=dict(depth_kind='linear', gate=False)), id='petr-linear'),
]


def state_of(calibration, maps) -> FusionState:
    return FusionState(maps[0], maps[0], maps, None, calibration, calibration.cam_valid.float())


def turned() -> torch.Tensor:
    """A turn by 90 degrees, mirrored."""
    aug = torch.eye(4)
    aug[:2, :2] = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])
    return aug


@pytest.mark.parametrize('case', CAMERAS_ONLY)
@torch.no_grad()
def test_cameras_alone_make_a_bev_frame_by_frame_in_any_order(case):
    layer, calibration = build(**case), ring(5, mixed=True, missing={1: [0, 3]})
    _, feats = inputs(calibration)
    bev = layer(None, feats, calibration)
    assert bev.shape == (2, 6, 16, 16) and (bev[0] - bev[1]).abs().max() > 1e-3
    order = [3, 0, 4, 2, 1]
    again = layer(None, [f[:, order] for f in feats], calibration.take_cameras(order))
    torch.testing.assert_close(again, bev, atol=1e-5, rtol=0)
    for v in range(2):
        alone = layer(None, [f[v:v + 1] for f in feats], calibration.select([v]))
        torch.testing.assert_close(alone[0], bev[v], atol=1e-5, rtol=0)
    feats[0][1, [0, 3]] = float('nan')  # what a missing camera shows is never read
    torch.testing.assert_close(layer(None, feats, calibration), bev, atol=1e-5, rtol=0)


@pytest.mark.parametrize('case', CAMERAS_ONLY)
@pytest.mark.parametrize('missing', [None, {0: [0, 1, 2], 1: [0, 1, 2]}], ids=['seen', 'masked'])
def test_every_parameter_has_a_gradient_of_the_cameras_alone(case, missing):
    layer, calibration = build(**case).train(), ring(3, missing=missing)
    _, feats = inputs(calibration)
    layer.fuse(None, feats, calibration).bev.square().sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    silent = [name for name, p in layer.named_parameters() if not p.grad.abs().max() > 0]
    assert silent == [] or missing


@pytest.mark.parametrize('case', CAMERAS_ONLY)
@torch.no_grad()
def test_metadata_augmented_and_back_make_no_difference(case):
    layer, calibration = build(**case), ring(4)
    _, feats = inputs(calibration)
    bev = layer(None, feats, calibration)
    aug = turned()
    aug[:3, 3] = torch.tensor([3.0, -2.0, 0.5])
    there = calibration.moved(aug.expand(2, 4, 4))
    back = there.moved(aug.double().inverse().expand(2, 4, 4))
    stretch = torch.diag(torch.tensor([1.25, 0.8, 1.0, 1.0], dtype=torch.float64))
    stretch[0, 3] = 4.0
    for camera in range(4):
        back = back.with_img_aug(camera, stretch, (80, 120)).with_img_aug(camera, stretch.inverse(), (64, 96))
    assert (layer(None, feats, there) - bev).abs().max() > 1e-3
    torch.testing.assert_close(layer(None, feats, back), bev, atol=1e-4, rtol=0)


@pytest.mark.parametrize('case', CAMERAS_ONLY)
def test_half_precision_stays_near(case):
    layer, calibration = build(**case), ring(3)
    _, feats = inputs(calibration)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = layer.fuse(None, [f.bfloat16() for f in feats], calibration).bev
        half.float().square().sum().backward()
    assert (half.float() - layer(None, feats, calibration)).abs().median() < 0.05
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


@torch.no_grad()
def test_points_of_the_world_keep_their_pixels_under_augmentation():
    """The cell at which a turned and mirrored BEV holds a point reads where the point is seen."""
    reader = build('bevformer', cross_attention=dict(kind='deformable')).layers[0].cross_attention
    cells_m = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(0)) * 28 - 14
    moved_m = cells_m @ turned()[:2, :2].T
    found = []
    for calibration, cells in ((ring(5), cells_m), (ring(5).moved(turned().expand(2, 4, 4)), moved_m)):
        found.append(reader.anchors(cells, state_of(calibration, inputs(calibration)[1])))
    (places, visible), (again, still) = found
    assert torch.equal(visible, still) and visible.any()
    assert (places - again)[visible].abs().max() * 96 < 1e-2


@torch.no_grad()
def test_a_layer_is_its_parts_one_after_another():
    layer, calibration = build('bevformer', layers=dict(num_layers=1)), ring(4)
    bev, feats = inputs(calibration)
    content = layer.queries.content(bev.flatten(2).transpose(1, 2))
    centres = (torch.arange(16) + 0.5) / 8 - 1
    parts = (torch.cartesian_prod(centres, centres) + 1) / 2
    position = layer.queries.position(sine_points(parts, 8, (0, 1)))
    part = layer.layers[0]
    query = part.norms[0](content + part.self_attention(content, position, (16, 16)))
    cells_m = 16 * torch.cartesian_prod(centres, centres).flip(-1).expand(2, -1, -1)
    reading = part.cross_attention(query, cells_m, state_of(calibration, feats))
    query = part.norms[1](query + reading.features * reading.trust)
    query = part.norms[2](query + part.feed_forward(query))
    wanted = bev + layer.output(query).transpose(1, 2).unflatten(2, (16, 16))
    torch.testing.assert_close(layer(bev, feats, calibration), wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_queries_of_a_coarser_grid_are_means():
    queries = BEVQueries(3, 4, (2, 4), RANGE, 'lidar')
    bev = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    content, position, cells_m = queries(bev, 1)
    torch.testing.assert_close(content[0, 5], queries.content(bev[0, :, 4:, 2:4].mean((1, 2))), atol=1e-6, rtol=0)
    assert cells_m[0, 5].tolist() == [-4.0, 8.0] and position.shape == (1, 8, 4)


def test_errors_name_what_does_not_fit():
    with pytest.raises(ValueError, match='query_init must be one of lidar, learned'):
        build('bevformer', query_init='random')
    with pytest.raises(ValueError, match='cross_attention.kind must be one of pillar, deformable'):
        build('bevformer', cross_attention=dict(kind='global'))
    with pytest.raises(ValueError, match='self_attention.kind must be one of'):
        build('bevformer', self_attention=dict(kind='full'))
    with pytest.raises(ValueError, match="published_quirks are those of kind='deformable'"):
        build('bevformer', cross_attention=dict(published_quirks=True))
    with pytest.raises(ValueError, match='num_layers=0'):
        build('bevformer', layers=dict(num_layers=0))
    calibration = ring(2)
    bev, feats = inputs(calibration)
    for kind in ('bevformer', 'petr'):
        with pytest.raises(ValueError, match=r'\(8, 16\) cells, but fusion_layer.bev_shape.*\(16, 16\)'):
            build(kind)(bev[:, :, :8], feats, calibration)


@torch.no_grad()
def test_each_peculiarity_of_the_published_attention_changes_the_bev():
    calibration = ring(4, missing={0: [1]})
    _, feats = inputs(calibration)
    deformable = dict(kind='deformable', heights_m=(-1.0, 6.0))
    plain = build(**BEVFORMER, cross_attention=deformable)(None, feats, calibration)
    for name in ('visibility_of_sample_0', 'all_anchors', 'bias_of_unseen'):
        odd = build(**BEVFORMER, cross_attention=dict(**deformable, published_quirks=(name,)))(None, feats, calibration)
        assert (odd - plain).abs().max() > 1e-3, name
