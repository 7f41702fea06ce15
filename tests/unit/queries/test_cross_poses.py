"""Pose encodings in the query decoders: poses follow the boxes layer by layer; another world, an undone augmentation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import MODELS
from sync_counts import counting

from projects.benchmarks.ring import ring
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries import cross_poses
from projects.memfusion.queries.boxes import BoxCode
from projects.memfusion.queries.cross_poses import CrossPoses, QueryPoses, key_views
from projects.memfusion.queries.decoder import DecoderLayer, Tokens
from projects.memfusion.structures import Calibration, History, PastFrame, Readout, SceneFeatures, TokenPlaces

RANGE = (-20.0, -20.0, -5.0, 20.0, 20.0, 3.0)
POSED = dict(type='PRoPE', layout='P1/2 I1/2')
SMALL = dict(dim=16, num_layers=3, num_heads=2, ffn_dim=16, dropout=0.0)
HEADS = dict(
    PETRv2=dict(num_queries=7, bev=dict(in_channels=6), transformer=SMALL, images=dict(
        channels=8, depths=dict(num=3), position_range=(-24, -24, -10, 24, 24, 10))),
    CMTHead=dict(inputs=dict(img_channels=8, bev_channels=6, num_depths=3),
                 transformer=dict(SMALL, num_queries=7, branch_dim=8)),
    StreamPETR=dict(queries=dict(num_learned=7, num_propagated=0), bev_tokens=dict(in_channels=6), transformer=SMALL,
                    image_tokens=dict(in_channels=8, num_depths=3)))


def build(kind, encoding=POSED):
    """Reproducible, in eval mode, no weight is 0."""
    torch.manual_seed(0)
    cfg = HEADS[kind]
    cfg = dict(cfg, type=kind, num_classes=3, point_cloud_range=RANGE, transformer=dict(cfg['transformer'], encoding=encoding))
    head = MODELS.build(cfg).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return head


def rigs(frames=2, turn=0.0):
    made = Calibration.cat([ring(3, (32, 64), 30.0, (31.5, 15.5), 0.1 * frame + turn) for frame in range(frames)])
    return replace(made, padded_hw=(32, 64))


def scene(now=None):
    """Two frames of three cameras and a BEV; for PETRv2 a frame before."""
    generator = torch.Generator().manual_seed(1)
    levels = torch.randn(2, 2, 3, 8, 2, 4, generator=generator)
    then = PastFrame((levels[1],), rigs(turn=0.3), torch.full((2,), 0.5, dtype=torch.float64), (True, True))
    features = SceneFeatures(torch.randn(2, 6, 4, 5, generator=generator), (levels[0],), now or rigs())
    return features, Readout(past=History.of_step([then]))


@torch.no_grad()
def run(head, features, readout):
    """Outputs, and what the decoder gave (L, B, Q, E)."""
    kept = []
    handle = head.decoder.register_forward_hook(lambda module, given, out: kept.append(out))
    outputs = head(features, readout, None)
    handle.remove()
    return outputs, kept[0]


def far_world():
    """(4, 4) float64: a kilometre off and turned about a skew axis."""
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = turn, torch.tensor([800.0, -500.0, 331.66])
    return matrix


def moved(views, world):
    return replace(views, cam_from_world=views.cam_from_world @ torch.linalg.inv(world))


@pytest.fixture
def elsewhere(monkeypatch):
    """elsewhere(): queries and tokens are told in another world frame from now on."""
    def change():
        for name in ('query_views', 'camera_views'):
            make = getattr(cross_poses, name)
            monkeypatch.setattr(cross_poses, name, lambda *args, make=make: moved(make(*args), far_world()))
    return change


@pytest.mark.parametrize('kind', HEADS)
def test_a_head_does_not_depend_on_the_world_frame(kind, elsewhere):
    head = build(kind)
    _, here = run(head, *scene())
    elsewhere()
    _, there = run(head, *scene())
    assert (there - here).abs().max() < 2e-6 * here.abs().max()
    _, plain = run(build(kind, None), *scene())
    assert (plain - here).abs().max() > 1e-2, 'poses have a say'


@torch.no_grad()
def test_a_decoder_layer_in_float64(elsewhere):
    torch.manual_seed(0)
    layer, poses = DecoderLayer(16, 2, 16, 0.0).double(), CrossPoses(POSED, 1, 16, 2)
    places = (TokenPlaces((3, 2, 4)), TokenPlaces((2, 2)))
    references = torch.rand(2, 5, 3, dtype=torch.float64) * 30 - 15
    queries, tokens = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(2, 28, 16, dtype=torch.float64)

    def read():
        keys = key_views(places, [rigs()], [torch.zeros(2)], RANGE, references)
        bound = poses(0, QueryPoses(keys, references, None), None, None)
        return layer(queries, queries, Tokens(tokens, tokens), encoding=bound)

    here = read()
    elsewhere()
    assert (read() - here).abs().max() < 1e-11


@pytest.mark.parametrize('kind', HEADS)
def test_an_augmentation_undone_in_the_metadata_changes_nothing(kind):
    aug = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    aug[:3] *= 0.5  # exact in float32
    plain = replace(rigs(), bev_aug=aug.expand(2, 4, 4).float())
    told = replace(rigs(), cam_from_lidar=(rigs().cam_from_lidar.double() @ torch.linalg.inv(aug)).float())
    head = build(kind)
    (_, one), (_, other), (_, without) = (run(head, *scene(rig)) for rig in (plain, told, None))
    assert (one - other).abs().max() < 2e-6 * one.abs().max() and (one - without).abs().max() > 1e-3


@pytest.mark.parametrize('kind', HEADS)
def test_poses_are_those_of_the_boxes_of_the_layer_before(kind):
    head, bound = build(kind), []
    handle = head.decoder.cross_poses.register_forward_hook(lambda module, given, out: bound.append(out))
    with torch.enable_grad():  # so that CMT says every layer's boxes
        outputs = head(*scene(), None)
    handle.remove()
    boxes = head.code.decode(outputs.codes.detach()).double()  # bottom centres
    first = bound[0].side_q.views.cam_from_world
    assert torch.equal(first[..., :3, :3], torch.eye(3, dtype=torch.float64).expand_as(first[..., :3, :3]))
    assert len(bound) == 3
    for layer in (1, 2):
        pose, (x, y, z, *_, height, yaw) = bound[layer].side_q.views.cam_from_world, boxes[layer - 1][..., :7].unbind(-1)
        centre = torch.stack([x, y, z + height / 2, torch.ones_like(x)], dim=-1)
        ahead = centre + torch.stack([yaw.cos(), yaw.sin(), 0 * yaw, 0 * yaw], dim=-1)
        at, toward = ((pose @ point[..., None])[..., 0] for point in (centre, ahead))
        assert (at - torch.tensor([0.0, 0, 0, 1])).abs().max() < 1e-4  # it sees itself at its own origin, and ahead along x
        assert (toward - torch.tensor([1.0, 0, 0, 1])).abs().max() < 1e-4
        assert (pose - bound[layer - 1].side_q.views.cam_from_world).abs().max() > 1e-3


def test_old_headings_are_turned():
    code = torch.tensor([[1.0, 2, 3, 0, 0, 0, 0.6, 0.8, 0, 0]])
    centres, yaw = BoxCode(heading='mmdet3d-0.x').poses(code)
    assert centres.tolist() == [[1.0, 2.0, 3.0]]
    assert torch.allclose(yaw, -torch.atan2(code[:, 6], code[:, 7]) - torch.pi / 2)


def test_gradients_reach_what_learns_and_weights_are_those_of_the_plain_decoder():
    learned = dict(type='GTA', layout='P1/2 I1/2')
    plain, posed = build('CMTHead', None), build('CMTHead', learned)
    more = posed.state_dict().keys() - plain.state_dict().keys()
    assert more == {f'decoder.cross_poses.encodings.{layer}.trans_scale' for layer in range(3)}
    assert plain.state_dict().keys() == build('CMTHead').state_dict().keys()
    posed.decoder.with_cp = True
    posed.train()
    outputs = posed(*scene(), None)
    (outputs.logits.square().sum() + outputs.codes.square().sum()).backward()
    assert all(encoding.trans_scale.grad.abs() > 0 for encoding in posed.decoder.cross_poses.encodings)


@pytest.mark.parametrize('kind', HEADS)
def test_half_precision_features_keep_exact_poses(kind):
    head = build(kind)
    features, readout = scene()
    _, exact = run(head, features, readout)
    with torch.autocast('cpu', torch.bfloat16):
        _, rough = run(head, features, readout)
    assert (rough.float() - exact).abs().mean() < 2e-2


@pytest.mark.parametrize('kind', HEADS)
def test_nothing_more_waits_for_the_device(kind):
    waits = []
    for encoding in (None, POSED):
        head, given = build(kind, encoding), scene()
        run(head, *given)
        with counting() as counts:
            run(head, *given)
        waits.append(counts.total)
    assert waits[0] == waits[1], counts


def test_wrong_settings_are_told():
    for encoding, said in ((dict(type='PRoPE', layout='P6 I2'), 'divide by 4'), (dict(type='prope'), "'prope'")):
        with pytest.raises(ValueError, match=said):
            build('PETRv2', encoding)
