"""Unit: FastBEV. Every voxel reads the cell that its centre projects to; overlap, missing cameras, sizes, augmentation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sync_counts import counting

from projects.geometry.homography import crop_homography, flip_homography, resize_homography
from projects.memfusion.fusion import fast_bev
from projects.memfusion.fusion.voxel_table import voxel_table
from projects.memfusion.structures import Calibration

from .conftest import NAMES, RANGE, build, camera, inputs, ring

HEIGHTS_M = (-1.5, -0.5, 0.5, 1.5)
TURNED = torch.tensor([[0.0, -1.1, 0, 0.5], [1.1, 0, 0, -0.3], [0, 0, 1.1, 0.1], [0, 0, 0, 1]])
"""A quarter turn, scaled and moved."""


def table_of(calibration: Calibration, overlap='mean'):
    return voxel_table(calibration, (16, 16), HEIGHTS_M, RANGE, (8, 12), 8, overlap)


def read_voxels(table, features: torch.Tensor) -> torch.Tensor:
    """(V, P, C): what each voxel reads, for every height has channels of its own."""
    own = torch.einsum('zy,vnchw->vnzychw', torch.eye(4), features).flatten(2, 4)
    return table.read(own).unflatten(2, (4, -1)).flatten(1, 2)


def read_slowly(features: torch.Tensor, calibration: Calibration, stride: int, overlap: str) -> torch.Tensor:
    """(V, P, C), one voxel and one camera after the other, in numpy."""
    maps, valid = features.numpy(), calibration.cam_valid.numpy()
    sizes, raw_sizes = calibration.img_hw.numpy(), calibration.img_hw_raw.numpy()
    extrinsics, intrinsics, augs = (getattr(calibration, name).double().numpy()
                                    for name in ('cam_from_lidar', 'img_from_cam', 'img_aug'))
    lidar_from_bev = np.linalg.inv(calibration.bev_aug.double().numpy())
    places = [(-15.0 + 2 * x, -15.0 + 2 * y, z, 1.0) for y in range(16) for x in range(16) for z in HEIGHTS_M]
    read = np.zeros((len(maps), len(places), maps.shape[2]), dtype=np.float32)
    for v in range(len(maps)):
        for p, place in enumerate(places):
            found = []
            for n in range(maps.shape[1]):
                right, down, ahead, _ = extrinsics[v, n] @ lidar_from_bev[v] @ place
                if valid[v, n] and ahead > 0.1:
                    raw = intrinsics[v, n, :2, :3] @ (right / ahead, down / ahead, 1.0)
                    col, row = augs[v, n, :2, :2] @ raw + augs[v, n, :2, 2]
                    inside = 0 <= col + 0.5 < sizes[v, n, 1] and 0 <= row + 0.5 < sizes[v, n, 0]
                    if inside and 0 <= raw[0] + 0.5 < raw_sizes[v, n, 1] and 0 <= raw[1] + 0.5 < raw_sizes[v, n, 0]:
                        found.append(maps[v, n, :, math.floor((row + 0.5) / stride), math.floor((col + 0.5) / stride)])
            if found:
                read[v, p] = found[0] if overlap == 'first' else np.mean(found, axis=0)
    return torch.from_numpy(read)


@pytest.mark.parametrize('overlap', ['mean', 'first'])
def test_every_voxel_reads_the_cell_that_a_slow_loop_finds(overlap):
    calibration = ring(5, missing={0: [3], 1: [0, 2]}, mixed=True, bev_aug=TURNED)
    flipped = calibration.with_img_aug(2, flip_homography(96), (64, 96))
    flipped = flipped.with_img_aug(1, crop_homography(-16, 4) @ resize_homography((40, 72), (48, 80)), (40, 90))
    _, (features,) = inputs(flipped)
    table = table_of(flipped, overlap=overlap)
    wanted = read_slowly(features, flipped, 8, overlap)
    torch.testing.assert_close(read_voxels(table, features), wanted, atol=1e-6, rtol=0)
    seen = wanted.abs().amax(-1).unflatten(1, (-1, 4)).amax(-1) > 0
    assert torch.equal(table.seen, seen) and 0.3 < seen.float().mean() < 0.95
    assert table.shares[table.shares > 0].amin() == (0.5 if overlap == 'mean' else 1), 'cameras overlap'


def test_overlapping_cameras_are_averaged_or_the_first_is_read():
    """Two cameras at one place: by hand."""
    rig = Calibration.from_info({NAMES[0]: camera(0.0), NAMES[1]: camera(0.0)})
    features = torch.zeros(1, 2, 5, 8, 12)
    features[:, 0], features[:, 1] = 3.0, 4.0
    for overlap, value in (('mean', 3.5), ('first', 3.0)):
        read = read_voxels(table_of(rig, overlap=overlap), features)
        assert read.unique().tolist() == [0.0, value]
    rig.cam_valid[0, 0] = False
    assert read_voxels(table_of(replace(rig), overlap='first'), features).unique().tolist() == [0.0, 4.0]


def test_augmenting_images_and_features_alike_changes_nothing():
    """A quarter of the image is cut off and its features with it: the same voxels read the same features."""
    calibration = ring(4)
    bev, (features,) = inputs(calibration)
    cut = calibration
    for n in range(4):
        cut = cut.with_img_aug(n, crop_homography(24, 16), (48, 72))
    layer = build('fast')
    smaller = torch.zeros_like(features)
    smaller[..., :6, :9] = features[..., 2:, 3:]
    kept = torch.zeros_like(features)
    kept[..., 2:, 3:] = 1
    seen_before = read_voxels(table_of(calibration), features * kept)
    seen_after = read_voxels(table_of(cut), smaller)
    inside = read_voxels(table_of(calibration), kept)[..., 0] == 1  # those that no camera loses
    torch.testing.assert_close(seen_after[inside], seen_before[inside], atol=1e-6, rtol=0)
    assert inside.float().mean() > 0.2
    widened = cut
    for n in range(4):  # and what was done to the metadata is undone
        widened = widened.with_img_aug(n, crop_homography(-24, -16), (64, 96))
    torch.testing.assert_close(layer(bev, [features], widened), layer(bev, [features], calibration), atol=1e-4, rtol=0)


def test_a_turned_bev_reads_what_the_unturned_one_reads_there():
    """The rig with a quarter turn of the BEV: the map of voxels turns with it."""
    quarter = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    _, (features,) = inputs(ring(4))
    plain, turned = (read_voxels(table_of(rig), features).view(2, 16, 16, 4, 5)
                     for rig in (ring(4), ring(4, bev_aug=quarter)))
    torch.testing.assert_close(turned, plain.rot90(-1, (1, 2)), atol=1e-6, rtol=0)


def test_only_cells_below_seen_voxels_change_and_features_get_gradients():
    layer, calibration = build('fast'), ring(1)
    bev, (features,) = inputs(calibration)
    features.requires_grad_(True)
    fused = layer(bev, [features], calibration)
    seen = table_of(calibration).seen.view(2, 1, 16, 16)
    assert torch.equal(fused.masked_fill(seen, 0), bev.masked_fill(seen, 0))
    assert ((fused - bev).abs().amax(1, keepdim=True) > 0)[seen].all() and 0.1 < seen.float().mean() < 0.5
    fused.square().sum().backward()
    rows = table_of(calibration).rows
    read = torch.zeros(2 * 8 * 12 * 4 + 1, dtype=torch.bool).index_fill(0, rows.flatten(), True)[:-1].view(2, 1, 8, 12, 4)
    assert torch.equal(features.grad.abs().amax(2) > 0, read.any(-1)), 'the cells that are read learn, no others'


def test_nothing_waits_for_the_device():
    layer, calibration = build('fast').train(), ring(4)
    bev, feats = inputs(calibration)
    assert calibration.facts and calibration.cam_from_bev.shape  # asked once for a rig, by whoever comes first
    with counting() as counts:
        layer(bev, feats, calibration).sum().backward()
    assert counts.total == 0, counts


def test_the_table_of_a_rig_is_computed_once(monkeypatch):
    """Every change of what it depends on makes a new one, and the result is that without a cache."""
    made = []
    monkeypatch.setattr(fast_bev, 'voxel_table', lambda *args: made.append(args) or voxel_table(*args))
    layer, fresh, calibration = build('fast'), build('fast'), ring(4, mixed=True)
    bev, feats = inputs(calibration)
    cropped = replace(calibration, img_hw=calibration.img_hw - 8)
    rigs = [calibration, Calibration.cat([calibration.select([0]), calibration.select([1])]), cropped,
            replace(cropped, seen_px=cropped.seen_px / 2), calibration.with_noise(1.001 * torch.eye(4).expand(2, 4, 4, 4)),
            ring(4, mixed=True, bev_aug=TURNED), ring(4, mixed=True, missing={1: [2]}), calibration]
    counts = []
    with torch.no_grad():
        for rig in rigs:
            fused = layer(bev, feats, rig)
            counts.append(len(made))
            fresh.cache.clear()
            assert torch.equal(fused, fresh(bev, feats, rig))
            del made[:]
        layer(bev, feats, rig)
        with counting() as waits:
            layer(bev[:], feats, replace(rig)._keep(rig.facts))
        assert not made and waits.total <= 1, waits
    assert counts == [1, 0, 1, 1, 1, 1, 1, 1]
    layer(bev, feats, rig)  # with gradients nothing is kept
    layer.train()(bev, feats, rig)
    assert len(made) == 2
    assert not any('cache' in name for name in layer.state_dict())


def test_cameras_alone_make_a_bev():
    layer, calibration = build('fast', query_init='learned', random_weights=False), ring(3, missing={1: [0, 1, 2]})
    _, (features,) = inputs(calibration)
    made = layer(None, [features], calibration)
    seen = table_of(calibration).seen.view(2, 1, 16, 16)
    assert made.shape == (2, 6, 16, 16) and torch.equal(made.abs().amax(1, keepdim=True) > 0, seen)
    assert made[0].std() > 0.01 and torch.equal(made[1], torch.zeros(6, 16, 16))
    single = layer(None, [features[:1]], calibration.select([0]))
    torch.testing.assert_close(single, made[:1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match='FastBEVFusion makes BEV features of the cameras alone'):
        layer(made, [features], calibration)


def test_bad_settings_are_errors():
    with pytest.raises(ValueError, match='fusion_layer.query_init'):
        build('fast', query_init='none')
    with pytest.raises(ValueError, match='fusion_layer.overlap'):
        build('fast', overlap='max')
    with pytest.raises(ValueError, match='fusion_layer.heights_m'):
        build('fast', heights_m=())
    bev, feats = inputs(ring(1))
    with pytest.raises(ValueError, match='fusion_layer.bev_shape'):
        build('fast', bev_shape=(16, 8))(bev, feats, ring(1))
