"""Pose encodings against a slow oracle, plain attention, and what must not change them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pose_scenes import GRID, HEADS, IMAGE, ORACLES, D, cameras, draw, heads, oracle, poses, views

from projects.encodings import Views, attention, build_encoding
from projects.encodings.view_sources import unposed_views
from projects.encodings.views import join_views

POSED = ('PRoPE', 'GTA', 'CaPE6', 'HW+P', 'THW+P')


def apart(one, other):
    return float((one - other).detach().abs().max())


def moved(seen, matrix):
    """Seen from another world frame: cam_from_world world_from_other."""
    return replace(seen, cam_from_world=seen.cam_from_world @ matrix, validate=False)


def far(shift=1000.0, seed=9):
    return poses(1, 1, seed, shift=1.0) + F.pad(shift * F.normalize(draw(1, 1, 3, 1, seed=seed), dim=2), (3, 0, 0, 1))


@pytest.mark.parametrize('kind', ORACLES)
def test_every_pair_of_tokens(kind):
    encoding = build_encoding(dict(type=kind))
    (q, k, v), others = heads(), heads(tokens=24, seed=5)
    seen, seen_k = views(), views(count=4, seed=7)
    assert apart(attention(q, k, v, encoding, seen, seen), oracle(kind, q, k, v, seen, seen)) < 1e-10
    mask = draw(2, 1, 18, 24) > -1
    ours = attention(q, *others[1:], encoding, seen, seen_k, mask)
    assert apart(ours, oracle(kind, q, *others[1:], seen, seen_k, mask)) < 1e-10


def test_a_causal_mask_and_a_mask_together():
    encoding, seen = build_encoding(dict(type='PRoPE')), views()
    mask, lower = draw(18, 18) > -1, torch.ones(18, 18, dtype=torch.bool).tril()
    mask.fill_diagonal_(True)
    expected = oracle('PRoPE', *heads(), seen, seen, mask & lower)
    assert apart(attention(*heads(), encoding, seen, None, mask, is_causal=True), expected) < 1e-10
    assert apart(attention(*heads(), encoding, seen, is_causal=True), oracle('PRoPE', *heads(), seen, seen, lower)) < 1e-10


@pytest.mark.parametrize('kind', ['none', *ORACLES])
def test_no_pose_and_no_place_is_plain_attention(kind):
    seen = Views(torch.eye(4, dtype=torch.float64).expand(2, 18, 4, 4), grid=torch.zeros(1, 18, 4), per='token',
                 time=torch.zeros(1, 18))
    plain = F.scaled_dot_product_attention(*heads(dtype=torch.float32))
    assert apart(attention(*heads(dtype=torch.float32), build_encoding(dict(type=kind)), seen, seen), plain) < 1e-6


@pytest.mark.parametrize('kind', POSED)
def test_the_world_frame_is_anyones(kind):
    """A rotation and 1000 m; mirrored too. And scaled, as bird's-eye augmentation does, lengths scaled along."""
    encoding, seen, seen_k = build_encoding(dict(type=kind)), views(), views(count=4, seed=7)
    q, (_, k, v) = heads()[0], heads(tokens=24, seed=5)
    plain = attention(q, k, v, encoding, seen, seen_k)
    mirror = torch.diag(torch.tensor([1.0, -1, 1, 1], dtype=torch.float64))
    for matrix in (far(), far() @ mirror):
        assert apart(attention(q, k, v, encoding, moved(seen, matrix), moved(seen_k, matrix)), plain) < 1e-11
    single = build_encoding(dict(type=kind))
    in_single = attention(q.float(), k.float(), v.float(), single, moved(seen, far()), moved(seen_k, far()))
    assert apart(in_single, attention(q.float(), k.float(), v.float(), single, seen, seen_k)) < 2e-6


def test_a_scale_needs_the_true_inverse():
    seen, scaled = views(), torch.diag(torch.tensor([1.1, 1.1, 1.1, 1], dtype=torch.float64))
    settings = dict(type='PRoPE', reference='world')
    for quirks, holds in (([], True), (['rigid_inverse'], False)):
        encoding = build_encoding(dict(settings, published_quirks=quirks))
        difference = apart(attention(*heads(), encoding, moved(seen, scaled), None), attention(*heads(), encoding, seen, None))
        assert (difference < 1e-11) == holds, quirks


@pytest.mark.parametrize('kind', ORACLES)
def test_a_pose_of_every_token_and_cameras_in_another_order(kind):
    encoding, seen, order = build_encoding(dict(type=kind)), views(), [2, 0, 1]
    plain = attention(*heads(), encoding, seen, seen)
    assert apart(attention(*heads(), encoding, seen.as_tokens(), seen.as_tokens()), plain) < 1e-12
    assert apart(attention(*heads(), encoding, join_views(seen), seen), plain) < 1e-12
    shuffled = Views(seen.cam_from_world[:, order], seen.img_from_cam[:, order], IMAGE, GRID, seen.time[:, order])
    mixed = [part.unflatten(2, (3, 6))[:, :, order].flatten(2, 3) for part in heads()]
    found = attention(*mixed, encoding, shuffled, shuffled)
    assert apart(found, plain.unflatten(2, (3, 6))[:, :, order].flatten(2, 3)) < 1e-12


@pytest.mark.parametrize('kind', POSED)
def test_one_token_per_camera(kind):
    encoding, seen = build_encoding(dict(type=kind)), views(count=5, grid=(1, 1))
    parts = heads(tokens=5)
    assert apart(attention(*parts, encoding, seen, seen), oracle(kind, *parts, seen, seen)) < 1e-10


def test_what_happens_to_an_image():
    """P shows where a point lies in the image, from -1/2 to 1/2: nothing but resizing leaves that as it is."""
    pose, matrix = poses(1, 1), cameras(1, 1)
    encoding = build_encoding(dict(type='PRoPE', reference='world', trans_scale=1.0))
    point = torch.linalg.inv(pose[0, 0]) @ torch.tensor([0.3, -0.2, 4.0, 1.0], dtype=torch.float64)

    def shown(homography, hw):
        seen = Views(pose, torch.tensor(homography, dtype=torch.float64) @ matrix, hw, (1, 1))
        u, v, depth, _ = encoding.bind(seen, None, HEADS, D).side_q.pose[0, 0] @ point
        return torch.stack([u, v]) / depth

    height, width = IMAGE
    u, v, depth = (matrix[0, 0] @ torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)).tolist()
    u, v = u / depth, v / depth
    for homography, hw, place in [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], IMAGE, (u, v)),
        ([[0.5, 0, 0], [0, 0.25, 0], [0, 0, 1]], (height // 4, width // 2), (u / 2, v / 4)),  # resized
        ([[1, 0, -10], [0, 1, -4], [0, 0, 1]], (height - 4, width - 10), (u - 10, v - 4)),  # cropped
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (height + 8, width), (u, v)),  # padded below
        ([[-1, 0, width], [0, 1, 0], [0, 0, 1]], IMAGE, (width - u, v)),  # flipped
        ([[0, 1, 0], [-1, 0, width], [0, 0, 1]], (width, height), (v, width - u)),  # turned by 90 degrees
    ]:
        expected = torch.tensor([place[0] / hw[1] - 0.5, place[1] / hw[0] - 0.5], dtype=torch.float64)
        assert torch.allclose(shown(homography, hw), expected, atol=1e-12), homography


def test_the_reference_matters_to_tokens_without_a_pose_alone():
    first, other = (build_encoding(dict(type='PRoPE', reference=name)) for name in ('first', 'world'))
    seen = views()
    assert apart(attention(*heads(), first, seen, None), attention(*heads(), other, seen, None)) < 1e-11
    with_text = join_views(unposed_views(2, 4, time=torch.zeros(1, 4)), seen)
    parts = heads(tokens=22)
    assert apart(attention(*parts, first, with_text, None), attention(*parts, other, with_text, None)) > 1e-3
    frame = far()
    assert apart(attention(*parts, first, with_text, None), attention(*parts, first, moved(with_text, frame), None)) < 1e-11
    at_reference = replace(with_text, posed=torch.ones(1, 22, dtype=torch.bool), cam_from_world=torch.cat(
        [seen.cam_from_world[:, :1].expand(-1, 4, -1, -1), with_text.cam_from_world[:, 4:]], dim=1))
    assert apart(attention(*parts, first, with_text, None), attention(*parts, first, at_reference, None)) < 1e-11


def test_text_alone_is_plain_attention():
    text = unposed_views(2, 18)
    found = attention(*heads(), build_encoding(dict(type='CaPE6')), text)
    assert apart(found, F.scaled_dot_product_attention(*heads())) < 1e-12


@pytest.mark.parametrize('norm', ['fixed', 'median', 'max', 'learned'])
def test_lengths_are_scaled(norm):
    """By 1/25; so that cameras are about 1 apart, whatever the unit of length; or by a number that learns."""
    encoding, seen = build_encoding(dict(type='CaPE6', trans_norm=norm)), views()
    frame = encoding.frame(seen)
    pose = encoding.bind(seen, None, HEADS, D).side_q.pose
    assert apart(pose[:, 0], torch.eye(4, dtype=torch.float64)) < 1e-12
    centers = torch.linalg.inv(seen.cam_from_world)[..., :3, 3]
    away = (centers - centers.mean(1, keepdim=True)).norm(dim=-1)
    expected = dict(median=1 / away.median(1).values, max=1 / away.amax(1)).get(norm, torch.full((1,), 1 / 25))
    assert torch.allclose(frame.scale.double().reshape(-1), expected.double(), atol=1e-9)
    plain = attention(*heads(), encoding, seen, None)
    for change in (seen.as_tokens(), moved(seen, far()), moved(seen, far() * torch.tensor([1.0, -1, 1, 1]))):
        assert apart(attention(*heads(), encoding, change, None), plain) < 1e-9
    others = views(count=4, grid=(1, 2))  # keys of other grids: cameras count as often as they have tokens
    q, k, v = (part[:, :, :count] for part, count in zip(heads(), (18, 8, 8)))
    found = attention(q, k, v, encoding, seen, others)
    for sides in ((seen.as_tokens(), others), (seen, others.as_tokens())):
        assert apart(attention(q, k, v, encoding, *sides), found) < 1e-9
    kilometres = replace(seen, cam_from_world=seen.cam_from_world * torch.tensor([[1.0, 1, 1, 1e-3]] * 3 + [[1] * 4]))
    assert (apart(attention(*heads(), encoding, kilometres, None), plain) < 1e-9) == (norm in ('median', 'max'))
    together = replace(seen, cam_from_world=poses(2, 3, shift=0.0))
    assert attention(*heads(), encoding, together, None).isfinite().all()


def test_eschernet_puts_the_translation_elsewhere():
    seen, (q, k, v) = views(), heads()
    ours = attention(q, k, v, build_encoding(dict(type='CaPE6', convention='eschernet')), seen)
    matrix = seen.as_tokens().cam_from_world.clone()
    matrix[..., :3, 3] /= 25
    relative = torch.einsum('bjpr,birs->bijps', matrix, torch.linalg.inv(matrix))
    wide = torch.einsum('bhigp,bijsp,bhjgs->bhij', q.unflatten(-1, (8, 4)), relative, k.unflatten(-1, (8, 4)))
    assert apart(ours, (wide / D ** 0.5).softmax(-1) @ v) < 1e-11
    assert apart(ours, attention(q, k, v, build_encoding(dict(type='CaPE6')), seen)) > 1e-3


def test_layouts_by_head_group_and_by_layer():
    seen, (q, k, v) = views(), heads()
    groups = [dict(heads=1, layout='P1/1'), dict(heads=1, layout='H1/2 W1/2')]
    ours = attention(q, k, v, build_encoding(dict(type='HW+P', layout=groups)), seen)
    for head, group in enumerate(groups):
        alone = build_encoding(dict(type='HW+P', layout=group['layout']))
        assert apart(ours[:, head:head + 1], attention(*(part[:, head:head + 1] for part in (q, k, v)), alone, seen)) < 1e-12
    cfg = dict(type='HW+P', layout_schedule=['P1/1', 'I16 H8 W8'])
    assert [build_encoding(cfg, layer=layer).layout for layer in range(3)] == ['P1/1', 'I16 H8 W8', 'P1/1']
    bound = build_encoding(cfg, layer=1).bind(seen, None, HEADS, D)
    assert torch.equal(bound.queries(q)[..., :16], q[..., :16]) and apart(bound.queries(q)[..., 16:], q[..., 16:]) > 0.1


def test_times_by_index_and_by_seconds():
    def angles(mode, time, time_k=None, **changed):
        encoding = build_encoding(dict(type='THW+P', time_mode=mode, layout='T1/1', **changed))
        return encoding.bind(views(time=time), None if time_k is None else views(time=time_k), HEADS, D)

    stamps = 1.5e9 + torch.tensor([[3.0, 1.0, 3.0]], dtype=torch.float64)
    first = slice(0, 1)  # the pair that turns by the position itself
    seconds = angles('seconds', stamps).side_q.cos[0, 0, :, 0, first].squeeze(-1)
    assert torch.allclose(seconds, torch.tensor([2.0, 0, 2], dtype=torch.float64).cos())
    index = angles('index', stamps, stamps[:, [1, 1, 1]] + 0.5)
    assert torch.allclose(index.side_q.cos[0, 0, :, 0, 0], torch.tensor([2.0, 0, 2], dtype=torch.float64).cos())
    assert torch.allclose(index.side_k.cos[0, 0, :, 0, 0], torch.tensor([1.0] * 3, dtype=torch.float64).cos())
    later = index.with_queries(views(time=stamps + 10))
    assert torch.allclose(later.side_q.cos[0, 0, :, 0, 0], torch.tensor([3.0] * 3, dtype=torch.float64).cos())
    given = angles('index', torch.tensor([[4, 0, 9]])).side_q.sin[0, 0, :, 0, 0]
    assert torch.allclose(given, torch.tensor([4.0, 0, 9]).double().sin())
    assert torch.allclose(angles('index', None).side_q.cos[0, 0, :, 0, 0], torch.arange(3).double().cos())
    assert torch.equal(angles('zero', None).side_q.cos, torch.ones(1, 1, 3, 1, 32, dtype=torch.float64))
    with pytest.raises(ValueError, match="views of the queries have no time.*time_mode='zero'"):
        angles('seconds', None)
