"""CMT: embeddings against slow ones, what each published quirk changes, masked-modal training, branches layer by layer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import MODELS
from sync_counts import counting
from torch import nn

from projects.benchmarks.ring import ring
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries.bev_embedding import BEVEmbedding, cell_fractions
from projects.memfusion.queries.cmt_head import QUIRKS
from projects.memfusion.queries.layerwise_heads import LayerwiseHeads
from projects.memfusion.queries.masked_modal import MaskedModal
from projects.memfusion.queries.ray_embedding import RayEmbedding
from projects.memfusion.structures import Calibration, Readout, SceneFeatures

RANGE = (-20.0, -20.0, -5.0, 20.0, 20.0, 3.0)
CFG = dict(type='CMTHead', num_classes=3, point_cloud_range=RANGE, inputs=dict(img_channels=8, bev_channels=6, num_depths=4),
           transformer=dict(dim=16, num_queries=12, num_layers=2, num_heads=2, ffn_dim=16, branch_dim=8))


def build(**changes):
    """Reproducible, in eval mode, no weight is 0."""
    torch.manual_seed(0)
    head = MODELS.build({**CFG, **changes}).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


def features(frames=2, cameras=3, bev=True, cut=0):
    """Frames with a ring of cameras of 32 x 64 px, the images `cut` px narrower than their padding."""
    generator = torch.Generator().manual_seed(1)
    rig = Calibration.cat([ring(cameras, (32, 64 - cut), 30.0, (31.5, 15.5), 0.1 * frame) for frame in range(frames)])
    return SceneFeatures(torch.randn(frames, 6, 4, 5, generator=generator) if bev else None,
                         (torch.randn(frames, cameras, 8, 4, 8, generator=generator),), replace(rig, padded_hw=(32, 64)),
                         torch.ones(frames, 1, 4, 5, dtype=torch.bool) if bev else None)


@torch.no_grad()
def answer(head, seen):
    found = head(seen, Readout(), None)
    return torch.cat([found.logits[-1], found.codes[-1]], dim=-1)


# -- embeddings ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def rays():
    torch.manual_seed(0)
    return RayEmbedding(8, 5, RANGE)


def slow_embedding(rays, origin, direction):
    """The points of one ray at every depth, one after another, through the two layers."""
    numbers = []
    for i in range(5):
        depth = 1 + i * (RANGE[3] - 1) / 5
        for axis in range(3):
            point = float(origin[axis]) + depth * float(direction[axis])
            numbers.append((point - RANGE[axis]) / (RANGE[3 + axis] - RANGE[axis]))
    return nn.functional.linear(nn.functional.linear(torch.tensor(numbers), rays[0].weight, rays[0].bias).relu(),
                                rays[2].weight, rays[2].bias)


@torch.no_grad()
def test_cells_have_the_embedding_of_the_points_along_their_ray(rays):
    rig = features().calibration
    origins, directions = rig.rays((4, 8))
    found = rays(origins, directions)
    for at in ((0, 0, 0, 0), (1, 2, 3, 7), (1, 1, 2, 4)):
        torch.testing.assert_close(found[at], slow_embedding(rays, origins[at[:2]], directions[at]), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('summed', [False, True])
def test_queries_have_the_mean_of_the_rays_of_the_cameras_that_see_them(rays, summed):
    rays.summed = summed
    turned = torch.Generator().manual_seed(3)
    points = torch.rand(1, 40, 3, generator=turned) * torch.tensor([30.0, 30, 12]) - torch.tensor([15.0, 15, 6])
    rig = ring(6, (32, 64), 30.0, (31.5, 15.5))  # 93 deg each: they overlap
    found = rays.of_points(points, rig)
    uv_px, depth_m, valid = rig.project(points)
    counts = valid[0].sum(0)
    assert {0, 1, 2} <= set(counts.tolist())
    for q in range(40):
        seen_by = valid[0, :, q].nonzero()[:, 0].tolist()
        expected = torch.zeros(8)
        for n in seen_by:  # the published way: the query's own pixel is lifted again
            origins, directions = rig.views().rays_at(uv_px)
            expected += slow_embedding(rays, origins[0, n], directions[0, n, q])
        expected = expected if summed or not seen_by else expected / len(seen_by)
        torch.testing.assert_close(found[0, q], expected, atol=1e-5, rtol=0)
    hidden = rays.of_points(points, rig, torch.tensor([False]))
    assert torch.equal(hidden, torch.zeros_like(hidden))


def test_a_query_at_a_camera_has_finite_gradients(rays):
    points = torch.tensor([[[0.0, 0, 0], [0, 0, 1e-7], [5, 0, 0], [-3, 0, 0]]], requires_grad=True)
    rays.of_points(points, ring(1, (32, 64), 30.0, (31.5, 15.5))).square().sum().backward()
    assert points.grad.isfinite().all() and points.grad[0, 2].abs().sum() > 0


@torch.no_grad()
def test_bev_cells_and_queries_share_an_embedding_of_where_they_are():
    torch.manual_seed(0)
    embedding = BEVEmbedding(4, 'linear').eval()
    places = cell_fractions((2, 3))
    assert places.tolist() == [[pytest.approx((x + 0.5) / 3), (y + 0.5) / 2] for y in range(2) for x in range(3)]
    x, y = places[1].tolist()
    expected = [f(2 * math.pi * value / divisor) for value in (y, x) for divisor in (1.0, 1.5) for f in (math.sin, math.cos)]
    torch.testing.assert_close(embedding.sine(places[1]), torch.tensor(expected), atol=1e-6, rtol=0)
    kept = embedding.of_cells((2, 3))
    torch.testing.assert_close(kept[4], embedding(places[4]))
    assert embedding.of_cells((2, 3)) is kept and embedding.of_cells((3, 2)) is not kept
    before = embedding.of_cells((2, 3)).clone()
    embedding[0].weight.mul_(2)  # another set of weights is never answered from memory
    assert (embedding.of_cells((2, 3)) - before).abs().max() > 1e-3


# -- the head ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_branches_of_each_layer_use_its_own_weights():
    torch.manual_seed(0)
    heads, queries = LayerwiseHeads(8, 3, dict(a=2, b=5), 4, dict(b=-3.0)), torch.randn(3, 2, 6, 8)
    for part in heads.parameters():
        part.add_(torch.randn_like(part))
    found = heads(queries)
    for name, width in dict(a=2, b=5).items():
        first, norm, last = (heads[name][key] for key in '013')
        hidden = first(queries.permute(1, 0, 3, 2).flatten(1, 2)).unflatten(1, (3, 4))  # as grouped convolutions do it
        hidden = nn.functional.layer_norm(hidden.transpose(2, 3), (4,), eps=1e-6)
        hidden = hidden * norm.weight.view(3, 1, 4) + norm.bias.view(3, 1, 4)
        expected = last(hidden.relu().transpose(2, 3).flatten(1, 2)).unflatten(1, (3, width)).permute(1, 0, 3, 2)
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(heads(queries[1:2], [1])[name], expected[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('quirk', QUIRKS)
def test_every_quirk_changes_what_is_found(quirk):
    ours, published = build(), build(published_quirks=(quirk,))
    seen = features(cameras=5, cut=16)
    if quirk == 'box_order':
        orders = [head.code.order for head in (ours, published)]
        assert orders == ['x y z l w h', 'x y l w z h']
        with torch.no_grad():
            boxes = [head.code.decode(head(seen, Readout(), None).codes[-1]) for head in (ours, published)]
        assert (boxes[0] - boxes[1]).abs().amax() > 0.1
    else:
        assert (answer(ours, seen) - answer(published, seen)).abs().amax() > 1e-4


def test_a_hidden_sensor_is_as_good_as_none():
    """Training that hides a sensor shows what a frame without it does."""
    head, seen = build(masked_modal=dict(cameras=1.0, lidar=0.0)), features()
    for module in head.modules():
        module.training = isinstance(module, type(head))  # nothing random, statistics as in testing
    blind = replace(seen, calibration=seen.calibration.without_cameras())
    torch.testing.assert_close(answer(head, seen), answer(head.eval(), blind), atol=1e-5, rtol=0)
    head.masked_modal, head.training = MaskedModal(0.0, 1.0), True
    deaf = replace(seen, observed=torch.zeros_like(seen.observed))
    torch.testing.assert_close(answer(head, seen), answer(head.eval(), deaf), atol=1e-5, rtol=0)
    other = replace(deaf, bev=deaf.bev + 1)
    assert torch.equal(answer(head, deaf), answer(head, other))  # masked, not zeroed


def test_a_sensor_is_hidden_as_often_as_asked_and_never_the_only_one():
    torch.manual_seed(0)
    yes = torch.ones(4000, dtype=torch.bool)
    cameras, lidar = MaskedModal(0.25, 0.1).draw(yes, yes)
    assert abs((~cameras).float().mean() - 0.25) < 0.03 and abs((~lidar).float().mean() - 0.1) < 0.02
    assert (cameras | lidar).all()
    cameras, lidar = MaskedModal(0.5, 0.5).draw(yes, ~yes)
    assert cameras.all() and not lidar.any()
    cameras, _ = MaskedModal(0.5, 0.5, 'batch').draw(yes, yes)
    assert len(set(cameras.tolist())) == 1


def test_frames_see_no_other_frames_and_no_padding():
    head, seen = build(), features(cut=16)
    together = answer(head, seen)
    for frame in range(2):
        torch.testing.assert_close(answer(head, seen.take([frame]))[0], together[frame], atol=1e-5, rtol=0)
    padded = seen.levels[0].clone()
    padded[..., 6:] += 1
    assert torch.equal(answer(head, replace(seen, levels=(padded,))), together)


def test_testing_without_gradient_reads_the_last_layer_alone():
    head, seen = build(), features()
    found = head(seen, Readout(), None)
    assert found.logits.shape == (2, 2, 12, 3)
    torch.testing.assert_close(answer(head, seen), torch.cat([found.logits[-1], found.codes[-1]], -1), atol=1e-6, rtol=0)
    with torch.no_grad():
        assert head(seen, Readout(), None).logits.shape[0] == 1


def test_nothing_waits_for_the_device_and_a_rig_that_stays_is_embedded_once():
    head, seen = build(masked_modal=dict()), features()
    made, embed = [], head.rv_embedding.forward
    head.rv_embedding.forward = lambda *rays: made.append(len(rays)) or embed(*rays)
    step = torch.eye(4).repeat(2, 1, 1)
    for waits, embedded, moved_m in ((0, 1, 0.0), (2, 1, 0.0), (2, 2, 1.0)):  # it waits to know whether the rig is the same
        step[:, 0, 3] = moved_m
        rig = seen.calibration.moved(step)
        rig.views()  # made where the frames are loaded
        with counting() as counts:
            found = answer(head, replace(seen, calibration=rig))
        assert counts.total <= waits and len(made) == embedded, counts
    head.forget_rig()
    torch.testing.assert_close(found, answer(head, replace(seen, calibration=rig)), atol=1e-6, rtol=0)
    with counting() as counts:
        head.train()(replace(seen, calibration=rig), Readout(), None)
    assert counts.total == 0, counts


@pytest.mark.parametrize(('changes', 'word'), [
    (dict(inputs=dict()), 'img_channels, bev_channels or both'),
    (dict(inputs=dict(img_channels=8), masked_modal=dict()), 'only img_channels'),
    (dict(masked_modal=dict(cameras=0.7, lidar=0.7)), 'add up to at most 1'),
    (dict(masked_modal=dict(per='frame')), 'per must be one of'),
    (dict(inputs=dict(img_channels=8, num_depths=1)), 'num_depths'),
    (dict(inputs=dict(img_channels=8, ladder='log')), 'inputs.ladder'),
    (dict(published_quirks=('corners',)), 'corners')])
def test_settings_that_do_not_fit_are_named(changes, word):
    with pytest.raises(ValueError, match=word):
        build(**changes)


def test_features_that_do_not_fit_are_named():
    seen = features()
    with pytest.raises(ValueError, match='inputs.level=3, but img_neck gives 1'):
        answer(build(inputs=dict(img_channels=8, level=3)), seen)
    with pytest.raises(ValueError, match='img_channels=4, but level 0 has 8'):
        answer(build(inputs=dict(img_channels=4)), seen)
    with pytest.raises(ValueError, match='the frames have no images'):
        answer(build(), SceneFeatures(seen.bev))
