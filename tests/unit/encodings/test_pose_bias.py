"""Pose-ALiBi as a table and factored, PETR's frustum on keys: by hand, against slow forms, in an attention module."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pose_scenes import HEADS, D, draw, heads, poses, views

from projects.encodings import Views, attention, build_encoding
from projects.encodings.alibi import angles_between
from projects.encodings.depths import make_depths
from projects.encodings.frustum import frustum_points, inverse_sigmoid, normalised
from projects.encodings.multihead import CrossAttention, MultiheadAttention
from projects.encodings.view_sources import camera_views, unposed_views
from projects.encodings.views import join_views
from projects.memfusion.structures import Calibration

FORMS = ('table', 'factored')


def relations(seen_q, seen_k):
    """(B, tokens, tokens) angle and squared distance of every pair of posed tokens, one by one."""
    seen_q, seen_k = seen_q.as_tokens(), seen_k.as_tokens()
    shape = (len(seen_q.cam_from_world), seen_q.count, seen_k.count)
    angle, square = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for b in range(shape[0]):
        for i, one in enumerate(seen_q.cam_from_world[b]):
            for j, other in enumerate(seen_k.cam_from_world[b]):
                relative = one @ torch.linalg.inv(other)
                angle[b, i, j] = math.acos(min(max(((relative[:3, :3].trace() - 1) / 2).item(), -1.0), 1.0))
                square[b, i, j] = (torch.linalg.inv(one) - torch.linalg.inv(other))[:3, 3].square().sum()
    return angle, square


def bias_of(form, seen_q, seen_k, rotation=1.0, distance=1.0, scale=1 / 25):
    angle, square = relations(seen_q, seen_k)
    loss = rotation * angle / math.pi + distance * scale * square.sqrt() if form == 'table' else (
        rotation * (1 - angle.cos()) + distance * scale ** 2 * square)
    return -torch.tensor([1 / 16, 1 / 256], dtype=torch.float64)[:, None, None] * loss[:, None]  # 2 ** (-8 h / 2)


@pytest.mark.parametrize('form', FORMS)
def test_a_quarter_turn_and_five_metres(form):
    pose = torch.eye(4, dtype=torch.float64).repeat(1, 2, 1, 1)
    pose[0, 1] = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    pose[0, 1, :3, 3] = torch.tensor([3.0, 4.0, 0.0])
    q, k, v = heads(1, 2)
    lost = 0.5 + 5 / 25 if form == 'table' else 1 + 1 / 25
    bias = -torch.tensor([1 / 16, 1 / 256])[:, None, None] * torch.tensor([[0.0, lost], [lost, 0.0]]).double()
    found = attention(q, k, v, build_encoding(dict(type='PoseALiBi', form=form)), Views(pose))
    assert torch.allclose(found, F.scaled_dot_product_attention(q, k, v, bias[None]), atol=1e-12)


@pytest.mark.parametrize('form', FORMS)
def test_every_pair_of_tokens_and_a_mask(form):
    encoding = build_encoding(dict(type='PoseALiBi', form=form, rotation=2.0, distance=30.0))
    q, (_, k, v) = heads()[0], heads(tokens=24, seed=5)
    seen, seen_k, mask = views(), views(count=4, seed=7), draw(2, 1, 18, 24) > -1
    bias = bias_of(form, seen, seen_k, 2.0, 30.0)
    expected = F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~mask, -torch.inf))
    for one, other in ((seen, seen_k), (seen.as_tokens(), seen_k), (seen, join_views(seen_k))):
        assert torch.allclose(attention(q, k, v, encoding, one, other, mask), expected, atol=1e-10)
    lower = torch.ones(18, 24, dtype=torch.bool).tril()
    causal = F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~lower, -torch.inf))
    assert torch.allclose(attention(q, k, v, encoding, seen, seen_k, is_causal=True), causal, atol=1e-10)


def test_the_factors_are_the_formula():
    """Their products alone, cameras that are not far apart: to the last digits."""
    encoding = build_encoding(dict(type='PoseALiBi', form='factored', trans_scale=1.0))
    seen = replace(views(), cam_from_world=poses(2, 3, shift=0.3))
    bound, zero = encoding.bind(seen, None, HEADS, D, encoding.frame(seen)), torch.zeros(2, HEADS, 18, D, dtype=torch.float64)
    few = encoding.bind(seen, None, HEADS, D)  # a channel for each of three cameras
    products, same = (one.queries(zero) @ one.keys(zero).transpose(-1, -2) / D ** 0.5 for one in (bound, few))
    assert (products - same).abs().max() < 4e-15 and few.keys(zero).shape[-1] == few.values(zero).shape[-1] == 40
    relative = torch.einsum('bipr,bjrs->bijps', seen.cam_from_world, torch.linalg.inv(seen.cam_from_world))[..., :3, :3]
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    centers = torch.linalg.inv(seen.cam_from_world)[..., :3, 3]
    loss = (1 - cosine) + (centers[:, :, None] - centers[:, None]).square().sum(-1)
    expected = -torch.tensor([1 / 16, 1 / 256]).double()[:, None, None] * loss[:, None]
    assert (products.unflatten(2, (3, 6)).unflatten(4, (3, 6))[:, :, :, 0, :, 0] - expected).abs().max() < 4e-15
    assert bound.keys(zero).shape[-1] == bound.values(zero).shape[-1] == 48 and bound.outputs(bound.values(zero)).shape[-1] == D


def test_small_angles_are_not_lost():
    angle = 10.0 ** -torch.arange(1.0, 9.0, dtype=torch.float64)
    turned = torch.linalg.matrix_exp(torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]]).double() * angle[:, None, None])
    found = angles_between(turned[None], torch.eye(3, dtype=torch.float64)[None, None])
    assert torch.allclose(found[0, :, 0], angle, rtol=1e-7, atol=0)
    half = torch.diag(torch.tensor([-1.0, -1, 1])).double()[None, None]
    assert torch.allclose(angles_between(half, torch.eye(3).double()[None, None]), torch.tensor(math.pi).double())


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('norm', ['fixed', 'max', 'learned'])
def test_the_world_frame_is_anyones(form, norm):
    """Turned, moved by 1000 m, mirrored; text between cameras loses nothing."""
    encoding = build_encoding(dict(type='PoseALiBi', form=form, trans_norm=norm))
    seen, frame = join_views(views(), unposed_views(2, 2, time=torch.zeros(1, 2))), poses(1, 1, 9, shift=600.0)
    parts = heads(tokens=20)
    plain = attention(*parts, encoding, seen)
    for matrix in (frame, frame @ torch.diag(torch.tensor([1.0, -1, 1, 1])).double()):
        assert torch.allclose(attention(*parts, encoding, replace(seen, cam_from_world=seen.cam_from_world @ matrix)), plain,
                              atol=1e-9)
    scale = encoding.frame(seen).scale.detach().reshape(-1, 1, 1, 1)
    bias = F.pad(bias_of(form, views(), views(), scale=1.0 if norm == 'max' else 1 / 25), (0, 2, 0, 2))
    if norm != 'max':
        assert torch.allclose(plain, F.scaled_dot_product_attention(*parts, bias), atol=1e-10) and scale.unique().numel() == 1
    text = unposed_views(2, 20)
    assert torch.allclose(attention(*parts, encoding, text), F.scaled_dot_product_attention(*parts), atol=1e-12)


@pytest.mark.parametrize('form', FORMS)
def test_it_drops_into_the_module_and_keys_can_be_kept(form):
    module, encoding = MultiheadAttention(HEADS * D, HEADS).double().eval(), build_encoding(dict(type='PoseALiBi', form=form))
    tokens, seen = draw(2, 18, HEADS * D), views()
    bound = encoding.bind(seen, None, HEADS, D)
    bias = bias_of(form, seen, seen)
    expected = module(tokens, tokens, bias=bias)
    assert torch.allclose(module(tokens, tokens, encoding=bound), expected, atol=1e-10)
    kept = module.project(tokens, tokens, bound)
    assert torch.allclose(module(tokens, kept, encoding=bound.with_queries(seen.as_tokens())), expected, atol=1e-10)
    assert torch.allclose(module(tokens, tokens, bias=bias, encoding=bound), module(tokens, tokens, bias=2 * bias), atol=1e-10)
    assert torch.allclose(module.weights(tokens, tokens, encoding=bound), bound_weights(module, tokens, bias), atol=1e-6)


def bound_weights(module, tokens, bias):
    q, k, _ = (part.unflatten(-1, (HEADS, D)).transpose(1, 2) for part in F.linear(
        tokens, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1))
    return (q @ k.transpose(-1, -2) / D ** 0.5 + bias).softmax(-1).float()


@pytest.mark.parametrize('form', FORMS)
def test_a_scale_can_learn_where_cameras_coincide(form):
    encoding = build_encoding(dict(type='PoseALiBi', form=form, trans_norm='learned'))
    seen, parts = views(1, 2, grid=(1, 2)), [part.requires_grad_() for part in heads(1, 4)]
    assert torch.autograd.gradcheck(lambda *given: attention(*given[:3], encoding, seen), (*parts, *encoding.parameters()),
                                    fast_mode=True)


def rig():
    pose = torch.tensor([[0.0, -1, 0, 0.2], [0, 0, -1, 1.5], [1, 0, 0, 0.5], [0, 0, 0, 1]])
    k = torch.tensor([[30.0, 0, 31.0], [0, 28.0, 17.0], [0, 0, 1]])
    return Calibration.from_matrices(k[None, None], pose[None, None], torch.tensor([[[40, 64]]]))


def test_keys_know_the_points_they_may_show():
    around, depths = (-40.0, -40.0, -5.0, 40.0, 40.0, 3.0), dict(kind='linear', num=4, start_m=1.0, end_m=41.0)
    encoding = build_encoding(dict(type='FrustumPE', dim=HEADS * D, around=around, depths=depths, hidden=8))
    (q, k, v), seen = heads(1, 6, dtype=torch.float32), camera_views(rig().views(), (2, 3))
    points = frustum_points(rig().views(), (2, 3), make_depths('linear', 4, 1.0, 41.0)).flatten(2, 3)
    assert torch.allclose(encoding.points(seen).float(), points, atol=1e-4)
    added = encoding.encode(inverse_sigmoid(normalised(points, around)))[:, 0].unflatten(-1, (HEADS, D)).transpose(1, 2)
    expected = F.scaled_dot_product_attention(q, k + added, v)
    assert torch.allclose(attention(q, k, v, encoding, seen), expected, atol=1e-5)
    assert torch.allclose(attention(q, k, v, encoding, unposed_views(1, 6), join_views(seen)), expected, atol=1e-5)
    moved = replace(seen, cam_from_world=seen.cam_from_world @ poses(1, 1))
    assert (attention(q, k, v, encoding, moved) - expected).abs().max() > 1e-4  # it is absolute
    text = replace(join_views(seen), posed=torch.zeros(1, 6, dtype=torch.bool))
    assert torch.allclose(attention(q, k, v, encoding, text), F.scaled_dot_product_attention(q, k, v), atol=1e-6)


@pytest.mark.parametrize('cfg, message', [
    (dict(type='PoseALiBi', form='dense'), 'encoding.form must be one of table, factored'),
    (dict(type='PoseALiBi', rotation=-1.0), 'must not be negative'),
    (dict(type='PoseALiBi', trans_norm='mean'), 'trans_norm must be one of'),
    (dict(type='FrustumPE', dim=64, around=(1, 2, 3)), 'encoding.around must be'),
    (dict(type='FrustumPE', dim=64, depths=dict(num=0)), 'depths'),
])
def test_configs_that_cannot_be(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_encoding(cfg)


def test_views_and_heads_that_do_not_fit():
    encoding, (q, k, v) = build_encoding(dict(type='FrustumPE', dim=HEADS * D, hidden=8)), heads()
    with pytest.raises(ValueError, match='encoding.dim=64, but the attention has 3 heads of 32'):
        encoding.check(3, 32)
    with pytest.raises(ValueError, match='views of the keys need img_from_cam'):
        attention(q, k, v, encoding, views(), views(img_from_cam=None, image_hw=None))
    seen = views(1, 18)
    with pytest.raises(ValueError, match='how many rows and columns'):
        attention(q, k, v, encoding, Views(seen.cam_from_world, seen.img_from_cam, seen.image_hw, torch.zeros(1, 18, 2),
                                           per='token'))
    for form in FORMS:
        with pytest.raises(ValueError, match='18 tokens, but their views are of 4 cameras'):
            attention(q, k, v, build_encoding(dict(type='PoseALiBi', form=form)), views(), views(count=4))


@pytest.mark.parametrize('form', FORMS)
def test_token_attention_of_the_fusions_takes_it(form):
    module, encoding = CrossAttention(HEADS * D, HEADS).double(), build_encoding(dict(type='PoseALiBi', form=form))
    seen, tokens, valid = views(), draw(2, 18, HEADS * D), draw(2, 18) > -1
    bound = encoding.bind(seen, seen, HEADS, D)
    q, k, v = (layer(tokens).unflatten(-1, (HEADS, D)).transpose(1, 2) for layer in (module.query, module.key, module.value))
    mask = bias_of(form, seen, seen).masked_fill(~valid[:, None, None], -torch.inf)
    expected = module.output(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
    assert torch.allclose(module(tokens, tokens, valid, encoding=bound), expected, atol=1e-10)
