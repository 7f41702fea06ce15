"""StreamPETR: what each published quirk changes, streams of several scenes, sensors that are missing, augmented metadata."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.benchmarks.ring import ring
from projects.geometry import flip_homography, transform_points
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.memory import QueryMemory
from projects.memfusion.queries.streampetr_head import QUIRKS
from projects.memfusion.structures import Calibration, FrameBatch, FrameMeta, HeadOutputs, Readout, SceneFeatures, SceneTruth

RANGE = (-20.0, -20.0, -5.0, 20.0, 20.0, 3.0)
CFG = dict(type='StreamPETR', num_classes=3, point_cloud_range=RANGE, queries=dict(num_learned=10, num_propagated=4),
           image_tokens=dict(in_channels=8, num_depths=5), bev_tokens=dict(in_channels=6),
           transformer=dict(dim=16, num_layers=2, num_heads=2, ffn_dim=16, dropout=0.0))
NO_PAST = dict(num_learned=10, num_propagated=0)
MEMORY = QueryMemory(RANGE, embed_dims=16, num_slots=12, num_kept=4)


def build(**changes):
    """Reproducible, in eval mode, no weight is 0."""
    torch.manual_seed(0)
    head = MODELS.build({**CFG, **changes}).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        head.references.weight.uniform_()
    return head


def seen(seed=1, frames=1, cameras=2, bev=True, cut=0):
    """Frames with a ring of cameras of 32 x 64 px, the images `cut` px narrower than their padding."""
    generator = torch.Generator().manual_seed(seed)
    rig = Calibration.cat([ring(cameras, (32, 64 - cut), 30.0 + frame, (31.5, 15.5)) for frame in range(frames)])
    return SceneFeatures(torch.randn(frames, 6, 4, 5, generator=generator) if bev else None,
                         (torch.randn(frames, cameras, 8, 4, 8, generator=generator),), replace(rig, padded_hw=(32, 64)))


def meta(scene, index, bev_aug=None):
    pose = np.eye(4)
    turn = 0.3 * index
    pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    pose[:3, 3] = [1e3, 2.0 * index, 0.0]
    return FrameMeta(f'{scene}{index}', scene, index, index == 0, False, 1.5e9 + 0.5 * index, pose,
                     np.eye(4) if bev_aug is None else bev_aug, True, True)


@torch.no_grad()
def stream(head, metas, features, memory=MEMORY):
    """T lists of metas and T SceneFeatures -> T outputs."""
    state, found = memory.init_state(features[0]), []
    for row, shown in zip(metas, features):
        frames = FrameBatch.from_metas(row, torch.device('cpu'))
        state = memory.align(state, frames)
        readout = memory.read(state, shown, frames)
        found.append(head(shown, readout, None))
        state = memory.write(state, readout, HeadOutputs(found[-1], list), frames)
    return found


def answers(outputs):
    return torch.cat([outputs.logits[-1].sigmoid(), outputs.codes[-1]], dim=-1)


# -- published numbers --------------------------------------------------------------------------------------------------
@pytest.fixture
def replays(repo, monkeypatch):
    monkeypatch.syspath_prepend(repo / 'tests')
    return importlib.import_module('replays.streampetr')


def test_every_quirk_changes_what_the_published_head_finds(replays, repo):
    with np.load(repo / 'tests/reference/streampetr_head.npz') as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays.pop('settings')))
    weights = {name.removeprefix('weights/'): value for name, value in arrays.items() if name.startswith('weights/')}
    head, memory = replays.build(settings, weights)
    given = {name.removeprefix('in/'): torch.from_numpy(value) for name, value in arrays.items() if name.startswith('in/')}
    published = torch.from_numpy(arrays['out/all_cls_scores'])

    def scores():
        steps = [replays.frame(given, t, settings) for t in range(3)]
        found = stream(head, [frames.metas for _, frames in steps], [shown for shown, _ in steps], memory)
        return torch.stack([outputs.logits for outputs in found])

    assert torch.allclose(scores(), published[:3], atol=2e-4)
    changed = {}
    for quirk in set(QUIRKS) - {'unmasked_padding'}:
        head.quirks = head.image_tokens.quirks = frozenset(QUIRKS) - {quirk}
        changed[quirk] = (scores() - published[:3]).abs().max().item()
    small = changed.pop('float32_inverse')
    assert 0 < small < 1e-3 and min(changed.values()) > 1e-3, changed
    assert changed['tiled_focal'] > 0.1


def test_padding_is_attended_to_where_it_was_published():
    head, narrow = build(bev_tokens=None, queries=NO_PAST), seen(bev=False, cut=20)
    filled = replace(narrow, levels=(narrow.levels[0].index_fill(-1, torch.tensor([6, 7]), 5.0),))
    assert torch.equal(answers(head(narrow, Readout(), None)), answers(head(filled, Readout(), None)))
    head.image_tokens.quirks = frozenset(['unmasked_padding'])
    assert (answers(head(narrow, Readout(), None)) - answers(head(filled, Readout(), None))).abs().max() > 1e-3


# -- streams ------------------------------------------------------------------------------------------------------------
def test_interleaved_scenes_find_what_each_finds_alone():
    head = build()
    metas = [[meta('a', t), meta(*other)] for t, other in enumerate([('b', 0), ('c', 0), ('c', 1)])]
    features = [seen(t, 2) for t in range(3)]
    together = stream(head, metas, features)
    for row in range(2):
        alone = stream(head, [[step[row]] for step in metas], [step.take([row]) for step in features])
        for both, one in zip(together, alone):
            assert torch.allclose(answers(both)[row:row + 1], answers(one), atol=1e-5)
            assert torch.equal(both.there[row:row + 1], one.there)
    assert [step.there.sum(1).tolist() for step in together] == [[10, 10], [14, 10], [14, 14]]
    other = stream(head, [[meta('d', 0)], [meta('d', 1)], [meta('d', 2)]], [seen(9), seen(8), features[2].take([0])])
    assert (answers(other[2]) - answers(together[2])[:1]).abs().max() > 1e-3  # another past


def test_what_is_not_there_is_read_by_nobody_and_finds_nothing():
    head, shown = build(), seen()
    fresh = MEMORY.align(MEMORY.init_state(shown), FrameBatch.from_metas([meta('a', 0)], torch.device('cpu')))
    frames = FrameBatch.from_metas([meta('a', 0)], torch.device('cpu'))
    readout = MEMORY.read(fresh, shown, frames)
    other = replace(readout, queries={**readout.queries, 'embeddings': torch.full((1, 12, 16), 3.0)})
    one, two = head(shown, readout, None), head(shown, other, None)
    assert torch.equal(answers(one)[:, :10], answers(two)[:, :10]) and not one.there[:, 10:].any()
    assert len(head.predict_by_feat(one, [dict(box_type_3d=LiDARInstance3DBoxes)])[0]) <= 10 * 3
    assert (one.carried.scores[:, 10:] == -1).all()
    alone = build(queries=NO_PAST)
    alone.load_state_dict({**head.state_dict(), 'start_points': torch.zeros(0, 3)})
    assert torch.allclose(answers(alone(shown, Readout(), None)), answers(one)[:, :10], atol=1e-5)


def test_what_queries_of_a_frame_have_in_common_is_encoded_once():
    head, found = build(), []
    state = MEMORY.init_state(seen())
    with torch.no_grad():
        for t in range(4):
            frames = FrameBatch.from_metas([meta('a', t)], torch.device('cpu'))
            state = MEMORY.align(state, frames)
            readout = MEMORY.read(state, seen(t), frames)
            apart = replace(readout, queries={**readout.queries, 'run': torch.tensor([0])})
            found.append([head(seen(t), each, None) for each in (readout, apart)])
            state = MEMORY.write(state, readout, HeadOutputs(found[-1][0], list), frames)
    assert readout.queries['run'].item() == 4 and found[-1][0].there is None
    assert all(torch.allclose(answers(one), answers(two), atol=1e-5) for one, two in found)


def test_noisy_queries_change_nothing_for_the_others():
    head = build(denoising=dict(groups=2)).train()
    shown, frames = seen(), FrameBatch.from_metas([meta('a', 0)], torch.device('cpu'))
    readout = MEMORY.read(MEMORY.align(MEMORY.init_state(shown), frames), shown, frames)
    truth = SceneTruth((torch.tensor([[1.0, 2, -1, 4, 2, 1.5, 0.3, 1, 0]]),), (torch.tensor([1]),))
    noisy, plain = head(shown, readout, truth), head(shown, readout, None)
    assert noisy.noisy_logits.shape == (2, 1, 2, 3) and torch.allclose(noisy.codes, plain.codes, atol=1e-5)


# -- sensors ------------------------------------------------------------------------------------------------------------
def test_a_camera_that_is_not_there_says_nothing_and_none_at_all_leaves_the_lidar():
    head, shown = build(queries=NO_PAST), seen(cameras=2)

    def without(*names, fill=0.0):
        there = torch.tensor([[name not in names for name in range(2)]])
        level = torch.where(there[..., None, None, None], shown.levels[0], torch.tensor(fill))
        rig = shown.calibration if not names else replace(shown.calibration, cam_valid=there)
        return answers(head(replace(shown, levels=(level,), calibration=rig), Readout(), None))

    assert torch.allclose(without(1), without(1, fill=7.0), atol=1e-6)
    first = replace(seen(cameras=1), levels=(shown.levels[0][:, :1],), bev=shown.bev)
    first = replace(first, calibration=shown.calibration.take_cameras([0]))
    assert torch.allclose(without(1), answers(head(first, Readout(), None)), atol=1e-5)
    assert torch.isfinite(without(0, 1)).all()
    assert (without(0, 1) - without()).abs().max() > 1e-3


@pytest.mark.parametrize('parts', [dict(bev_tokens=None), dict(image_tokens=None), {}])
def test_every_parameter_learns_without_a_box_and_without_a_camera(parts):
    head = build(**parts, denoising=dict(groups=2)).train()
    shown = seen(bev='bev_tokens' not in parts)
    shown = replace(shown, calibration=shown.calibration.without_cameras())
    frames = FrameBatch.from_metas([meta('a', 0)], torch.device('cpu'))
    readout = MEMORY.read(MEMORY.align(MEMORY.init_state(shown), frames), shown, frames)
    boxes = LiDARInstance3DBoxes(torch.zeros(0, 9), box_dim=9)
    samples = [Det3DDataSample(gt_instances_3d=InstanceData(bboxes_3d=boxes, labels_3d=torch.zeros(0, dtype=torch.long)))]
    outputs = head(shown, readout, SceneTruth.of_samples(samples, torch.device('cpu')))
    losses = head.loss_by_feat(outputs, samples)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in head.parameters())
    assert {name.split('.')[0] for name in losses} == {'loss_cls', 'loss_bbox', 'd0', 'dn'}


# -- augmentation -------------------------------------------------------------------------------------------------------
TURN = np.array([[0.0, -1.04, 0, 0.5], [1.04, 0, 0, 0], [0, 0, 1.04, 0], [0, 0, 0, 1]])


def test_augmenting_and_mending_the_metadata_changes_nothing():
    head, turn = build(), torch.from_numpy(TURN)
    features, mended = [seen(t) for t in range(2)], []
    for shown in features:
        rig, flip = shown.calibration.moved(turn[None]).moved(torch.linalg.inv(turn)[None]), flip_homography(64)
        mended.append(replace(shown, calibration=rig.with_img_aug(0, flip, (32, 64)).with_img_aug(0, flip, (32, 64))))
    mended = [replace(shown, calibration=replace(shown.calibration, padded_hw=(32, 64))) for shown in mended]
    plain = stream(head, [[meta('a', t)] for t in range(2)], features)
    same = stream(head, [[meta('a', t, TURN @ np.linalg.inv(TURN))] for t in range(2)], mended)
    assert torch.allclose(answers(plain[1]), answers(same[1]), atol=1e-4)


def test_points_of_a_pixel_turn_with_the_scene_and_stay_where_the_image_is_mirrored():
    part, rig = build().image_tokens, seen().calibration
    around = torch.tensor(part.settings.position_range)

    def points(calibration):
        return part.points(calibration, (4, 8)) * (around[3:] - around[:3]) + around[:3]

    turned = transform_points(torch.from_numpy(TURN).float(), points(rig).flatten(0, -2)).view(1, 2, 4, 8, 5, 3)
    assert torch.allclose(points(rig.moved(torch.from_numpy(TURN)[None])), turned, atol=1e-3)
    mirrored = replace(rig.with_img_aug(0, flip_homography(64), (32, 64)), padded_hw=(32, 64))
    assert torch.allclose(points(mirrored)[:, 0].flip(2), points(rig)[:, 0], atol=1e-3)
    assert torch.allclose(part.cones(part.points(mirrored, (4, 8)), mirrored)[..., :2],
                          part.cones(part.points(rig, (4, 8)), rig)[..., :2])


# -- bad input ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('changes, word', [
    (dict(image_tokens=None, bev_tokens=None), 'nothing to attend to'), (dict(queries=dict(num_learned=0)), 'num_learned'),
    (dict(published_quirks=['straight_lines']), 'straight_lines'), (dict(published_quirks=True), 'cone_depth needs')])
def test_settings_that_do_not_fit_are_named(changes, word):
    with pytest.raises(ValueError, match=word):
        build(**changes)


def test_a_memory_that_is_missing_or_does_not_fit_is_named():
    head, shown = build(), seen()
    with pytest.raises(ValueError, match='model.temporal=dict'):
        head(shown, Readout(), None)
    with pytest.raises(ValueError, match='holds 12 of width 8'):
        head(shown, Readout(queries=dict(embeddings=torch.zeros(1, 12, 8))), None)
    with pytest.raises(ValueError, match='img_backbone'):
        head(replace(shown, levels=None), Readout(), None)
