"""Depths, sines, frustum points, the cache of a rig's embedding, and attention against torch's own."""

import math

import pytest
import torch
from torch import nn

from projects.encodings.bound import PlainHeads
from projects.encodings.depths import make_depths
from projects.encodings.frustum import FeatureGate, FrustumEncoder, frustum_points, in_metres, inverse_sigmoid, normalised
from projects.encodings.multihead import MultiheadAttention
from projects.encodings.rig_cache import RigCache
from projects.encodings.sine import sine_axis, sine_points
from projects.memfusion.structures import Calibration

RANGE = (-10.0, -20.0, -5.0, 30.0, 20.0, 3.0)


def rig(frames=1, height=32, width=64, shift=0.0):
    """Two cameras that look along +x and -x, 30 px focal length."""
    k = torch.tensor([[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]])
    ahead = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, shift], [0, 0, 0, 1]])
    behind = torch.tensor([[0.0, 1, 0, 0], [0, 0, -1, 1.5], [-1, 0, 0, 0], [0, 0, 0, 1]])
    return Calibration.from_matrices(k.expand(frames, 2, 3, 3), torch.stack([ahead, behind]).expand(frames, 2, 4, 4),
                                     torch.tensor([[[height, width]] * 2] * frames))


def test_depths_grow_evenly_or_by_steps_that_grow():
    assert make_depths('linear', 4, 1.0, 9.0).tolist() == [1, 3, 5, 7]
    lid = make_depths('lid', 4, 1.0, 61.0)
    assert torch.allclose(lid, torch.tensor([1 + 60 * i * (i + 1) / 20 for i in range(4)], dtype=torch.float64))
    assert torch.allclose(lid.diff().diff(), torch.full((2,), 6.0, dtype=torch.float64))
    for wrong in (dict(kind='log'), dict(num=0), dict(end_m=1.0)):
        with pytest.raises(ValueError, match='depths'):
            make_depths(**{**dict(kind='lid', num=4, start_m=1.0, end_m=9.0), **wrong})


def test_sines_by_hand():
    found = sine_axis(torch.tensor([0.25]), 4, temperature=100.0)[0]
    assert torch.allclose(found, torch.tensor([1.0, 0.0, math.sin(math.pi / 20), math.cos(math.pi / 20)]), atol=1e-6)
    linear = sine_axis(torch.tensor([0.25]), 4, ladder='linear')[0]
    assert torch.allclose(linear[2:], torch.tensor([math.sin(math.pi / 3), math.cos(math.pi / 3)]), atol=1e-6)
    points = torch.rand(5, 3)
    assert torch.equal(sine_points(points, 8, (1, 0)), torch.cat([sine_axis(points[:, 1], 8), sine_axis(points[:, 0], 8)], -1))
    with pytest.raises(ValueError, match='even'):
        sine_axis(points, 3)


def test_frustum_points_project_onto_their_cells():
    calibration, depths = rig(), make_depths('lid', 3, 2.0, 40.0)
    points = frustum_points(calibration.views(), (2, 4), depths)
    assert points.shape == (1, 2, 2, 4, 3, 3)
    uv, depth, _ = calibration.project(points.flatten(1, 4))
    own = torch.stack([uv.view(1, 2, 2, 2, 4, 3, 2)[:, n, n] for n in range(2)], 1)
    assert torch.allclose(own[0, 0, 1, 3, :, 0], torch.full((3,), 3.5 * 16 - 0.5), atol=1e-3)
    assert torch.allclose(own[0, 1, 1, 3, :, 1], torch.full((3,), 1.5 * 16 - 0.5), atol=1e-3)
    assert torch.allclose(depth.view(1, 2, 2, 2, 4, 3)[0, 1, 1, 0, 0], depths.float(), atol=1e-4)
    corner = frustum_points(calibration.views(), (2, 4), depths, offset=0.0, shift_px=0.5)
    uv = calibration.project(corner[:, 0].flatten(1, 3))[0][0, 0].view(2, 4, 3, 2)
    assert torch.allclose(uv[1, 3], torch.tensor([48.0, 16.0]).expand(3, 2), atol=1e-3)


def test_range_and_sigmoid_have_inverses():
    points = torch.rand(7, 3) * 60 - 30
    assert torch.allclose(in_metres(normalised(points, RANGE), RANGE), points, atol=1e-5)
    values = torch.rand(9) * 0.9 + 0.05
    assert torch.allclose(inverse_sigmoid(values).sigmoid(), values, atol=1e-6)
    ends = inverse_sigmoid(torch.tensor([-3.0, 0.0, 1.0, 9.0]))
    assert torch.allclose(ends, torch.tensor([-1, -1, 1, 1]) * math.log(1e5), atol=1e-3)


def test_the_gate_weighs_the_embedding_alone():
    gate, embedding = FeatureGate(4), torch.randn(2, 3, 4)
    nn.init.zeros_(gate.expand.weight)
    nn.init.zeros_(gate.expand.bias)
    assert torch.allclose(gate(embedding, torch.randn(2, 3, 4)), embedding / 2)


def test_the_embedding_of_a_rig_that_stays_is_made_once():
    encoder, cache, made = FrustumEncoder(3, 8).eval(), RigCache(), []

    def embed(calibration, key=None):
        def make():
            made.append(1)
            return encoder(frustum_points(calibration.views(), (2, 4), make_depths('lid', 3, 2.0, 40.0)))
        return cache.get(calibration.views(), make, encoder, key)

    with torch.no_grad():
        first, again = embed(rig()), embed(rig())
        assert first is again and len(made) == 1
        assert not torch.equal(embed(rig(shift=1e-3)), first) and len(made) == 2
        embed(rig(shift=1e-3), key=(4, 8))
        encoder.layers[0].bias.add_(1.0)
        assert not torch.equal(embed(rig(shift=1e-3), key=(4, 8)), first) and len(made) == 4
        encoder.layers[0].weight.data.mul_(1.001)  # as averaged weights are swapped in; torch does not count it
        embed(rig(shift=1e-3), key=(4, 8))
        assert len(made) == 5
        encoder.train()
        embed(rig(shift=1e-3), key=(4, 8))
        embed(rig(shift=1e-3), key=(4, 8))
    assert len(made) == 7
    encoder.eval()
    assert embed(rig()).requires_grad and len(made) == 8


@pytest.mark.parametrize('masked', [False, True])
def test_attention_is_torchs(masked):
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(16, 4).double().eval(), nn.MultiheadAttention(16, 4, batch_first=True).double().eval()
    ours.load_state_dict({name: torch.randn_like(value) for name, value in theirs.state_dict().items()})
    theirs.load_state_dict(ours.state_dict())
    query, key, value = (torch.randn(2, n, 16, dtype=torch.float64) for n in (5, 7, 7))
    keep = torch.rand(2, 7) > 0.4
    allowed = torch.rand(5, 7) > 0.3
    allowed[:, 0] = keep[:, 0] = True
    args = dict(keep=keep, allowed=allowed) if masked else {}
    wanted = theirs(query, key, value, key_padding_mask=~keep if masked else None, attn_mask=~allowed if masked else None)[0]
    assert torch.allclose(ours(query, key, value, **args), wanted, atol=1e-12)
    split = ours.project(key[:, :3], value[:, :3]).join(ours.project(key[:, 3:], value[:, 3:]))
    assert torch.allclose(ours(query, split, **args), wanted, atol=1e-12)
    bias = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    mask = bias.masked_fill(~(keep[:, None, None] & allowed), -torch.inf) if masked else bias
    wanted = theirs(query, key, value, attn_mask=mask.flatten(0, 1))[0]
    assert torch.allclose(ours(query, key, value, bias=bias, **args), wanted, atol=1e-12)


def test_attention_reads_nothing_where_nothing_counts():
    attention, query, key = MultiheadAttention(8, 2).eval(), torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    keep = torch.tensor([[False] * 4, [True] * 4])
    read = attention(query, key, keep=keep)
    assert torch.equal(read[0], attention.out_proj.bias.expand(3, 8)) and torch.isfinite(read).all()
    assert torch.allclose(read[1], attention(query, key)[1], atol=1e-6)


def test_an_encoding_drops_in():
    class Doubled(PlainHeads):
        def queries(self, heads):
            return 2 * heads

        def keys(self, heads):
            return heads / 2

        def values(self, heads):
            return 3 * heads

        def outputs(self, heads):
            return heads / 3

    attention, query, key = MultiheadAttention(8, 2).eval(), torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    assert torch.allclose(attention(query, key, encoding=Doubled()), attention(query, key), atol=1e-6)
