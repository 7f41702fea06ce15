"""Every query detector of configs/query, small: batches, cameras, missing sensors, scenes, augmentation, gradients, truth."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from unit.queries.scenes import SIZES, Frames, Watch, build_small, collated, pose_of, streamed

from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries import QueryHead

QUERY = Path(__file__).resolve().parents[3] / 'configs' / 'query'
LEAVES = sorted(path.stem for path in QUERY.glob('*tiny-synthetic.py'))
TOLERANCE = 1e-4


@functools.cache
def config(leaf):
    return Config.fromfile(QUERY / f'{leaf}.py')


@functools.cache
def detector(leaf):
    """In eval mode; a test leaves it as it was."""
    init_default_scope('mmdet3d')
    return build_small(config(leaf))


@pytest.fixture(params=LEAVES)
def model(request):
    return detector(request.param)


def same(found, expected, what=''):
    assert len(found) == len(expected)
    for t, (one, other) in enumerate(zip(found, expected)):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=TOLERANCE,
                                   msg=lambda text, t=t: f'{what}, step {t}: {text}')


def test_no_design_is_left_out():
    heads = {name for name, kind in MODELS.module_dict.items() if isinstance(kind, type) and issubclass(kind, QueryHead)
             and kind.__module__.startswith('projects.')}
    shown = {config(leaf).model.pts_bbox_head.type for leaf in LEAVES}
    assert heads and heads == shown  # a head without a tiny leaf in configs/query is not looked at here


def test_scenes_side_by_side_are_as_each_alone_and_forgotten_by_data(model):
    first, second = Frames().of('a', 3), Frames().of('bb', 3)
    alone = streamed(model, first), streamed(model, second)
    together = streamed(model, first, second)
    for row in range(2):
        same([answer[row:row + 1] for answer in together], alone[row], f'row {row}')
    changes_scene = streamed(model, first[:2] + second[:2], second[:2] + first[:2])  # the session is never cleared in between
    same([answer[:1] for answer in changes_scene[2:]], alone[1][:2], 'a scene after another')
    if model.temporal is not None:
        begins = copy.deepcopy(first[2:])
        begins[0]['data_samples'].set_metainfo(dict(is_scene_start=True))
        cut = streamed(model, begins)
        assert (cut[0] - alone[0][2]).abs().max() > TOLERANCE  # memory has a say at all


def test_any_cameras_of_mixed_sizes_and_a_masked_one_says_nothing(model):
    if not model.with_img_backbone:
        pytest.skip('a detector without cameras')
    for cameras in (1, 5):
        assert all(answer.isfinite().all() for answer in streamed(model, Frames(cameras=cameras).of('a', 2)))
    hidden = Frames(cameras=4, masked=(1,))
    same(streamed(model, replace(hidden, noise=1).of('a', 2)), streamed(model, hidden.of('a', 2)), 'pixels of a masked camera')
    shown = streamed(model, Frames(cameras=4).of('a', 2))
    assert (shown[0] - streamed(model, hidden.of('a', 2))[0]).abs().max() > TOLERANCE
    blind = Frames(cameras=4, masked=(0, 1, 2, 3))
    mixed = streamed(model, blind.of('a', 2), hidden.of('bb', 2))
    same([answer[:1] for answer in mixed], streamed(model, blind.of('a', 2)), 'no camera beside some')
    assert all(answer.isfinite().all() for answer in mixed)


def test_a_frame_without_points_is_as_good_in_a_batch_as_alone(model):
    if not model.with_points:
        pytest.skip('a detector without LiDAR')
    deaf = Frames(lidar=False)
    mixed = streamed(model, deaf.of('a', 2), Frames().of('bb', 2))
    steps = 2 if model.with_img_backbone else 1  # queries that see nothing all score the same: which are remembered is chance
    same([answer[:1] for answer in mixed][:steps], streamed(model, deaf.of('a', 2))[:steps], 'no points beside some')
    assert all(answer.isfinite().all() for answer in mixed)
    assert (mixed[0][:1] - streamed(model, Frames().of('a', 1))[0]).abs().max() > TOLERANCE


def test_augmentation_that_is_undone_changes_nothing(model):
    plain = streamed(model, Frames().of('a', 2))
    for change in (dict(zoom=(1.3, -5.0)), dict(bev_aug=(0.4, 1.05))):
        done, undone = (streamed(model, Frames(**change, undone=undone).of('a', 2)) for undone in (False, True))
        same(undone, plain, f'{change} undone')
        if model.with_img_backbone:
            assert (done[0] - plain[0]).abs().max() > TOLERANCE


def test_fixed_points_keep_their_pixels_under_augmentation(model):
    """As the head is told, of this frame's cameras and of earlier ones: the raw camera's pixel, moved by the zoom."""
    if not model.with_img_backbone:
        pytest.skip('a detector without cameras')
    plain, turned = Frames(), Frames(zoom=(1.3, -5.0), bev_aug=(0.4, 1.05))
    model.session.clear()
    with Watch(model) as watch, torch.no_grad():
        for frame in turned.of('a', 3):
            model(**collated(model, [[frame]]), mode='predict')
    features, readout = watch.given[-1][:2]
    generator = torch.Generator().manual_seed(0)
    global_m = torch.rand(1, 60, 3, generator=generator).double() * torch.tensor([30.0, 30, 3]) + torch.tensor(
        [489.0, -315, 0]).double()
    past = [] if readout.past is None else [frame.calibration for frame in readout.past.frames()]
    for age, rig in enumerate([features.calibration, *past]):
        uv_px, depth_m, _ = rig.project(moved(global_m, turned.bev_from_lidar @ np.linalg.inv(pose_of(2))).float())
        raw_px, raw_m, seen = plain.rig(2 - age).project(moved(global_m, np.linalg.inv(pose_of(2 - age))).float())
        assert seen.sum() > 20
        torch.testing.assert_close(uv_px[seen], raw_px[seen] * 1.3 + torch.tensor([-5.0, 0]), atol=2e-2, rtol=0)


def moved(points, matrix):
    matrix = torch.from_numpy(matrix)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize('leaf', LEAVES)
def test_every_parameter_learns_in_every_step(leaf):
    model = build_small(config(leaf)).train()
    steps = {'plain': Frames(), 'no cameras': Frames(masked=(0, 1, 2)), 'no boxes': Frames(boxes=0),
             'no points': Frames(lidar=False)}
    for what, frames in steps.items():
        model.zero_grad(set_to_none=True)
        losses = model(**collated(model, [frames.of('a', 2), frames.of('bb', 2)], training=True), mode='loss')
        total = model.parse_losses(losses)[0]
        total.backward()
        assert total.isfinite(), what
        untaught = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        broken = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert (what, untaught, broken) == (what, [], [])
        if what == 'plain':
            reached = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
            assert len(reached) > 0.9 * sum(p.requires_grad for p in model.parameters())


def test_nobody_is_told_the_truth_in_eval_mode(model):
    few, many = Frames(boxes=1).of('a', 2), Frames(boxes=9).of('a', 2)
    for frame, other in zip(few, many):
        frame['inputs'] = other['inputs']
    with Watch(model) as watch, torch.no_grad():
        for frames in (few, many):
            model.session.clear()
            model(**collated(model, [frames]), mode='loss')
    assert all(given[2] is None for given in watch.given)
    half = len(watch.answers) // 2
    same(watch.answers[:half], watch.answers[half:], 'other boxes')


def test_the_scenes_have_images_of_mixed_sizes():
    assert len(set(SIZES)) > 2
