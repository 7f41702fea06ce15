"""SparseBEV: points and readings against slow ones, the plain form, what each published quirk changes, any rig, any sensor."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from sync_counts import counting

from projects.benchmarks.ring import ring
from projects.benchmarks.sparsebev_plain import plain_mixing, plain_sampling, regrouped
from projects.convert.sparsebev import convert, our_names
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries.map_reading import MapPoints, read_maps
from projects.memfusion.queries.sampled_frames import frames_of, project_points, time_gaps
from projects.memfusion.queries.sparsebev_head import QUIRKS, start_boxes
from projects.memfusion.structures import Calibration, History, PastFrame, Readout, SceneFeatures, SceneTruth

RANGE = (-20.0, -20.0, -5.0, 20.0, 20.0, 3.0)
CFG = dict(type='SparseBEVHead', num_classes=3, point_cloud_range=RANGE, num_queries=25,
           inputs=dict(num_frames=3, bev_channels=6),
           transformer=dict(dim=16, num_layers=2, num_heads=2, ffn_dim=16, num_groups=2, num_points=3, num_levels=2,
                            out_points=5, dropout=0.0))
CAMERAS_ONLY = dict(num_frames=3)


def build(**changes):
    """Reproducible, in eval mode, no weight is 0."""
    torch.manual_seed(0)
    head = MODELS.build({**CFG, **changes}).eval()
    with torch.no_grad():
        for parameter in head.decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return head


def rig_of(frames, cameras, cut, seed):
    """A ring of cameras of 32 x 64 px that see overlapping quarters, the images `cut` px narrower than their padding."""
    rigs = [ring(cameras, (32, 64 - cut), 20.0, (31.5, 15.5), 0.3 * frame + 0.1 * seed) for frame in range(frames)]
    stamps = 10 + torch.arange(cameras, dtype=torch.float64).expand(frames, -1) * 0.01 - 0.53 * seed
    return replace(Calibration.cat(rigs), padded_hw=(32, 64), t_cam=stamps)


def scene(frames=2, cameras=4, bev=True, cut=0, past=2, there=True):
    """Frames with `past` earlier ones, half a second apart; the last frame has but one if not `there`."""
    generator = torch.Generator().manual_seed(1)

    def draw(*size):
        return torch.randn(frames, *size, generator=generator)

    levels = [tuple(draw(cameras, 16, 8 // scale, 16 // scale) for scale in (1, 2)) for _ in range(past + 1)]
    lidar = draw(6, 8, 10) if bev else None
    earlier = []
    for i in range(past):
        here = (True,) * (frames - 1) + (there or i == 0,)
        rig, shown = rig_of(frames, cameras, cut, i + 1), torch.tensor(here).view(-1, 1, 1, 1, 1)
        rig = replace(rig, cam_valid=rig.cam_valid & shown[:, :, 0, 0, 0])
        earlier.append(PastFrame(tuple(level * shown for level in levels[i + 1]), rig,
                                 torch.where(shown.view(-1), 0.5 * (i + 1), 0.0).double(), here))
    features = SceneFeatures(lidar, levels[0], rig_of(frames, cameras, cut, 0),
                             torch.ones(frames, 1, 8, 10, dtype=torch.bool) if bev else None)
    return features, Readout(past=History.of_step(earlier) if past else None)


@torch.no_grad()
def answer(head, seen):
    """Logits and codes; bounded, for codes hold metres and random velocities."""
    found = head(*seen, None)
    return torch.cat([found.logits[-1], found.codes[-1]], dim=-1)


def same(one, other, atol=1e-4):
    torch.testing.assert_close(one, other, atol=atol, rtol=1e-4)


# -- reading --------------------------------------------------------------------------------------------------------------
def slow_reading(source, b, q, g, p):
    """The mean over the views of the weighted levels at one point, corner by corner; the nearest cell beyond a map's."""
    groups, views = source.seen.shape[3], []
    for n in range(source.seen.shape[1]):
        if source.seen[b, n, q, g, p]:
            total = 0
            for level, weight in zip(source.levels, source.weights[b, q, g, p]):
                maps = level[b, n].unflatten(0, (groups, -1))[g]
                at = [(float(source.uv_px[b, n, q, g, p, i]) + 0.5) * maps.shape[2 - i] / source.covered_hw[1 - i] - 0.5
                      for i in (0, 1)]
                x, y = (min(max(value, 0), maps.shape[2 - i] - 1) for i, value in enumerate(at))
                for column in (math.floor(x), math.floor(x) + 1):
                    for row in (math.floor(y), math.floor(y) + 1):
                        share = (1 - abs(x - column)) * (1 - abs(y - row))
                        if share:
                            total = total + weight * share * maps[:, row, column]
            views.append(total)
    return sum(views) / len(views) if views else torch.zeros(source.levels[0].shape[2] // groups)


def test_maps_are_read_as_one_point_after_another():
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 6, 4, 8), torch.randn(2, 3, 6, 2, 4)]
    uv_px, seen = torch.rand(2, 3, 4, 2, 3, 2) * torch.tensor([64.0, 32]) - 0.5, torch.rand(2, 3, 4, 2, 3) < 0.5
    first = MapPoints(levels, uv_px, seen, torch.rand(2, 4, 2, 3, 2), (32, 64))
    second = replace(first, seen=torch.zeros_like(seen))
    found = read_maps([first, second, replace(first, levels=levels[1:], weights=torch.ones(2, 4, 2, 3, 1))])
    assert found.shape == (2, 4, 2, 9, 3) and (found[:, :, :, 3:6] == 0).all()
    for at in [(0, 0, 0, 0), (1, 3, 1, 2), (1, 2, 0, 1), (0, 1, 1, 1)]:
        same(found[at], slow_reading(first, *at), 1e-5)
        third = replace(first, levels=levels[1:], weights=torch.ones(2, 4, 2, 3, 1))
        same(found[(*at[:3], 6 + at[3])], slow_reading(third, *at), 1e-5)


def test_sampling_and_mixing_equal_the_plain_form():
    head, seen = build(published_quirks=True, inputs=CAMERAS_ONLY), scene(bev=False)
    around, layer = head.surroundings(*seen), head.decoder.decoder_layer
    boxes, query = start_boxes(5, True).expand(2, -1, -1), torch.randn(2, 25, 16)
    levels = [torch.stack([frame.levels[level] for frame in around.frames], dim=1) for level in (0, 1)]
    matrices = torch.stack([frame.calibration.img_from_lidar for frame in around.frames], dim=1)
    ours = layer.sampling(boxes, query, around.frames, around.gaps_s, None)
    plain = plain_sampling(layer.sampling, boxes, query, regrouped(levels, 2), matrices, (32, 64), around.gaps_s)
    same(ours, plain)
    same(layer.mixing(ours, query), plain_mixing(layer.mixing, plain, query))


def test_points_move_with_their_box():
    """A box of 4 x 2 x 1 m, turned to the left, that drives 3 m/s to the right: points in its size, and 0.5 s ago."""
    sampling = build().decoder.decoder_layer.sampling
    box = torch.tensor([[[0.75, 0.5, 0.625, math.log(4), math.log(2), 0.0, 1.0, 0.0, 3.0, -1.0]]])
    offsets = torch.tensor([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]).repeat(2, 1)[None, None]
    now = sampling.points(box, offsets)[0, 0, 1]
    same(now, torch.tensor([[10.0, 2, 0], [9, 0, 0], [10, 0, 0.5]]), 1e-5)
    before = sampling.moved(sampling.points(box, offsets), box, torch.tensor([[0.0, 0.5]]))[0, 1, 0, 1]
    same(before, now + torch.tensor([-1.5, 0.5, 0]), 1e-5)


# -- quirks ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('quirk', QUIRKS)
def test_each_quirk_changes_what_is_found(quirk):
    seen = scene(there=False)
    assert (answer(build(), seen) - answer(build(published_quirks=(quirk,)), seen)).abs().max() > 1e-3


# -- any rig --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('quirks', [False, True], ids=['ours', 'published'])
def test_a_batch_is_its_samples(quirks):
    head, (features, readout) = build(published_quirks=quirks), scene(there=False)
    together = answer(head, (features, readout))
    for row in (0, 1):
        same(answer(head, (features.take([row]), readout.take([row])))[0], together[row])


def test_cameras_that_are_not_there_and_their_order_say_nothing():
    head, (features, readout) = build(), scene()
    rig = features.calibration
    masked = replace(rig, cam_valid=rig.cam_valid & torch.tensor([True, True, False, True]))
    other = tuple(torch.where(masked.cam_valid[..., None, None, None], level, 7.0) for level in features.levels)
    without = answer(head, (replace(features, calibration=masked), readout))
    assert (without - answer(head, (features, readout))).abs().max() > 1e-3
    same(without, answer(head, (replace(features, calibration=masked, levels=other), readout)))
    order = [2, 0, 3, 1]
    levels = tuple(level[:, order] for level in features.levels)
    turned = replace(features, calibration=masked.take_cameras(order), levels=levels)
    same(without, answer(head, (turned, readout)))


def test_padding_of_images_is_not_read():
    head, (features, readout) = build(), scene(cut=16)
    changed = tuple(level.clone() for level in features.levels)
    for level, cells in zip(changed, (12, 6)):
        level[..., cells:] = 9.0
    same(answer(head, (features, readout)), answer(head, (replace(features, levels=changed), readout)))


def test_frames_that_are_not_there_say_nothing():
    head, (features, readout) = build(), scene(there=False)
    oldest = readout.past.steps[0][1]
    changed = replace(oldest, levels=tuple(torch.cat([level[:1], level[1:] + 5]) for level in oldest.levels))
    other = Readout(past=History.of_step([readout.past.steps[0][0], changed]))
    same(answer(head, (features, readout)), answer(head, (features, other)))


def test_without_lidar_its_map_says_nothing():
    head, (features, readout) = build(), scene()
    empty = replace(features, observed=torch.zeros_like(features.observed))
    found = answer(head, (empty, readout))
    assert (found - answer(head, (features, readout))).abs().max() > 1e-3
    same(found, answer(head, (replace(empty, bev=empty.bev + 1), readout)))


def test_augmenting_and_taking_it_back_changes_nothing():
    head, (features, readout) = build(inputs=CAMERAS_ONLY), scene(bev=False)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = 1.05 * torch.tensor([[0.8, -0.6], [0.6, 0.8]])

    def there_and_back(rig):
        size = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=torch.float64))
        for step in (size, size.inverse()):
            for camera in range(len(rig.cam_names)):
                rig = rig.with_img_aug(camera, step, (32, 64))
        return replace(rig.moved(turn.expand(2, 4, 4)).moved(turn.inverse().expand(2, 4, 4)), padded_hw=(32, 64))

    past = [replace(frame, calibration=there_and_back(frame.calibration)) for frame in readout.past.steps[0]]
    changed = replace(features, calibration=there_and_back(features.calibration))
    same(answer(head, (features, readout)), answer(head, (changed, Readout(past=History.of_step(past)))))


@pytest.mark.parametrize('quirks', [(), QUIRKS], ids=['ours', 'published'])
def test_fixed_points_keep_their_pixels_when_the_scene_is_turned(quirks):
    frame = frames_of(*scene(bev=False, past=0), 1)[0]
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2], turn[:2, 3] = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([2.0, 1.0])
    points_m = torch.rand(2, 30, 3) * 20 - 10
    moved_m = points_m @ turn[:3, :3].float().T + turn[:3, 3].float()
    before = project_points(frame, points_m, quirks)
    after = project_points(replace(frame, calibration=frame.calibration.moved(turn.expand(2, 4, 4))), moved_m, quirks)
    assert before[2].any() and torch.equal(before[2], after[2])
    same(before[0][before[2]], after[0][after[2]], 1e-3)


def test_one_sensor_alone():
    cameras, lidar = build(inputs=CAMERAS_ONLY), build(inputs=dict(num_frames=0, bev_channels=6))
    assert (cameras.needs_levels, cameras.bev_channels, lidar.needs_levels, lidar.bev_channels) == (True, None, False, 6)
    seen = scene()
    blind = (SceneFeatures(bev=seen[0].bev), Readout())
    same(answer(lidar, seen), answer(lidar, blind))
    same(answer(cameras, seen), answer(cameras, (replace(seen[0], bev=None, observed=None), seen[1])))
    one = build(inputs=dict(num_frames=2, read_levels=(1, 0)), transformer={**CFG['transformer'], 'num_levels': 2})
    turned = scene(past=1)
    swapped = tuple(replace(frame, levels=frame.levels[::-1]) for frame in turned[1].past.steps[0])
    plain = build(inputs=dict(num_frames=2))
    same(answer(one, turned), answer(plain, (replace(turned[0], levels=turned[0].levels[::-1]),
                                             Readout(past=History.of_step(swapped)))))


# -- training, cost -------------------------------------------------------------------------------------------------------
def test_training_reaches_everything_with_or_without_recomputing():
    boxes = torch.tensor([[4.0, 2, -1, 4, 2, 1.5, 0.3]])
    truth = SceneTruth((boxes, boxes[:0]), (torch.tensor([1]), torch.tensor([1])[:0]))
    grads = []
    for with_cp in (False, True):
        head = build(transformer={**CFG['transformer'], 'with_cp': with_cp}, denoising=dict(groups=2))
        features, readout = scene()
        levels = tuple(level.requires_grad_() for level in features.levels)
        torch.manual_seed(3)
        found = head.train()(replace(features, levels=levels), readout, truth)
        assert found.noisy_logits.shape == (2, 2, 2, 3)
        (found.logits.sum() + found.codes.sum() + found.noisy_logits.sum()).backward()
        assert [name for name, part in head.named_parameters() if part.grad is None or not part.grad.isfinite().all()] == []
        grads.append([levels[0].grad, head.decoder.decoder_layer.sampling.sampling_offset.weight.grad])
        same(found.logits, head.train()(features, readout, None).logits)  # noisy queries tell the others nothing
    assert grads[0][1].abs().max() > 0
    for plain, again in zip(*grads):
        same(plain, again)


def test_the_host_waits_once_a_layer():
    head, seen = build(), scene()
    answer(head, seen)
    with counting() as counts:
        answer(head, seen)
    assert counts.total <= 2, counts


# -- errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('changes', 'said'), [
    (dict(num_queries=24), 'num_queries must be a square'), (dict(inputs=dict(num_frames=0)), 'sees nothing'),
    (dict(inputs=dict(bev_channels=6), transformer={**CFG['transformer'], 'dim': 12}), 'dim=12 must be a multiple of 8 where'),
    (dict(published_quirks=('typo',)), r"published_quirks has \['typo'\]"),
    (dict(transformer={**CFG['transformer'], 'num_groups': 3}), 'num_groups=3 must divide dim=16'),
    (dict(transformer={**CFG['transformer'], 'views_per_point': 0}), 'views_per_point must be at least 1')])
def test_wrong_settings_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        build(**changes)


@pytest.mark.parametrize(('changes', 'seen', 'said'), [
    (dict(), dict(past=1), r"memory gives 1 earlier frames: set\s+model.temporal=dict\(type='FrameRing', num_"),
    (dict(inputs=dict(num_frames=1)), dict(), 'model.temporal=None'), (dict(), dict(bev=False), 'BEV features are needed'),
    (dict(transformer={**CFG['transformer'], 'num_levels': 3}), dict(), 'num_levels=3, but 2 levels are read'),
    (dict(transformer={**CFG['transformer'], 'dim': 8}), dict(), 'dim=8, but the image levels have 16 channels')])
def test_what_does_not_fit_is_named(changes, seen, said):
    with pytest.raises(ValueError, match=said):
        answer(build(**changes), scene(**seen))


def test_levels_that_the_memory_does_not_keep_are_named():
    features, readout = scene()
    kept = [replace(frame, levels=(frame.levels[0], frame.levels[1][..., :0, :0])) for frame in readout.past.steps[0]]
    with pytest.raises(ValueError, match=r'let model\.temporal\.levels keep all'):
        answer(build(), (features, Readout(past=History.of_step(kept))))


def test_images_are_asked_for_by_name():
    with pytest.raises(ValueError, match=r'inputs\.num_frames asks for images'):
        answer(build(), (replace(scene()[0], levels=None, calibration=None), Readout()))


# -- official weights -----------------------------------------------------------------------------------------------------
def test_official_names_fit_the_published_head():
    shapes = json.loads((Path(__file__).parents[2] / 'reference/sparsebev_state_dict.json').read_text())
    official = {name: shape for name, shape in shapes.items() if name.startswith('pts_bbox_head.')}
    with torch.device('meta'):
        head = MODELS.build(dict(type='SparseBEVHead', num_classes=10, point_cloud_range=RANGE))
    ours = {f'pts_bbox_head.{name}': list(value.shape) for name, value in head.state_dict().items()}
    assert {name: official[theirs] for theirs, name in our_names(official).items() if name} == ours
    assert [name for name, found in our_names(official).items() if found is None] == ['pts_bbox_head.code_weights']
    with pytest.raises(ValueError, match='1 entries that the head of SparseBEV does not have: pts_bbox_head.other'):
        convert({'pts_bbox_head.other': torch.zeros(1)})


def test_time_is_told_by_stamps():
    frames = frames_of(*scene(bev=False, there=False), 3)
    same(time_gaps(frames), torch.tensor([[0, 0.5, 1.0], [0, 0.5, 0]]))
    same(time_gaps(frames, ('camera_stamps',)), torch.tensor([[0, 0.53, 1.06], [0, 0.53, 0]]))
    again = frames_of(*scene(bev=False, there=False), 3, ('repeated_frames',))
    same(again[2].levels[0][1], frames[1].levels[0][1])
    assert torch.equal(again[2].age_s, torch.tensor([1.0, 0.5], dtype=torch.float64))
