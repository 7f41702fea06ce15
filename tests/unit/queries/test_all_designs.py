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
from unit.queries import scenes
from unit.queries.scenes import Frames, Watch, build_small, collated, pose_of, streamed

from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.detectors.session import TestMode
from projects.memfusion.fusion import FastBEVFusion
from projects.memfusion.memory import FrameRing
from projects.memfusion.queries import QueryHead
from projects.memfusion.visualization import QueryRecorder

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
    """The same answers (B, Q, n), in whatever order: remembered queries of equal scores may change places."""
    assert len(found) == len(expected) > 0
    for t, (one, other) in enumerate(zip(found, expected)):
        assert one.shape == other.shape
        apart = (one[:, :, None] - other[:, None]).abs() / (1 + other[:, None].abs())
        apart = apart.amax(-1)
        worst = float(torch.maximum(apart.amin(1).amax(), apart.amin(2).amax()))
        assert worst < TOLERANCE, f'{what}, step {t}: {worst} apart'


def test_no_design_is_left_out():
    heads = {name for name, kind in MODELS.module_dict.items() if isinstance(kind, type) and issubclass(kind, QueryHead)
             and kind.__module__.startswith('projects.')}
    shown = {config(leaf).model.pts_bbox_head.type for leaf in LEAVES}
    assert heads and heads == shown  # a head without a tiny leaf in configs/query is not looked at here


def test_scenes_side_by_side_are_as_each_alone_and_forgotten_by_data(model):
    first, second = Frames().of('a', 2), Frames().of('bb', 2)
    alone = streamed(model, first), streamed(model, second)
    together = streamed(model, first + second, second + first)  # the session is never cleared in between
    for row in range(2):
        same([answer[row:row + 1] for answer in together], alone[row] + alone[1 - row], f'row {row}')
    if model.temporal is not None:  # memory has a say at all
        assert (streamed(model, Frames().of('a', 1, start=1))[0] - alone[0][1]).abs().max() > TOLERANCE


def test_any_cameras_of_mixed_sizes_and_a_masked_one_says_nothing(model):
    if not model.with_img_backbone:
        pytest.skip('a detector without cameras')
    hidden, blind = Frames(cameras=4, masked=(1,)), Frames(cameras=4, masked=(0, 1, 2, 3))
    mixed = streamed(model, blind.of('a', 2), hidden.of('bb', 2))
    same([answer[:1] for answer in mixed], streamed(model, blind.of('a', 2)), 'no camera beside some')
    same([answer[1:] for answer in mixed], streamed(model, replace(hidden, noise=1).of('bb', 2)), 'pixels of a masked camera')
    for others in (Frames(cameras=4), Frames(cameras=1), Frames(cameras=5)):
        answer = streamed(model, others.of('bb', 1))[0]
        assert answer.isfinite().all() and (answer - mixed[0][1:]).abs().max() > TOLERANCE


def test_a_frame_without_points_is_as_good_in_a_batch_as_alone(model):
    if not model.with_points:
        pytest.skip('a detector without LiDAR')
    deaf = Frames(lidar=False)
    mixed = streamed(model, deaf.of('a', 2), Frames().of('bb', 2))
    steps = 2 if model.with_img_backbone else 1  # queries that see nothing all score the same: which are remembered is chance
    same([answer[:1] for answer in mixed][:steps], streamed(model, deaf.of('a', 2))[:steps], 'no points beside some')
    assert all(answer.isfinite().all() for answer in mixed)
    assert (mixed[0][:1] - streamed(model, Frames().of('a', 1))[0]).abs().max() > TOLERANCE


def test_what_a_frame_without_points_has_in_its_bev_says_nothing(model):
    if not model.with_points:
        pytest.skip('a detector without LiDAR')
    deaf = Frames(lidar=False).of('a', 1)
    plain = streamed(model, deaf)
    hook = model.pts_neck.register_forward_hook(lambda module, args, out: [level + 3.0 for level in out])
    same(streamed(model, deaf), plain, 'another BEV')
    assert (streamed(model, Frames().of('a', 1))[0] - plain[0]).abs().max() > TOLERANCE
    hook.remove()


def test_a_bev_that_cameras_wrote_counts_where_there_are_no_points(model):
    """Behind a fusion layer the BEV says something if either sensor wrote it."""
    if not (model.with_points and model.with_img_backbone):
        pytest.skip('a detector without cameras, or without LiDAR')
    fused = copy.copy(model)  # shares the modules, but for the fusion layer that it has beside
    fused._modules = dict(model._modules)
    torch.manual_seed(3)
    fused.fusion_layer = FastBEVFusion(96, 64, model.grid.point_cloud_range, model.grid.bev_shape, (8,)).eval()
    torch.nn.init.normal_(fused.fusion_layer.output.weight, std=0.3)
    for cameras, says in ((Frames(lidar=False), True), (Frames(lidar=False, masked=(0, 1, 2)), False)):
        plain = streamed(fused, cameras.of('a', 1))[0]
        with fused.pts_neck.register_forward_hook(lambda module, args, out: [level + 3.0 for level in out]):
            apart = (streamed(fused, cameras.of('a', 1))[0] - plain).abs().max()
        assert (apart > TOLERANCE) == says


@pytest.mark.parametrize('mode', ['streaming', 'window'])
def test_scenes_of_other_image_sizes_meet_in_a_batch(model, monkeypatch, mode):
    """What was padded alone is padded more, or less, beside another scene."""
    if not model.with_img_backbone or (mode == 'window' and model.temporal is None):
        pytest.skip('a detector without cameras, or without memory')
    monkeypatch.setattr(model, 'test_mode', TestMode(mode, seq_len=3))
    small = Frames().of('a', 3)
    monkeypatch.setattr(scenes, 'SIZES', ((64, 96), (48, 96), (64, 64)))
    large = Frames().of('bb', 3)
    alone, mixed = [], []
    for answers, steps in ((alone, [[frame] for frame in large]), (mixed, (
            [small[0]], [large[0]], [small[1], large[1]], [small[2]], [large[2]]))):
        model.session.clear()
        for step in steps:
            with Watch(model) as watch, torch.no_grad():
                model(**collated(model, [[frame] for frame in step]), mode='predict')
            answers.append(watch.answers[-1])
    assert all(answer.isfinite().all() for answer in mixed)
    same([mixed[1], mixed[2][1:], mixed[4]], alone, 'beside smaller images')
    model.session.clear()


def test_augmentation_that_is_undone_changes_nothing(model):
    plain = streamed(model, Frames().of('a', 2))
    for change in (dict(zoom=(1.3, -5.0)), dict(bev_aug=(0.4, 1.05))):
        same(streamed(model, Frames(**change, undone=True).of('a', 2)), plain, f'{change} undone')
        if model.with_img_backbone:
            assert (streamed(model, Frames(**change).of('a', 1))[0] - plain[0]).abs().max() > TOLERANCE


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


def test_every_parameter_learns_in_every_step(model):
    model = copy.deepcopy(model).train()
    steps = {'no boxes': Frames(cameras=2, boxes=0)}
    if model.with_img_backbone:
        steps['no cameras'] = Frames(cameras=2, masked=(0, 1))
    if model.with_points:
        steps['no points'] = Frames(cameras=2, lidar=False)
    for what, frames in {'plain': Frames(cameras=2), **steps}.items():
        model.zero_grad(set_to_none=True)
        clips = [frames.of('a', 2), frames.of('bb', 2)] if what == 'plain' else [frames.of('a', 2)]
        total = model.parse_losses(model(**collated(model, clips, training=True), mode='loss'))[0]
        total.backward()
        assert total.isfinite(), what
        untaught = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        broken = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert (what, untaught, broken) == (what, [], [])
        if what == 'plain':
            reached = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
            assert len(reached) > 0.9 * sum(p.requires_grad for p in model.parameters())


def test_who_reads_a_level_that_there_is_not_is_named():
    model = copy.deepcopy(detector('petrv2_r18_fpn_tiny-synthetic')).train()
    model.pts_bbox_head.read_levels = (5,)
    with pytest.raises(ValueError, match=r'PETRv2 reads the image levels \[5\], but img_neck gives 2 levels'):
        model(**collated(model, [Frames(cameras=2).of('a', 2)], training=True), mode='loss')


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf.startswith(('sparsebev_r18_p', 'streampetr_r18_p'))])
def test_lidar_of_frames_that_nobody_reads_is_not_encoded(leaf, monkeypatch):
    """Clips whose last frame learns, and a memory that keeps images: one LiDAR frame a clip, and the same is learned."""
    model = copy.deepcopy(detector(leaf)).train()
    monkeypatch.setattr(model, 'loss_frames', 'last')
    for module in model.modules():  # statistics would be of fewer frames, noise and dropout of other numbers
        if isinstance(module, (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout)):
            module.eval()
    counts, found = [], []
    model.pts_backbone.register_forward_hook(lambda module, args, out: counts.append(len(args[0])))
    for read in (model.temporal is None or model.temporal.reads_bev, True):
        if model.temporal is not None:
            monkeypatch.setattr(model.temporal, 'reads_bev', read, raising=False)
        torch.manual_seed(0)
        model.zero_grad()
        losses = model(**collated(model, [Frames().of('a', 2), Frames().of('b', 2)], training=True), mode='loss')
        model.parse_losses(losses)[0].backward()
        found.append([parameter.grad for parameter in model.parameters()])
    rings = isinstance(model.temporal, FrameRing)
    assert counts == [2 if rings else 4, 4]
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(*found) if one is not None)
    if rings:  # both last frames were dropped
        monkeypatch.setattr(model.temporal, 'reads_bev', False, raising=False)
        clips = [Frames().of('a', 2), Frames().of('b', 2)]
        for clip in clips:
            clip[1]['data_samples'].set_metainfo(dict(frame_valid=False))
        model.zero_grad()
        losses = model(**collated(model, clips, training=True), mode='loss')
        model.parse_losses(losses)[0].backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


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


def test_where_its_queries_look_can_be_recorded(model):
    frames = Frames(cameras=3, zoom=(1.5, 4.0)).of('a', 2)
    plain = streamed(model, frames)
    with QueryRecorder(model.pts_bbox_head) as recorder:
        same(streamed(model, frames), plain, 'while it is recorded')
        with pytest.raises(ValueError, match='query .99999.: the head has queries 0 to'):
            recorder.record(chosen=[99999])
        record, one = recorder.record(most=50), recorder.record(chosen=[3])
    assert not any(layer._forward_pre_hooks for layer in model.pts_bbox_head.modules())
    logits, codes = plain[-1][0, :, :10], plain[-1][:, :, 10:]
    np.testing.assert_allclose(record.boxes[-1], model.pts_bbox_head.code.decode(codes)[0].numpy(), atol=1e-4, rtol=1e-5)
    assert record.chosen.tolist() == logits.max(-1).values.argsort(descending=True)[:50].tolist()
    assert len(record.layers) >= 2 and len(one.layers) == len(record.layers)
    for looks, alone in zip(record.layers, one.layers):
        if looks.points_m is None:
            parts = [part.reshape(50, -1).sum(1) for part in (looks.images, looks.bev, looks.earlier) if part is not None]
            np.testing.assert_allclose(sum(parts), 1, atol=1e-5)  # all tokens have a place
            assert (looks.images is not None) == model.with_img_backbone and alone.earlier.shape == (1,)
        elif model.with_img_backbone:
            points = torch.from_numpy(looks.points_m).flatten(0, 1)[None]
            wanted, _, seen = record.raw_rig.project(points)
            pixels = torch.from_numpy(looks.uv_px).flatten(1, 2)
            read = pixels.isfinite().all(-1)
            assert read.any() and (seen[0] | ~read).all()
            torch.testing.assert_close(pixels[read], wanted[0][read], atol=1e-2, rtol=0)
            assert alone.points_m.shape == (1, *looks.points_m.shape[1:])
