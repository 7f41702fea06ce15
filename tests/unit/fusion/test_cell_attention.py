"""Unit: active cells among themselves: attention by hand, what they tell the whole map, and what stays as it was."""

from __future__ import annotations

import torch
from sync_counts import counting

from .conftest import build, inputs, randomise, ring

SPARSE = dict(film=dict(kind='off'), select=dict(kind='anchor'), sample=dict(self_attn=True, film_back=True))


def test_cells_attend_to_each_other_as_written_out():
    """One head after the other, one cell after the other."""
    from projects.memfusion.fusion.cell_attention import CellSelfAttention
    layer, query = randomise(CellSelfAttention(8, 2), 0.5), torch.randn(2, 5, 8)
    attention, wanted = layer.attention, torch.zeros(2, 5, 8)
    for v in range(2):
        q, k, value = (part(query[v]) for part in (attention.query, attention.key, attention.value))
        for cell in range(5):
            mixed = torch.cat([((k[:, part] @ q[cell, part]) / 2).softmax(0) @ value[:, part]
                               for part in (slice(0, 4), slice(4, 8))])
            wanted[v, cell] = layer.norm(query[v, cell] + attention.output(mixed))
    torch.testing.assert_close(layer(query, torch.zeros(2, 5, 2), (4, 4)), wanted, atol=1e-5, rtol=0)


def test_film_back_is_one_scale_and_shift_on_top_of_the_cells_update():
    layer, calibration = build(**SPARSE), ring(4)
    bev, feats = inputs(calibration)
    fused, back = layer(bev, feats, calibration), layer.sample.film_back
    told = []
    back.register_forward_hook(lambda module, given, out: told.append((*given, out)))
    layer(bev, feats, calibration)
    cells, weight, modulation = told[0]
    layer.sample.film_back = None
    alone = layer(bev, feats, calibration)
    for v in range(2):
        mean = sum(cells[v, k] * weight[v, k] for k in range(len(cells[v]))) / weight[v].sum()
        wanted = back.output(back.hidden(mean)) * weight[v].mean()
        torch.testing.assert_close(modulation[v, 0], wanted, atol=1e-5, rtol=0)
        scale, shift = wanted[:6, None, None], wanted[6:, None, None]
        torch.testing.assert_close(fused[v], alone[v] * (1 + scale) + shift, atol=1e-5, rtol=0)
    assert (alone == bev).float().mean() > 0.8, 'without it only active cells change'
    assert (fused != bev).all()


def test_a_cell_hears_of_what_another_holds_only_with_self_attention():
    calibration = ring(4)
    bev, feats = inputs(calibration)
    for among in (False, True):
        layer = build(**{**SPARSE, 'sample': dict(self_attn=among)})
        first, second = layer.select(state_of_(layer, bev, feats, calibration)).index[0, :2].tolist()
        changed = bev.clone()
        changed[0].flatten(1)[:, first] += 1
        moved = (layer(changed, feats, calibration) - layer(bev, feats, calibration))[0].flatten(1).abs().amax(0)
        assert (moved[second] > 1e-5) == among and moved[first] > 0.1


def state_of_(layer, bev, feats, calibration):
    from projects.memfusion.fusion.fusion_state import FusionState
    return FusionState(bev, bev, feats, None, calibration, calibration.cam_valid.float())


def test_choosing_cells_by_geometry_never_waits_for_the_device():
    layer, calibration = build(**{**SPARSE, 'select': dict(kind='geometric')}), ring(4)
    bev, feats = inputs(calibration)
    layer(bev, feats, calibration)
    with counting() as counts:
        layer.select(state_of_(layer, bev, feats, calibration))
    assert counts.total == 0, counts
