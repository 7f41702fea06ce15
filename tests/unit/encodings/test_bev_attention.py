"""Unit: BEVFormer's attentions against slow oracles, by hand, in batches; what each published peculiarity changes."""

from __future__ import annotations

import pytest
import torch

from projects.encodings.spatial_attention import SpatialCrossAttention
from projects.encodings.temporal_attention import TemporalSelfAttention

DIM, HEADS, SHAPE = 8, 2, (4, 5)
CELLS = SHAPE[0] * SHAPE[1]


def randomised(layer: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return layer.eval()


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bilinear(value: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """value (d, h, w) at x, y in cells, 0.5 in the middle of the first; 0 beyond the map."""
    x, y, total = x - 0.5, y - 0.5, torch.zeros(len(value), dtype=torch.float64)
    for column in (int(x // 1), int(x // 1) + 1):
        for row in (int(y // 1), int(y // 1) + 1):
            if 0 <= column < value.shape[2] and 0 <= row < value.shape[1]:
                total += value[:, row, column].double() * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def heads_of(features: torch.Tensor) -> torch.Tensor:
    """(Q, D) -> (heads, d, H, W)."""
    return features.T.unflatten(1, SHAPE).unflatten(0, (HEADS, -1))


@pytest.mark.parametrize('entries', [1, 2])
@torch.no_grad()
def test_temporal_attention_against_a_slow_oracle(entries):
    layer = randomised(TemporalSelfAttention(DIM, HEADS, num_points=3, entries=entries))
    query, position, past = (numbers(1, CELLS, DIM, seed=seed) for seed in range(3))
    shift = torch.tensor([[0.1, -0.2]]) if entries == 2 else None
    read = layer(query, position, SHAPE, past if entries == 2 else None, shift)
    asks = torch.cat([past[0], (query + position)[0]], dim=1) if entries == 2 else (query + position)[0]
    offsets = layer.sampling_offsets(asks).view(CELLS, HEADS, entries, 3, 2)
    weights = layer.attention_weights(asks).view(CELLS, HEADS, entries, 3).softmax(-1)
    values = [heads_of(layer.value_proj(one[0])) for one in ([past, query] if entries == 2 else [query])]
    wanted = torch.zeros(CELLS, DIM, dtype=torch.float64)
    for cell in range(CELLS):
        for head in range(HEADS):
            for entry, value in enumerate(values):
                moved = shift[0].tolist() if entries == 2 and entry == 0 else (0.0, 0.0)
                for point in range(3):
                    x = cell % SHAPE[1] + 0.5 + moved[0] * SHAPE[1] + float(offsets[cell, head, entry, point, 0])
                    y = cell // SHAPE[1] + 0.5 + moved[1] * SHAPE[0] + float(offsets[cell, head, entry, point, 1])
                    part = float(weights[cell, head, entry, point]) / entries
                    wanted[cell, 4 * head:4 * head + 4] += part * bilinear(value[head], x, y)
    torch.testing.assert_close(read[0], layer.output_proj(wanted.float()), atol=1e-5, rtol=0)


@torch.no_grad()
def test_temporal_attention_in_batches_and_mixed_as_published():
    layer = randomised(TemporalSelfAttention(DIM, HEADS))
    mixed = randomised(TemporalSelfAttention(DIM, HEADS, published_quirks=('mixed_batch',)))
    query, past, position = numbers(3, CELLS, DIM), numbers(3, CELLS, DIM, seed=2), numbers(1, CELLS, DIM, seed=3)
    together = layer(query, position, SHAPE, past)
    for row in range(3):
        one = slice(row, row + 1)
        torch.testing.assert_close(layer(query[one], position, SHAPE, past[one]), together[one], atol=1e-6, rtol=0)
        assert torch.equal(mixed(query[one], position, SHAPE, past[one]), layer(query[one], position, SHAPE, past[one]))
    other = mixed(query, position, SHAPE, past)
    torch.testing.assert_close(other[0], together[0], atol=1e-6, rtol=0)
    assert (other[1:] - together[1:]).abs().amax((1, 2)).min() > 1e-3
    assert torch.equal(layer(query, position, SHAPE), layer(query, position, SHAPE, query)), 'the queries stand in for the past'


def scene(batch: int = 2, cameras: int = 3, anchors: int = 2) -> tuple:
    """query, levels of two sizes, places and visible: each camera sees some queries, some are seen by none."""
    places = torch.rand(batch, cameras, CELLS, anchors, 1, 2, generator=torch.Generator().manual_seed(5)) * 3 - 1
    visible = ((places > 0) & (places < 1)).all(-1)[..., 0]
    return (numbers(batch, CELLS, DIM), [numbers(batch, cameras, 6, 4, 6, seed=7), numbers(batch, cameras, 6, 2, 3, seed=8)],
            places, visible)


def spatial(**settings) -> SpatialCrossAttention:
    return randomised(SpatialCrossAttention(DIM, 6, 2, HEADS, num_points=4, num_anchors=2, **settings))


@pytest.mark.parametrize('all_anchors', [False, True])
@torch.no_grad()
def test_spatial_attention_against_a_slow_oracle(all_anchors):
    layer = spatial(published_quirks=('all_anchors',) if all_anchors else False)
    query, levels, places, visible = scene(batch=1)
    read = layer(query, levels, layer.seen(places, visible))[0]
    parts = layer.deformable_attention
    offsets = parts['sampling_offsets'](query[0]).view(CELLS, HEADS, 2, 4, 2)
    logits = parts['attention_weights'](query[0]).view(CELLS, HEADS, 2, 4)
    values = [parts['value_proj'](level[0].movedim(1, -1)).movedim(-1, 1).unflatten(1, (HEADS, -1)) for level in levels]
    seen_by = visible[0].any(-1).sum(0)
    assert seen_by.min() == 0 and seen_by.max() >= 2
    for cell in range(CELLS):
        total = torch.zeros(DIM, dtype=torch.float64)
        for camera in range(3):
            if not visible[0, camera, cell].any():
                continue
            for head in range(HEADS):
                counts = torch.ones(2, 4, dtype=torch.bool) if all_anchors else visible[0, camera, cell].repeat(2, 2)
                share = torch.where(counts, logits[cell, head].exp(), 0.0)
                share = share / share.sum()
                for level in range(2):
                    height, width = levels[level].shape[-2:]
                    for point in range(4):
                        x, y = places[0, camera, cell, point % 2, 0].tolist()
                        dx, dy = offsets[cell, head, level, point].tolist()
                        sample = bilinear(values[level][camera, head], x * width + dx, y * height + dy)
                        total[4 * head:4 * head + 4] += float(share[level, point]) * sample
        wanted = layer.output_proj((total / max(int(seen_by[cell]), 1)).float()) if seen_by[cell] else torch.zeros(DIM)
        torch.testing.assert_close(read[cell], wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_spatial_attention_in_batches_and_what_each_peculiarity_changes():
    query, levels, places, visible = scene()
    layer = spatial()
    plain = layer(query, levels, layer.seen(places, visible))
    for row in range(2):
        one = slice(row, row + 1)
        alone = layer(query[one], [level[one] for level in levels], layer.seen(places[one], visible[one]))
        torch.testing.assert_close(alone, plain[one], atol=1e-6, rtol=0)
    found = {}
    for name in ('visibility_of_sample_0', 'all_anchors', 'bias_of_unseen'):
        odd = spatial(published_quirks=(name,))
        found[name] = (odd(query, levels, odd.seen(places, visible)) - plain).abs().amax(-1) > 1e-4
    unseen = ~visible.any(-1).any(1)
    assert torch.equal(found['bias_of_unseen'], unseen) and unseen.any()
    assert not found['visibility_of_sample_0'][0].any() and found['visibility_of_sample_0'][1].any()
    partly = (visible.any(-1) & ~visible.all(-1)).any(1)
    assert torch.equal(found['all_anchors'], partly) and partly.any()


@torch.no_grad()
def test_what_shows_no_image_reads_as_zero_and_nothing_seen_is_no_fault():
    query, levels, places, visible = scene()
    layer = spatial()
    seen = layer.seen(places, visible)
    shown = [torch.rand(level.shape[:2] + level.shape[-2:]) > 0.3 for level in levels]
    hidden = [level.masked_fill(~there[:, :, None], 1e6) for level, there in zip(levels, shown)]
    torch.testing.assert_close(layer(query, hidden, seen, shown), layer(query, levels, seen, shown), atol=1e-5, rtol=0)
    blind = layer(query, levels, layer.seen(places, torch.zeros_like(visible)))
    assert torch.equal(blind, torch.zeros_like(blind))


def test_errors_name_what_does_not_fit():
    with pytest.raises(ValueError, match='dim=8 does not divide by num_heads=3'):
        TemporalSelfAttention(8, 3)
    with pytest.raises(ValueError, match='entries must be 1 or 2'):
        TemporalSelfAttention(8, 2, entries=3)
    with pytest.raises(ValueError, match='num_points=3 must be a multiple of the 2 anchors'):
        SpatialCrossAttention(8, 6, 1, 2, num_points=3, num_anchors=2)
    with pytest.raises(ValueError, match="published_quirks has .'first_view'."):
        SpatialCrossAttention(8, 6, 1, 2, num_points=4, num_anchors=2, published_quirks=('first_view',))
