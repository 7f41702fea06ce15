"""Unit: PETRv2Fusion written out with torch's own attention; its embeddings follow the rig and are made once for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from projects.memfusion.fusion import frustum_tokens
from projects.memfusion.structures import Calibration

from .conftest import build, camera, inputs, ring


def torchs(attention: nn.Module) -> nn.MultiheadAttention:
    """torch's attention with the same parameters."""
    other = nn.MultiheadAttention(16, attention.num_heads, batch_first=True)
    other.load_state_dict(attention.state_dict())
    return other.eval()


@torch.no_grad()
def test_it_is_its_parts_one_after_another():
    layer, calibration = build('petr'), ring(3, missing={0: [1]}, mixed=True)
    bev, feats = inputs(calibration)
    feats[0][0, 1] = 0
    tokens = layer.tokens(feats[0], calibration)
    assert tokens.keep.sum(1).tolist() == [96 + 96, 96 + 5 * 9 + 96]  # 40 x 72 px are 5 x 9 cells
    content, position, _ = layer.queries(bev, 2)
    query = content
    for part in layer.layers:
        asks = query + position
        query = part.norms[0](query + torchs(part.self_attention)(asks, asks, query)[0])
        read = torchs(part.cross_attention)(query + position, tokens.keys, tokens.values, key_padding_mask=~tokens.keep)[0]
        query = part.norms[1](query + read)
        query = part.norms[2](query + part.feed_forward(query))
    spread = F.interpolate(query.transpose(1, 2).unflatten(2, (8, 4)), (16, 16), mode='bilinear')
    wanted = bev + layer.output(layer.mix(torch.cat([spread, bev], dim=1)))
    torch.testing.assert_close(layer(bev, feats, calibration), wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_cell_of_the_image_knows_its_points_by_hand():
    """Looks along +x from the origin, f = 48: the cell at column 5, row 3 of 8 px is centred on u = 43.5, v = 27.5, 4 px from
    the centre to the left and above, so a point at depth d is (d, d / 12, d / 12)."""
    position_range = (-26, -26, -13, 26, 26, 13)
    layer = build('petr', embedding=dict(depths=3, depth_kind='linear', start_m=2.0, position_range=position_range))
    points = []
    layer.tokens.frustum.register_forward_pre_hook(lambda module, given: points.append(given[0]))
    calibration = Calibration.from_info(dict(FRONT=camera(0.0)))
    layer.tokens(torch.zeros(1, 1, 5, 8, 12), calibration)
    depths = torch.tensor([2.0, 10.0, 18.0])
    wanted = torch.stack([depths, depths / 12, depths / 12], dim=-1) / torch.tensor([52.0, 52.0, 26.0]) + 0.5
    torch.testing.assert_close(points[0][0, 3 * 12 + 5].sigmoid(), wanted, atol=1e-5, rtol=0)
    aug = torch.eye(4)
    aug[:3, 3] = torch.tensor([2.6, -5.2, 1.3])
    layer.tokens(torch.zeros(1, 1, 5, 8, 12), calibration.moved(aug[None]))
    torch.testing.assert_close(points[1][0, 3 * 12 + 5].sigmoid(), wanted + torch.tensor([0.05, -0.1, 0.05]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_embeddings_of_a_rig_that_stays_are_made_once(monkeypatch):
    made, make = [], frustum_tokens.frustum_points
    monkeypatch.setattr(frustum_tokens, 'frustum_points', lambda *given: made.append(1) or make(*given))
    layer, calibration = build('petr'), ring(3)
    bev, feats = inputs(calibration)
    first = layer(bev, feats, calibration)
    assert torch.equal(layer(bev, feats, ring(3)), first) and len(made) == 1
    moved = layer(bev, feats, calibration.with_shift(torch.full((2, 3, 2), 3.0)))
    assert (moved - first).abs().max() > 1e-4 and len(made) == 2
    layer.tokens.frustum.layers[0].weight.mul_(1.5)
    assert (layer(bev, feats, calibration) - first).abs().max() > 1e-4 and len(made) == 3


def test_errors_name_what_does_not_fit():
    with pytest.raises(ValueError, match='one image level'):
        build('petr', strides=(8, 16))
    with pytest.raises(ValueError, match=r'query_grid=\[4\]'):
        build('petr', layers=dict(query_grid=(4,)))
    with pytest.raises(ValueError, match='dim=18 must divide by 4'):
        build('petr', layers=dict(dim=18, num_heads=2))
    with pytest.raises(ValueError, match='position_range must be'):
        build('petr', embedding=dict(position_range=(0, 0, 0, 1, 1, 0)))
    with pytest.raises(ValueError, match='depths.kind must be one of'):
        build('petr', embedding=dict(depth_kind='log'))
