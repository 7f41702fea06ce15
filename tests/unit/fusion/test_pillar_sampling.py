"""Unit: deformable sampling by hand, against a slow oracle, under shifts of image and BEV; cost follows active cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from projects.memfusion.fusion import pillar_sampling
from projects.memfusion.fusion.cell_update import CellUpdate
from projects.memfusion.fusion.fusion_state import ActiveCells, FusionState
from projects.memfusion.fusion.pillar_sampling import PillarSampling
from projects.memfusion.structures import Calibration

from .conftest import RANGE, camera, randomise, ring

DIM = 8


def state_of(calibration, maps, bev=None) -> FusionState:
    bev = torch.zeros(len(calibration.bev_aug), 6, 16, 16) if bev is None else bev
    return FusionState(bev, bev, maps, None, calibration, calibration.cam_valid.float())


def transparent(**settings) -> PillarSampling:
    """A reader whose value and output layers hand the features through and whose offsets are 0."""
    reader = PillarSampling(DIM, DIM, (8,), **{'num_heads': 2, 'num_points': 3, **settings})
    with torch.no_grad():
        reader.values[0].weight.copy_(torch.eye(DIM)[..., None, None])
        reader.values[0].bias.zero_()
        reader.output.weight.copy_(torch.eye(DIM))
        reader.output.bias.zero_()
        reader.offsets.bias.zero_()
    return reader


def test_a_hot_feature_cell_is_read_by_the_cell_that_projects_onto_it():
    # Looks along +x, f = 48, image 64 x 96, centre (47.5, 31.5). The point (8, 4, 0) is 8 ahead and 4 to the left:
    # u = 47.5 - 48 * 4 / 8 = 23.5, v = 31.5, in feature cells of 8 px (24 / 8 - 0.5, 32 / 8 - 0.5) = (2.5, 3.5).
    calibration = Calibration.from_info(dict(FRONT=camera(0.0)))
    feats = torch.zeros(1, 1, DIM, 8, 12)
    feats[0, 0, :, 3, 2] = 4 * torch.arange(1.0, DIM + 1)  # hot cell; the pixel lies in the middle of four cells
    reader = transparent(heights_m=(0.0,))
    cells_m = torch.tensor([[[8.0, 4.0], [8.0, -4.0], [-8.0, 4.0]]])
    reading = reader(torch.zeros(1, 3, DIM), cells_m, state_of(calibration, [feats]))
    torch.testing.assert_close(reading.features[0, 0], torch.arange(1.0, DIM + 1), atol=1e-4, rtol=0)
    assert reading.features[0, 1:].abs().max() == 0
    torch.testing.assert_close(reading.trust[0, :, 0], torch.tensor([1.0, 1.0, 0.0]))
    # 48 px further up is above the image: only the height 0 of the pillar counts, with its whole weight
    both = transparent(heights_m=(0.0, 8.0))(torch.zeros(1, 3, DIM), cells_m, state_of(calibration, [feats]))
    torch.testing.assert_close(both.features, reading.features)


def oracle(reader, query, cells_m, state) -> torch.Tensor:
    """The definition, one sample at a time, in float64."""
    heads, levels, heights, points = reader.shape
    frames, cells = query.shape[:2]
    out = np.zeros((frames, cells, DIM))
    values = [layer(m.flatten(0, 1)).unflatten(0, m.shape[:2]).double() for layer, m in zip(reader.values, state.maps)]
    for v in range(frames):
        for k in range(cells):
            pillar = torch.tensor([[*cells_m[v, k].tolist(), z] for z in reader.heights_m])
            uv, _, valid = state.calibration.select(torch.tensor([v])).project(pillar[None])
            for head in range(heads):
                logits, samples, trusts = [], [], []
                for n in range(state.weight.shape[1]):
                    raw = reader.offsets(query[v, k]).view(*reader.shape, 2).double()
                    score = reader.logits(query[v, k]).view(reader.shape).double()
                    height_px, width_px = state.calibration.img_hw[v, n].tolist()
                    for level in range(levels):
                        for z in range(heights):
                            for p in range(points):
                                offset = raw[head, level, z, p] * reader.strides[level]
                                offset = offset * min(1.0, reader.radius_px / float(offset.norm().clamp(min=1e-9)))
                                u, w = (uv[0, n, z].double() + offset).tolist()
                                if not (valid[0, n, z] and -0.5 <= u < width_px - 0.5 and -0.5 <= w < height_px - 0.5):
                                    continue
                                part = values[level][v, n].unflatten(0, (heads, -1))[head]
                                logits.append(float(score[head, level, z, p]))
                                stride = reader.strides[level]  # the image's own cells, whatever the map holds beside them
                                samples.append(bilinear(
                                    part[:, :-(-height_px // stride), :-(-width_px // stride)], u, w, stride))
                                trusts.append(float(state.weight[v, n]))
                if logits:
                    share = np.exp(np.array(logits) - max(logits))
                    share = share / share.sum() * np.array(trusts)
                    out[v, k, head * DIM // heads:(head + 1) * DIM // heads] = share @ np.stack(samples)
    return reader.output(torch.tensor(out, dtype=torch.float32))


def bilinear(part: torch.Tensor, u: float, v: float, stride: int) -> np.ndarray:
    height, width = part.shape[1:]
    x = min(max((u + 0.5) / stride - 0.5, 0), width - 1)
    y = min(max((v + 0.5) / stride - 0.5, 0), height - 1)
    x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
    a, b = x - x0, y - y0
    corners = part[:, y0:y0 + 2, x0:x0 + 2].detach().numpy()
    rows = corners[:, :, 0] * (1 - a) + corners[:, :, 1] * a
    return rows[:, 0] * (1 - b) + rows[:, 1] * b


def test_against_the_slow_oracle():
    calibration = ring(6, mixed=True, missing={0: [1]})  # 90 deg wide every 60 deg: cells with one camera and with two
    settings = dict(heights_m=(-1.0, 0.5, 4.0), num_heads=2, num_points=2, radius_px=20.0)
    reader = randomise(PillarSampling(DIM, 5, (8, 16), **settings), 0.6)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 6, 5, 8 >> k, 12 >> k, generator=generator) for k in range(2)]
    query = torch.randn(2, 12, DIM, generator=generator)
    cells_m = torch.rand(2, 12, 2, generator=generator) * 28 - 14
    state = state_of(calibration, maps)
    state.weight[1] = torch.tensor([0.9, 0.2, 0.5, 1.0, 0.7, 0.8])
    pairs = reader.pairs(cells_m, state)
    seen = (pairs.frame * 12 + pairs.cell)[pairs.filled]
    assert torch.bincount(seen).max() == 2 and 0 < pairs.valid[pairs.filled].float().mean() < 0.95
    with torch.no_grad():
        wanted = oracle(reader, query, cells_m, state)
        found = reader(query, cells_m, state)
    assert (wanted - reader.output.bias).abs().amax(-1).gt(1e-3).sum() > 16
    torch.testing.assert_close(found.features, wanted, atol=2e-5, rtol=0)


def image_after_image(reader, query, cells_m, state) -> torch.Tensor:
    """(V, K, D) by a loop over frames, cameras, levels: every pair that is seen by itself, no blocks."""
    uv_px, _, valid = state.calibration.project(torch.cat([
        cells_m[:, :, None].expand(-1, -1, len(reader.heights_m), -1),
        reader.heights_m.view(1, 1, -1, 1).expand(*cells_m.shape[:2], -1, 1)], dim=-1).flatten(1, 2))
    uv_px, valid = (part.unflatten(2, (cells_m.shape[1], -1)) for part in (uv_px, valid))
    raw = reader.offsets(query).unflatten(-1, (*reader.shape, 2)) * torch.tensor(reader.strides).view(-1, 1, 1, 1)
    offset = raw * (reader.radius_px / raw.norm(dim=-1, keepdim=True).clamp(min=reader.radius_px))
    places = uv_px[:, :, :, None, None, :, None] + offset[:, None]  # (V, N, K, heads, L, Z, P, 2)
    size = state.calibration.img_hw.flip(-1)[:, :, None, None, None, None, None]
    there = ((places >= -0.5) & (places < size - 0.5)).all(-1) & valid[:, :, :, None, None, :, None]
    logits = reader.logits(query).unflatten(-1, reader.shape)[:, None].expand(there.shape).masked_fill(~there, -torch.inf)
    flat = logits.permute(0, 2, 3, 1, 4, 5, 6).flatten(3)
    share = torch.where(there.any(1, keepdim=True).flatten(4).any(-1)[..., None], flat.softmax(-1).unflatten(
        3, (there.shape[1], *reader.shape[1:])).permute(0, 3, 1, 2, 4, 5, 6).flatten(4), 0.0).unflatten(4, reader.shape[1:])
    share = share * state.weight[:, :, None, None, None, None, None]
    total = torch.zeros(*query.shape[:2], reader.shape[0], query.shape[2] // reader.shape[0])
    for v, n, level in np.ndindex(*state.weight.shape, len(reader.strides)):
        stride, (height, width) = reader.strides[level], state.calibration.img_hw[v, n].tolist()
        value = reader.values[level](state.maps[level][v, n][None]).unflatten(1, (reader.shape[0], -1))[0]
        value = value[:, :, :-(-height // stride), :-(-width // stride)]
        grid = (places[v, n, :, :, level] + 0.5) * 2 / (stride * torch.tensor([value.shape[3], value.shape[2]])) - 1
        read = F.grid_sample(value, grid.flatten(2, 3).transpose(0, 1), padding_mode='border', align_corners=False)
        weight = share[v, n, :, :, level].flatten(2).transpose(0, 1)[:, None]
        total[v] = total[v] + (read * weight).sum(-1).permute(2, 0, 1)
    return reader.output(total.flatten(2))


@pytest.mark.parametrize('most', [1, 1 << 22])
def test_blocks_and_their_gradients_equal_image_after_image(most, monkeypatch):
    """Images that see unlike numbers of cells, frames without a camera; all blocks at once and one after the other."""
    monkeypatch.setitem(pillar_sampling._MOST_SAMPLES, 'cpu', most)
    calibration = ring(6, frames=3, mixed=True, missing={0: [1, 2], 1: [0, 1, 2, 3, 4, 5]})
    reader = randomise(PillarSampling(DIM, 5, (8, 16), heights_m=(-1.0, 0.5), num_heads=2, num_points=3, radius_px=30.0), 0.4)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, 6, 5, 8 >> k, 12 >> k, generator=generator).requires_grad_() for k in range(2)]
    query = torch.randn(3, 90, DIM, generator=generator).requires_grad_()
    cells_m = torch.rand(3, 90, 2, generator=generator) * 14 - torch.tensor([2.0, 14.0])  # nearly all on one side
    state = state_of(calibration, maps)
    state.weight.mul_(torch.rand(3, 6, generator=generator)).requires_grad_()
    pairs = reader.pairs(cells_m, state)
    assert len(pairs.image) > 7 and not pairs.filled.all() and pairs.filled.sum() > 0.6 * len(pairs.filled)
    given = [query, state.weight, *maps, *reader.parameters()]
    found, wanted = reader(query, cells_m, state).features, image_after_image(reader, query, cells_m, state)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    ours, theirs = (torch.autograd.grad((part * torch.linspace(-1, 1, DIM)).sum(), given) for part in (found, wanted))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max().clamp(min=1)), rtol=0)


def test_offsets_stay_within_the_radius():
    calibration = ring(3)
    reader = randomise(PillarSampling(DIM, 5, (8,), num_heads=2, num_points=4, radius_px=24.0), 3.0)
    state = state_of(calibration, [torch.zeros(2, 3, 5, 8, 12)])
    cells_m = torch.rand(2, 30, 2) * 20 - 10
    query = torch.randn(2, 30, DIM)
    length = reader._offsets_px(query, reader.pairs(cells_m, state)).norm(dim=-1)
    assert length.max() <= 24.0 + 1e-3 and length.max() > 23.9 and length.min() < 20


@pytest.mark.parametrize('cells_right, cells_down', [(1, 0), (-2, 1)])
def test_shifting_features_and_k_by_whole_cells_changes_nothing(cells_right, cells_down):
    info = camera(0.0, height=256, width=256, focal=128.0)
    shifted = camera(0.0, height=256, width=256, focal=128.0)
    for row, cells in ((0, cells_right), (1, cells_down)):
        shifted['cam2img'][row][2] += 8 * cells
    reader = randomise(PillarSampling(DIM, 5, (8,), num_heads=2, num_points=4, radius_px=40.0), 0.5)
    world = torch.randn(1, 1, 5, 36, 36, generator=torch.Generator().manual_seed(0))
    feats = world[..., 2:34, 2:34]
    moved = world[..., 2 - cells_down:34 - cells_down, 2 - cells_right:34 - cells_right]  # at the border something new
    query = torch.randn(1, 40, DIM, generator=torch.Generator().manual_seed(1))
    cells_m = torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(2)) * 4 + torch.tensor([8.0, -2.0])
    found = reader(query, cells_m, state_of(Calibration.from_info(dict(F=info)), [feats])).features
    again = reader(query, cells_m, state_of(Calibration.from_info(dict(F=shifted)), [moved])).features
    torch.testing.assert_close(again, found, atol=1e-4, rtol=0)
    only_k = reader(query, cells_m, state_of(Calibration.from_info(dict(F=shifted)), [feats])).features
    assert (only_k - found).abs().max() > 0.05


@pytest.mark.parametrize('quarter_turns, flip', [(1, False), (2, True)])
def test_an_augmented_bev_reads_the_same_pixels(quarter_turns, flip):
    """BEV and rig turned together by whole quarters, and mirrored: every cell reads what it read before."""
    angle = quarter_turns * math.pi / 2
    aug = np.eye(4)
    aug[:2, :2] = np.round([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    aug[:2, :2] = aug[:2, :2] @ np.diag([1.0, -1.0 if flip else 1.0])
    feats = torch.randn(2, 4, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    bev = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(1))

    def move(x: torch.Tensor) -> torch.Tensor:  # y along H, x along W: a turn from x to y is a turn of (W, H)
        return torch.rot90(x.flip(2) if flip else x, quarter_turns, dims=(3, 2))

    layer = randomise(CellUpdate(6, DIM, RANGE, PillarSampling(DIM, 5, (8,), num_heads=2, num_points=2)), 0.3)
    layer.position.requires_grad_(False)
    layer.position[2].weight.zero_()  # the query's own position is in the augmented frame, as the BEV is
    with torch.no_grad():
        plain = layer(state_of(ring(4), [feats], bev), ActiveCells(None)).bev
        turned = layer(state_of(ring(4, bev_aug=aug), [feats], move(bev)), ActiveCells(None)).bev
    assert (plain - bev).abs().max() > 0.1
    torch.testing.assert_close(turned, move(plain), atol=1e-4, rtol=0)


def test_active_cells_get_what_they_get_among_all_cells_and_others_nothing():
    layer = randomise(CellUpdate(6, DIM, RANGE, PillarSampling(DIM, 5, (8,), num_heads=2, num_points=2)), 0.3)
    bev, feats = torch.randn(2, 6, 16, 16), torch.randn(2, 4, 5, 8, 12)
    state = state_of(ring(4), [feats], bev)
    index = torch.stack([torch.randperm(256)[:20].sort().values for _ in range(2)])
    score = torch.rand(2, 20)
    with torch.no_grad():
        every = layer(state, ActiveCells(None)).bev - bev
        some = layer(state, ActiveCells(index, score)).bev - bev
    wanted = torch.zeros(2, 6, 256)
    for v in range(2):
        wanted[v][:, index[v]] = every[v].flatten(1)[:, index[v]] * score[v]
    torch.testing.assert_close(some.flatten(2), wanted, atol=1e-5, rtol=0)


def test_the_work_is_that_of_the_active_cells(monkeypatch):
    """A grid of four times the cells, of which the same number is active, costs the same; few samples fill blocks up."""
    layer = CellUpdate(6, DIM, RANGE, PillarSampling(DIM, 5, (8,), num_heads=2, num_points=2))
    feats, calibration, counts = torch.randn(1, 4, 5, 8, 12), ring(4, frames=1), []
    sample = F.grid_sample

    def counting(value, grid, **options):
        counts.append(grid.shape[0] * grid.shape[1] // 2)  # two heads
        return sample(value, grid, **options)

    monkeypatch.setattr(F, 'grid_sample', counting)

    def work(size: int, cells: int) -> tuple[int, int]:
        index = torch.arange(cells)[None] * (size * size // 64)
        counts.clear()
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            layer(state_of(calibration, [feats], torch.zeros(1, 6, size, size)), ActiveCells(index))
        return flops.get_total_flops(), sum(counts)

    (small, seen), (large, seen_large), (half, _) = work(16, 64), work(32, 64), work(16, 32)
    assert small == large and seen > 0
    fixed = 2 * half - small  # the maps' own projection, once per feature cell, and the tokens
    assert 2 * 4 * 96 * 5 * DIM <= fixed <= 2 * 4 * 96 * 5 * DIM + 2 * 4 * DIM * 3 * 2 * 2 * 4 * 2
    x, y = torch.meshgrid(torch.arange(16) * 2.0 - 15, torch.arange(16) * 2.0 - 15, indexing='xy')
    points = torch.stack([x, y], dim=-1).flatten(0, 1)[torch.arange(64) * 4]
    pillars = torch.cat([points[:, None].expand(-1, 4, -1), torch.tensor([-1.5, -0.5, 0.5, 1.5]).expand(64, 4)[..., None]], -1)
    pairs = calibration.project(pillars.flatten(0, 1)[None])[2].unflatten(2, (64, 4)).any(-1).sum()
    assert pairs <= seen <= 1.5 * pairs
    assert seen_large > 0


@pytest.mark.parametrize('stride', [4, 16, 32])
def test_points_start_at_places_of_their_own_within_the_radius(stride):
    reader = PillarSampling(16, 5, (stride,), num_heads=4, num_points=8, radius_px=64.0)
    start_px = reader.offsets.bias.detach().view(4, 1, 4, 8, 2)[:, 0, 0] * stride
    assert start_px.norm(dim=-1).max() <= 64.0 + 1e-4
    apart = torch.cdist(start_px, start_px) + 99 * torch.eye(8)
    assert apart.min() > 3.9
