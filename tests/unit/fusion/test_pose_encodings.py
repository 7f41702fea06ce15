"""Pose encodings in FuTr++: another world frame, an undone augmentation, a slow oracle; what a wrong config is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sync_counts import counting

from projects.encodings import attention, build_encoding
from projects.memfusion.fusion import cell_attention, petrv2_fusion, token_attention
from projects.memfusion.fusion.cell_attention import CellSelfAttention
from projects.memfusion.fusion.fusion_state import CameraTokens, FusionState
from projects.memfusion.fusion.token_attention import CameraAttention, TokenAttention
from projects.memfusion.fusion.token_poses import cell_views, token_views
from projects.memfusion.structures import Calibration

from .conftest import RANGE, build, camera, inputs, randomise, ring

AMONG, ACROSS = dict(type='PRoPE'), dict(type='PRoPE', layout='P1/2 I1/2')
ENCODINGS = {
    'PRoPE': (AMONG, ACROSS),
    'GTA': (dict(type='GTA'), dict(type='GTA', layout='P1/2 I1/2')),
    'CaPE6': (dict(type='CaPE6'), dict(type='CaPE6', convention='eschernet')),
    'THW+P': (dict(type='THW+P', layout='P4 T2 H2', values=True), dict(type='THW+P', layout='P4 I4', intrinsics=True)),
}


def encoded(among=AMONG, across=ACROSS, **stages):
    """FuTr++ whose three attentions know poses; heads of 8 channels."""
    return build(**{**dict(
        tokens=dict(grid=(2, 3), dim=16, self_attn=dict(num_heads=2, encoding=among)), geometry=dict(kind='none'),
        sample=dict(kind='tokens', num_heads=2, self_attn=dict(encoding=among), encoding=across)), **stages})


def far_world(scale=1.0, mirror=False):
    """(4, 4) float64: another world from this one, a kilometre off and turned about a skew axis."""
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    if (torch.linalg.det(turn) < 0) != mirror:
        turn[:, 0] *= -1
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = scale * turn, torch.tensor([800.0, -500.0, 331.66])
    return matrix


def moved(views, other_from_world):
    return replace(views, cam_from_world=views.cam_from_world @ torch.linalg.inv(other_from_world))


@pytest.fixture
def in_world(monkeypatch):
    """in_world(matrix): all poses of FuTr++ are told in another world frame."""
    from projects.memfusion.fusion import futr_plus_plus

    def change(other_from_world):
        for module, name, make in ((futr_plus_plus, 'token_views', token_views), (token_attention, 'cell_views', cell_views),
                                   (cell_attention, 'cell_views', cell_views)):
            monkeypatch.setattr(module, name, lambda *args, make=make: moved(make(*args), other_from_world))
    return change


@pytest.mark.parametrize('name', ENCODINGS)
@torch.no_grad()
def test_the_layer_does_not_depend_on_the_world_frame(name, in_world):
    calibration = ring(4, missing={1: [2]}, mixed=True)
    bev, feats = inputs(calibration)
    layer = encoded(*ENCODINGS[name])
    here = layer(bev, feats, calibration)
    in_world(far_world(mirror=name == 'GTA'))
    there = layer(bev, feats, calibration)
    assert (here - bev).abs().max() > 0.05
    assert (there - here).abs().max() < 2e-6 * here.abs().max()


@torch.no_grad()
def test_each_attention_in_float64():
    calibration, world = ring(3), far_world(1.1)  # a scale too: the true inverse is taken
    views, cells = token_views(calibration, (2, 3), 8), torch.rand(2, 5, 2, dtype=torch.float64) * 30 - 15
    valid = torch.ones(2, 3, 6, dtype=torch.bool)
    tokens = CameraTokens(torch.randn(2, 3, 6, 16, dtype=torch.float64), torch.zeros(2, 3, 6, 2), valid, views)
    far = replace(tokens, views=moved(views, world))
    among = randomise(CameraAttention(16, 2, AMONG)).double()
    assert (among(far).features - among(tokens).features).abs().max() < 1e-11
    query, state = torch.randn(2, 5, 16, dtype=torch.float64), FusionState(
        torch.zeros(1), torch.zeros(1), [], tokens, calibration, torch.ones(2, 3))
    across, cell_to_cell = randomise(TokenAttention(16, 2, ACROSS, RANGE)).double(), randomise(
        CellSelfAttention(16, 2, RANGE, AMONG)).double()
    read, heard = across(query, cells, state).features, cell_to_cell(query, cells, (16, 16))
    with pytest.MonkeyPatch.context() as patch:
        for module in (token_attention, cell_attention):
            patch.setattr(module, 'cell_views', lambda *args: moved(cell_views(*args), world))
        assert (across(query, cells, replace(state, tokens=far)).features - read).abs().max() < 1e-11
        assert (cell_to_cell(query, cells, (16, 16)) - heard).abs().max() < 1e-11
        assert (across(query, cells, state).features - read).abs().max() > 1e-3, 'one side alone has moved'


@torch.no_grad()
def test_an_augmentation_undone_in_the_metadata_changes_nothing():
    aug = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    aug[:3] *= 0.5  # a turn, a mirror and a scale that are exact in float32
    plain = ring(3, bev_aug=aug.numpy())
    told = replace(ring(3), cam_from_lidar=(ring(3).cam_from_lidar.double() @ torch.linalg.inv(aug)).float())
    bev, feats = inputs(plain)
    layer = encoded()
    assert (layer(bev, feats, plain) - layer(bev, feats, told)).abs().max() < 2e-6
    assert (layer(bev, feats, plain) - layer(bev, feats, ring(3))).abs().max() > 1e-3


@torch.no_grad()
def test_token_reading_as_written_out_pair_by_pair():
    """One cell, one token: P_i P_j^-1 of every pair, cells and pinholes by hand."""
    calibration = ring(2, frames=1)
    views = token_views(calibration, (1, 2), 8)
    tokens = CameraTokens(torch.randn(1, 2, 2, 8), torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), views)
    layer = randomise(TokenAttention(8, 1, dict(type='PRoPE', layout='P1/1'), RANGE), 0.5).double()
    query, cells = torch.randn(1, 3, 8, dtype=torch.float64), torch.tensor([[[3.0, -5.0], [1.0, 1.0], [-9.0, 15.0]]])
    state = FusionState(torch.zeros(1), torch.zeros(1), [], replace(tokens, features=tokens.features.double()), calibration,
                        torch.ones(1, 2))
    attention, context = layer.attention, layer.norm(state.tokens.features[0].flatten(0, 1))
    unit = torch.diag(torch.tensor([1 / 25, 1 / 25, 1 / 25, 1.0], dtype=torch.float64))  # metres to lengths of about 1
    size = torch.tensor([32.0, 32.0, 6.0, 1.0], dtype=torch.float64)
    cell_from_world = []
    for x, y in cells[0].tolist():
        shift = torch.eye(4, dtype=torch.float64)
        shift[:2, 3] = torch.tensor([-x, -y])
        cell_from_world.append(torch.diag(1 / size) @ shift @ torch.linalg.inv(unit))
    cam_from_world = []
    for n in range(2):
        normal = torch.eye(4, dtype=torch.float64)
        normal[0, 0], normal[1, 1] = 48 / 96, 48 / 64  # the principal point is in the middle
        cam_from_world.append(normal @ unit @ calibration.views().cam_from_bev[0, n] @ torch.linalg.inv(unit))
    wanted = torch.zeros(3, 8, dtype=torch.float64)
    q, k, v = attention.query(query[0]), attention.key(context), attention.value(context)
    for i in range(3):
        pairs = [torch.kron(torch.eye(2), cell_from_world[i] @ torch.linalg.inv(cam_from_world[j // 2])) for j in range(4)]
        share = torch.stack([q[i] @ pairs[j] @ k[j] for j in range(4)]).div(math.sqrt(8)).softmax(0)
        wanted[i] = attention.output(sum(share[j] * (pairs[j] @ v[j]) for j in range(4)))
    assert (layer(query, cells, state).features[0] - wanted).abs().max() < 1e-10


@torch.no_grad()
def test_tokens_look_through_their_images_own_size():
    """Padding to a larger batch, and a resize with its K, change nothing."""
    small = Calibration.from_info(dict(A=camera(0.0, height=32, width=48, focal=24.0)))
    large = Calibration.from_info(dict(A=camera(0.0)))
    views = [token_views(one, (2, 3), 8) for one in (small, large, replace(large, padded_hw=(128, 128)))]
    for other in views[1:]:
        torch.testing.assert_close(other.lift(), views[0].lift(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_nothing_waits_for_the_device():
    calibration = ring(3)
    bev, feats = inputs(calibration)
    plain, layer = encoded(None, None), encoded()
    waits = []
    for one in (plain, layer):
        one(bev, feats, calibration)
        with counting() as counts:
            one(bev, feats, calibration)
        waits.append(counts.total)
    assert waits[0] == waits[1], counts


def test_without_an_encoding_weights_and_names_stay():
    plain, layer = encoded(None, None), encoded()
    assert plain.state_dict().keys() == layer.state_dict().keys()
    assert not [name for name in build(sample=dict(kind='tokens')).state_dict() if 'token_attn' in name]


@torch.no_grad()
@pytest.mark.parametrize('encoding', [dict(type='HW+P'), dict(type='PRoPE')], ids=lambda cfg: cfg['type'])
def test_coarse_cells_of_petrv2fusion_know_where_they_lie(encoding, monkeypatch):
    """The first layer's attention by the function on its own; another world frame changes nothing."""
    small, calibration = dict(layers=dict(num_heads=2)), ring(3)
    plain, layer = build('petr', **small), build('petr', **small, self_attention=dict(encoding=encoding))
    assert plain.state_dict().keys() == layer.state_dict().keys()
    bev, feats = inputs(calibration)
    query, position, cells_m = layer.queries(bev, 2)
    part, seen = layer.layers[0], cell_views(cells_m, RANGE, (8, 4))
    asks = query + position
    weight, bias = part.self_attention.in_proj_weight.chunk(3), part.self_attention.in_proj_bias.chunk(3)
    heads = [torch.nn.functional.linear(x, w, b).unflatten(-1, (2, 8)).transpose(1, 2)
             for x, w, b in zip((asks, asks, query), weight, bias)]
    mixed = attention(*heads, build_encoding(encoding), seen, seen).transpose(1, 2).flatten(2)
    found = []
    part.norms[0].register_forward_pre_hook(lambda module, given: found.append(given[0]))
    here = layer(bev, feats, calibration)
    torch.testing.assert_close(found[0], query + part.self_attention.out_proj(mixed), atol=1e-5, rtol=0)
    monkeypatch.setattr(petrv2_fusion, 'cell_views', lambda *args: moved(cell_views(*args), far_world()))
    assert (layer(bev, feats, calibration) - here).abs().max() < 2e-6 * here.abs().max()
    assert (plain(bev, feats, calibration) - here).abs().max() > 1e-3


def test_attention_among_tokens_starts_as_the_identity():
    layer = build(random_weights=False, tokens=dict(self_attn=dict(num_heads=2, encoding=AMONG)), sample=dict(kind='off'))
    calibration = ring(2)
    _, feats = inputs(calibration)
    tokens = layer.tokens(feats[0], calibration)
    after = layer.token_attn(replace(tokens, views=token_views(calibration, layer.tokens.grid, 8)))
    assert torch.equal(after.features, tokens.features)


@pytest.mark.parametrize(('stages', 'said'), [
    (dict(sample=dict(kind='deformable', encoding=ACROSS)), "encoding is of cells that attend to tokens.*'deformable'"),
    (dict(sample=dict(kind='tokens', num_heads=8, encoding=ACROSS)), 'P'),
    (dict(tokens=dict(self_attn=dict(encoding=dict(type='PROPE')))), "encoding.type must be one of.*'PROPE'"),
    (dict(sample=dict(kind='tokens', encoding=dict(type='CaPE6', speed=3))), "no setting.*speed"),
    (dict(kind='petr', self_attention=dict(encoding=dict(type='CaPE'))), "encoding.type must be one of.*'CaPE'"),
    (dict(kind='petr', layers=dict(num_heads=8), self_attention=dict(encoding=dict(type='CaPE6'))), 'P'),
    (dict(kind='bevformer', self_attention=dict(encoding=ACROSS)), "self_attention: no setting 'encoding'"),
])
def test_wrong_settings_are_told(stages, said):
    with pytest.raises(ValueError, match=said):
        build(**stages)
