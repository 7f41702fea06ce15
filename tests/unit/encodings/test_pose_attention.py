"""Pose encodings at work: in MultiheadAttention, with cached keys, in half precision, compiled, checkpointed, learning."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from pose_scenes import HEADS, ORACLES, D, draw, heads, poses, views
from sync_counts import counting
from torch.utils.checkpoint import checkpoint

from projects.encodings import Views, attention, build_encoding
from projects.encodings.multihead import MultiheadAttention
from projects.encodings.rig_cache import RigCache
from projects.encodings.view_sources import bev_views, camera_views, query_views
from projects.memfusion.structures import Calibration


@pytest.mark.parametrize('kind', ORACLES)
def test_cached_keys_and_values_are_the_full_pass(kind):
    """Two cameras first, a third later; then queries that move."""
    torch.manual_seed(0)
    module, encoding = MultiheadAttention(HEADS * D, HEADS).double().eval(), build_encoding(dict(type=kind))
    seen, tokens = views(), draw(2, 18, HEADS * D)
    parts = [Views(seen.cam_from_world[:, cut], seen.img_from_cam[:, cut], seen.image_hw, seen.grid, seen.time[:, cut])
             for cut in (slice(0, 2), slice(2, 3))]
    frame = encoding.frame(seen)
    full = module(tokens, tokens, encoding=encoding.bind(seen, seen, HEADS, D, frame))
    first, later = (encoding.bind(part, part, HEADS, D, frame) for part in parts)
    cached = module.project(tokens[:, :12], tokens[:, :12], first).join(module.project(tokens[:, 12:], tokens[:, 12:], later))
    assert torch.allclose(module(tokens[:, 12:], cached, encoding=later), full[:, 12:], atol=1e-12)
    assert torch.allclose(module(tokens, cached, encoding=first.with_queries(seen)), full, atol=1e-12)
    plain = module.weights(tokens, tokens, encoding=encoding.bind(seen, None, HEADS, D)) @ torch.ones(18, 1)
    assert torch.allclose(plain, torch.ones_like(plain))


def test_the_module_agrees_with_the_function():
    module, encoding, seen = MultiheadAttention(HEADS * D, HEADS).double(), build_encoding(dict(type='PRoPE')), views()
    tokens = draw(2, 18, HEADS * D)
    q, k, v = (part.unflatten(-1, (HEADS, D)).transpose(1, 2) for part in F.linear(
        tokens, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1))
    expected = module.out_proj(attention(q, k, v, encoding, seen, seen).transpose(1, 2).flatten(2))
    assert torch.allclose(module(tokens, tokens, encoding=encoding.bind(seen, seen, HEADS, D)), expected, atol=1e-12)


@pytest.mark.parametrize('kind', ['PRoPE', 'GTA', 'CaPE6', 'RoPE-THW'])
@pytest.mark.parametrize('per', ['camera', 'token'])
def test_gradients(kind, per):
    """Against finite differences: of features and of a scale that learns."""
    encoding, seen = build_encoding(dict(type=kind)), views(1, 2, grid=(1, 2))
    seen = seen.as_tokens() if per == 'token' else seen
    parts = [part[:, :1].requires_grad_() for part in heads(1, 4)]
    learned = list(encoding.parameters())

    def run(*given):
        return attention(*given[:3], encoding, seen, seen)

    assert torch.autograd.gradcheck(run, (*parts, *learned), fast_mode=True)


def test_a_pose_can_learn():
    references = draw(1, 4, 3).requires_grad_()
    parts = [part[:, :1] for part in heads(1, 4)]
    encoding = build_encoding(dict(type='CaPE6', values=True))

    def run(given):
        return attention(*parts, encoding, query_views(given))

    assert torch.autograd.gradcheck(run, (references,), fast_mode=True)


def test_half_precision_and_autocast():
    """Features are rounded, matrices are not: as precise as the rounding of features."""
    encoding, seen = build_encoding(dict(type='PRoPE')), views()
    exact = attention(*heads(), encoding, seen, seen)
    q, k, v = heads(dtype=torch.bfloat16)
    rough = attention(q, k, v, encoding, seen, seen)
    bound = encoding.bind(seen, seen, HEADS, D)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(bound.keys(k.float()), bound.keys(k.float()).float())
        assert torch.equal(encoding.bind(seen, seen, HEADS, D).keys(k.float()), bound.keys(k.float()))
        under = attention(*heads(dtype=torch.float32), encoding, seen, seen)
    assert rough.dtype == torch.bfloat16 and (bound.keys(k).double() - bound.keys(k.double())).abs().max() < 2e-2
    for found in (rough, under):
        assert (found.double() - exact).abs().mean() < 2e-2


def test_one_graph_for_a_compiler():
    encoding, seen = build_encoding(dict(type='PRoPE', trans_norm='learned')), views(1, 2)
    parts = [part.requires_grad_() for part in heads(1, 12, dtype=torch.float32)]

    def run(q, k, v, pose):
        views_now = Views(pose, seen.img_from_cam, seen.image_hw, seen.grid)
        return attention(q, k, v, encoding, views_now.as_tokens(), views_now)

    plain = run(*parts, seen.cam_from_world)
    found = torch.compile(run, backend='eager', fullgraph=True)(*parts, seen.cam_from_world)
    assert torch.allclose(found, plain, atol=1e-5)
    learned = [*parts, *encoding.parameters()]
    for ours, eager in zip(*(torch.autograd.grad(out.square().sum(), learned) for out in (found, plain))):
        assert torch.allclose(ours, eager, atol=1e-4)


def test_gradient_checkpointing():
    encoding, seen = build_encoding(dict(type='GTA')), views()
    parts = [part.requires_grad_() for part in heads()]
    run = partial(attention, encoding=encoding, views_q=seen, views_k=seen)
    found = [torch.autograd.grad(out.square().sum(), [*parts, *encoding.parameters()]) for out in (
        run(*parts), checkpoint(run, *parts, use_reentrant=False))]
    for ours, plain in zip(*found):
        assert torch.allclose(ours, plain, atol=1e-10)


@pytest.mark.parametrize('kind', ['none', *ORACLES, 'PoseALiBi', 'factored', 'FrustumPE'])
def test_nothing_waits_for_the_device(kind):
    """From a rig, references and cells to what is read, there and back; also where no values are (shapes alone)."""
    cfg = dict(factored=dict(type='PoseALiBi', form='factored'), FrustumPE=dict(type=kind, dim=HEADS * D, hidden=4))
    encoding = build_encoding(cfg.get(kind, dict(type=kind))).double()
    calibration = Calibration.from_matrices(torch.tensor([[40.0, 0, 32], [0, 40, 20], [0, 0, 1]]).expand(1, 3, 3, 3),
                                            poses(1, 3).float(), torch.tensor([[[40, 64]] * 3]))
    rig, places = calibration.views(), draw(1, 18, 3)
    q, k, v = (part[:1].requires_grad_() for part in heads())
    with counting() as counts:
        tokens = camera_views(rig, (2, 3), time=torch.zeros(1, 3, dtype=torch.float64))
        attention(q, k, v, encoding, tokens, tokens, is_causal=True).sum().backward()
        if kind in ('CaPE6', 'none'):
            attention(q, k, v, encoding, query_views(places, places[..., 0]), tokens)
            attention(q, k, v, encoding, query_views(places, places[..., 0]), bev_views((-1.0,) * 3 + (1.0,) * 3, (3, 6)))
    assert counts.total == 0, counts
    on_meta = Views(poses(1, 3).to('meta'), torch.zeros(1, 3, 3, 3, device='meta'), (40, 64), (2, 3),
                    torch.zeros(1, 3, device='meta'))
    given = [part.detach().to('meta') for part in (q, k, v)]
    assert attention(*given, encoding.to('meta'), on_meta, on_meta).shape == q.shape


def test_a_rig_that_stays_is_bound_once():
    encoding, cache, made = build_encoding(dict(type='PRoPE')).eval(), RigCache(), []
    calibration = Calibration.from_matrices(torch.tensor([[40.0, 0, 32], [0, 40, 20], [0, 0, 1]]).expand(1, 3, 3, 3),
                                            poses(1, 3).float(), torch.tensor([[[40, 64]] * 3]))

    def bind():
        made.append(encoding.bind(camera_views(calibration.views(), (2, 3)), None, HEADS, D))
        return made[-1]

    with torch.no_grad():
        found = [cache.get(calibration.views(), bind, encoding, (2, 3)) for _ in range(2)]
    assert found[0] is found[1] and len(made) == 1
