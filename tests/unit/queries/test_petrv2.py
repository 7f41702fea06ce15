"""The head PETRv2: each peculiarity, the embeddings against the published order, and what may not matter."""

import copy
from dataclasses import replace

import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from sync_counts import counting

from projects.benchmarks.petr_plain import PlainEmbedding
from projects.convert.petrv2 import convert
from projects.geometry.homography import flip_homography, resize_homography
from projects.geometry.rigid import compose
from projects.memfusion.queries.by_parts import by_parts
from projects.memfusion.queries.petrv2_embedding import EmbeddingSettings, ImageEmbedding
from projects.memfusion.queries.petrv2_head import QUIRKS, PETRv2
from projects.memfusion.structures import Calibration, History, PastFrame, Readout, SceneFeatures, SceneTruth

RANGE = [-20.0, -20.0, -5.0, 20.0, 20.0, 3.0]
CAMERAS, SIZE, IMAGE = 3, (4, 6), (32, 48)
SMALL = dict(
    num_classes=4, num_queries=5, transformer=dict(dim=16, num_layers=2, num_heads=2, ffn_dim=16, dropout=0.0),
    images=dict(channels=8, depths=dict(num=4), position_range=(-24, -24, -10, 24, 24, 10)))


def rig(frames=2, seed=0, sizes=(IMAGE,) * CAMERAS, **settings):
    """Cameras that look around, each frame's and camera's a little differently."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.rand(frames, len(sizes), generator=generator) * 0.3 + torch.arange(len(sizes)) * 2.0
    cam_from_lidar = torch.eye(4).repeat(frames, len(sizes), 1, 1)
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    rows = [[turn.sin(), -turn.cos(), zero], [zero, zero, -one], [turn.cos(), turn.sin(), zero]]
    cam_from_lidar[..., :3, :3] = torch.stack([torch.stack(row, -1) for row in rows], -2)
    cam_from_lidar[..., :3, 3] = torch.rand(frames, len(sizes), 3, generator=generator) - 0.5
    img_from_cam = torch.tensor([[30.0, 0, 23], [0, 31, 15], [0, 0, 1]]).repeat(frames, len(sizes), 1, 1)
    made = Calibration.from_matrices(img_from_cam, cam_from_lidar, torch.tensor(sizes).repeat(frames, 1, 1), **settings)
    return replace(made, padded_hw=IMAGE)


def stamps(seconds, frames=2):
    return dict(t_lidar=torch.full((frames,), seconds), t_cam=seconds + torch.arange(frames * CAMERAS).view(frames, -1) * 0.01)


def scene(frames=2, seed=0, there=None, now=None, then=None):
    """Features of now, and the frame before as the past."""
    torch.manual_seed(seed)
    levels = torch.randn(2, frames, CAMERAS, 8, *SIZE)
    now, then = now or rig(frames, seed, **stamps(1.0, frames)), then or rig(frames, seed + 9, **stamps(0.4, frames))
    age_s = torch.full((frames,), 0.5, dtype=torch.float64)
    there = there or (True,) * frames
    past = PastFrame((levels[1],), then, age_s, there)
    if not all(there):
        kept = torch.tensor(there)
        hidden = replace(then, cam_valid=then.cam_valid & kept[:, None])
        past = PastFrame((levels[1] * kept.view(-1, 1, 1, 1, 1),), hidden, age_s * kept, there)
    return SceneFeatures(levels=(levels[0],), calibration=now), Readout(past=History.of_step([past]))


def head(seed=1, like=None, **settings):
    torch.manual_seed(seed)
    said = copy.deepcopy(SMALL)
    said['images'].update(settings.pop('images', {}) or {})
    made = PETRv2(point_cloud_range=RANGE, **{**said, **settings}).eval()
    if like is not None:
        made.load_state_dict(like.state_dict())
        return made
    return shaken(made)


def shaken(model):
    """Nothing stays zero or one."""
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def run(model, features, readout):
    return model(features, readout, None)


def apart(one, two):
    return max(float((one.logits - two.logits).abs().max()), float((one.codes - two.codes).abs().max()))


# -- what was published -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', QUIRKS)
def test_every_quirk_changes_what_is_found(name):
    ours = head()
    followed, all_but_one = head(like=ours, published_quirks=(name,)), head(like=ours, published_quirks=True)
    plain, odd = run(ours, *scene()), run(followed, *scene())
    metas = [dict(box_type_3d=LiDARInstance3DBoxes)] * 2
    if name == 'old_heading':  # the same numbers say another box
        assert apart(plain, odd) == 0
        yaw, other = (each[0].bboxes_3d.tensor[:, 6] for each in (
            model.predict_by_feat(said, metas) for model, said in ((ours, plain), (followed, odd))))
        assert torch.allclose(torch.cos(-yaw - torch.pi / 2), torch.cos(other), atol=1e-5)
        assert not torch.allclose(yaw.cos(), other.cos(), atol=0.1)
    else:
        assert apart(plain, odd) > 1e-4
    if name == 'mean_gap':  # 0.5 s between the LiDARs' stamps, 0.6 s between the cameras'
        assert torch.allclose(odd.codes[..., 8:] * 0.6, plain.codes[..., 8:] * 0.5, atol=1e-5)
        assert torch.equal(odd.codes[..., :8], plain.codes[..., :8])
    if name == 'group_order':
        raw, listed = (model.reg_branches[0](torch.ones(16)) for model in (ours, followed))
        assert torch.equal(listed, raw[[0, 1, 4, 2, 3, 5, 6, 7, 8, 9]])
    assert apart(odd, run(all_but_one, *scene())) > 1e-4


def test_points_lie_where_the_rig_says_cells_look():
    """Against unprojecting each cell's centre, or with two quirks its corner, half a pixel aside."""
    for quirks, offset, shift in ((frozenset(), 0.5, 0.0), (frozenset(['corner_cells', 'matrix_pixels']), 0.0, 0.5)):
        embedding = ImageEmbedding(
            8, EmbeddingSettings(dict(num=3, start_m=2.0), (-24, -20, -10, 24, 28, 10)), quirks)
        seen = rig()
        shares = embedding.shares(*embedding.lines(seen.views(), SIZE)).unflatten(2, SIZE)
        metres = shares * torch.tensor([48.0, 48.0, 20.0]) + torch.tensor([-24.0, -20.0, -10.0])
        pixel = torch.tensor([(5 + offset) * 8 - 0.5 + shift, (2 + offset) * 8 - 0.5 + shift]).expand(2, CAMERAS, 1, 2)
        for i, depth in enumerate((2.0, 2 + 22 / 6, 2 + 22 / 2)):
            wanted = seen.unproject(pixel, torch.full((2, CAMERAS, 1), depth))[:, :, 0]
            assert torch.allclose(metres[:, :, 2, 5, i], wanted, atol=1e-4)


def test_rays_are_embedded_by_start_and_direction_and_none_by_nothing():
    embedding = ImageEmbedding(8, EmbeddingSettings(None, (-24, -20, -10, 24, 28, 10), gate=False, geometry='ray'))
    given = []
    embedding.frustum.register_forward_hook(lambda layer, args, out: given.append(args[0]))
    seen = rig()
    embedding.looks(seen, SIZE)
    numbers = torch.cat(given).unflatten(0, (2, CAMERAS))  # (B, N, P, 2, 3)
    origins, directions = seen.rays(SIZE, normalise=True)
    shares = (origins - torch.tensor([-24.0, -20, -10])) / torch.tensor([48.0, 48, 20])
    assert torch.allclose(numbers[..., 0, :], shares[:, :, None].expand_as(numbers[..., 0, :]), atol=1e-5)
    assert torch.allclose(numbers[..., 1, :], directions.flatten(2, 3), atol=1e-5)
    blind, ray = head(images=dict(geometry='none')), head(images=dict(geometry='ray'))
    for model, told in ((blind, False), (ray, True)):
        changed = apart(run(model, *scene()), run(model, *scene(now=rig(seed=5, **stamps(1.0)))))
        assert (changed > 1e-4) == told
    with pytest.raises(ValueError, match="images.*geometry must be one of frustum, ray, none, got 'cone'"):
        head(images=dict(geometry='cone'))


@pytest.mark.parametrize('multiview', [True, False])
@pytest.mark.parametrize('training', [False, True])
def test_embeddings_are_those_of_the_published_order(multiview, training):
    """Mixed sizes, a missing camera; by parts, with gradients made again in the backward pass."""
    torch.manual_seed(0)
    plain = PlainEmbedding(16, 4, (-24, -24, -10, 24, 24, 10), multiview=multiview)
    ours = ImageEmbedding(16, EmbeddingSettings(dict(num=4), (-24, -24, -10, 24, 24, 10), multiview),
                          frozenset(['corner_cells', 'matrix_pixels', 'counted_views']))
    weights = convert({f'pts_bbox_head.{name}': value for name, value in plain.state_dict().items()})
    ours.load_state_dict({name.removeprefix('pts_bbox_head.embedding.'): value for name, value in weights.items()})
    ours.train(training)
    for sizes in ((IMAGE,) * 3, (IMAGE, (24, 48), (32, 40))):
        rigs = [rig(seed=age, sizes=sizes) for age in range(2)]
        features = torch.randn(2, 6, 16, *SIZE)
        masks = torch.stack([torch.ones(SIZE, dtype=torch.bool) for _ in sizes])
        for mask, (height, width) in zip(masks, sizes):
            mask[:-(-height // 8), :-(-width // 8)] = False
        matrices = torch.cat([compose(each.views().img_from_cam, each.cam_from_bev) for each in rigs], dim=1)
        with torch.set_grad_enabled(training):
            wanted = plain(features, matrices, masks.repeat(2, 2, 1, 1), IMAGE).pos_embed.flatten(3).transpose(2, 3)
            found, _ = ours(features.flatten(3).transpose(2, 3).split(3, dim=1), rigs, SIZE)
            found = torch.cat(found, dim=1)
        assert torch.allclose(found, wanted, atol=2e-5)
        if training:
            for each in (plain, ours):
                each.zero_grad()
            weigh = torch.randn_like(found)
            (found * weigh).sum().backward()
            (wanted * weigh).sum().backward()
            assert torch.allclose(ours.gate.reduce.weight.grad, plain.fpe.conv_reduce.weight.grad.flatten(1), atol=1e-3)
            wide = ours.frustum.layers[0].weight.grad, plain.position_encoder[0].weight.grad.flatten(1)
            assert torch.allclose(*wide, rtol=1e-3, atol=1e-3)


# -- what may not matter ----------------------------------------------------------------------------------------------
def test_scenes_of_a_batch_do_not_know_each_other():
    """One without its past, one with a missing camera and smaller images: as each by itself."""
    model = head()
    now = rig(3, **stamps(1.0, 3))
    valid, sizes = now.cam_valid.clone(), now.img_hw.clone()
    valid[1, 2], sizes[1, 0] = False, torch.tensor([24, 40])
    now = replace(now, cam_valid=valid, img_hw=sizes)
    features, readout = scene(3, there=(True, True, False), now=now)
    together = run(model, features, readout)
    for row in range(3):
        alone = run(model, features.take([row]), readout.take([row]))
        assert torch.allclose(together.logits[:, row], alone.logits[:, 0], atol=1e-5)
        assert torch.allclose(together.codes[:, row], alone.codes[:, 0], atol=1e-4)


def test_what_is_not_there_is_not_looked_at():
    model = head()
    now = rig(**stamps(1.0))
    now = replace(now, cam_valid=torch.tensor([[True, False, True]] * 2))
    features, readout = scene(now=now, there=(False, False))
    wanted = run(model, features, readout)
    level = features.levels[0].clone()
    level[:, 1] = 7.0
    past = readout.past.steps[0][0]
    noisy = replace(past, levels=(torch.full_like(past.levels[0], 5.0),), calibration=rig(seed=3).without_cameras())
    other = run(model, replace(features, levels=(level,)), Readout(past=History.of_step([noisy])))
    assert apart(wanted, other) < 1e-6
    gap = model.gap_s(features, readout.past.frames())
    assert torch.equal(gap, torch.full((2,), 0.5)) and gap.dtype == torch.float32  # nobody knows: the nominal one


def test_the_order_of_cameras_matters_to_counted_views_alone():
    features, readout = scene()
    order = [2, 0, 1]

    def turned(level, seen):
        return (level[:, order],), seen.take_cameras(order)

    past = readout.past.steps[0][0]
    levels, seen = turned(past.levels[0], past.calibration)
    other = Readout(past=History.of_step([replace(past, levels=levels, calibration=seen)]))
    levels, seen = turned(features.levels[0], features.calibration)
    for quirks, matters in (((), False), (('counted_views',), True)):
        model = head(published_quirks=quirks)
        change = apart(run(model, features, readout), run(model, replace(features, levels=levels, calibration=seen), other))
        assert (change > 1e-3) if matters else (change < 1e-5)


def test_augmentation_of_metadata_is_followed():
    """Images resized, mirrored and mirrored back; the BEV turned and turned back; pixels untouched."""
    model = head()
    features, readout = scene()
    wanted = run(model, features, readout)
    seen = features.calibration
    flip = flip_homography(IMAGE[1])
    for camera in range(CAMERAS):
        seen = seen.with_img_aug(camera, flip, IMAGE)
        seen = seen.with_img_aug(camera, flip, IMAGE)
        seen = seen.with_img_aug(camera, resize_homography(IMAGE, (64, 96)), (64, 96))
    turn = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    turn[:, :2, :2] = 1.05 * torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    turned = seen.moved(turn)
    back = turned.moved(torch.linalg.inv(turn))
    assert apart(wanted, run(model, replace(features, calibration=back), readout)) < 1e-4
    assert apart(wanted, run(model, replace(features, calibration=turned), readout)) > 1e-3
    lines = [model.embedding.shares(*model.embedding.lines(each.views(), SIZE)) for each in (seen, turned)]
    low, span = model.embedding.low, model.embedding.span
    points, moved = (each * span + low for each in lines)
    assert torch.allclose(points.flatten(1, 3) @ turn[0, :3, :3].T.float(), moved.flatten(1, 3), atol=1e-4)


# -- how it is computed -----------------------------------------------------------------------------------------------
def test_an_unchanged_rig_is_encoded_once():
    model, (features, readout) = head(), scene()
    calls = []
    model.embedding.frustum.register_forward_hook(lambda *_: calls.append('frustum'))
    model.embedding.sine.layers[1].register_forward_hook(lambda *_: calls.append('sine'))
    first = run(model, features, readout)
    assert calls.count('frustum') == 2 and calls.count('sine') == 2
    again = run(model, replace(features, calibration=replace(features.calibration)), readout)
    assert len(calls) == 4 and apart(first, again) == 0
    run(model, replace(features, calibration=rig(seed=5)), readout)
    assert calls.count('frustum') == 3
    with torch.no_grad():
        model.embedding.frustum.layers[0].weight.mul_(2.0)
    changed = run(model, features, readout)
    assert calls.count('frustum') == 5 and apart(first, changed) > 1e-3
    with torch.enable_grad():
        model(features, readout, None)
    assert calls.count('frustum') == 7


def test_by_parts():
    rows, more = torch.randn(5, 700, 2, requires_grad=True), torch.randn(5, 1, 2)
    with torch.no_grad():
        assert torch.equal(by_parts(torch.mul, 700, rows, more), rows * more)
    by_parts(torch.mul, 700, rows, more).sum().backward()
    assert torch.equal(rows.grad, more.expand_as(rows))


def test_nothing_waits_for_the_device():
    model, (features, readout) = head(), scene()
    features.calibration.facts, readout.past.steps[0][0].calibration.facts  # the host was told when the batch was made
    with counting() as counts:
        run(model, features, readout)
    assert counts.total == 0, counts
    with counting() as counts:
        run(model, features, readout)
    assert counts.total <= 2, counts  # whether the rigs are still the same
    with counting() as counts:
        model.train()(features, readout, None)
    assert counts.total == 0, counts


@pytest.mark.parametrize('kind', ['lidar', 'fused'])
def test_lidar_cells_join_the_keys(kind):
    """Alone or beside images; each part counts, and each weight learns, denoising included."""
    features, readout = scene()
    settings = dict(bev=dict(in_channels=6, stride=2), denoising=dict(groups=2))
    if kind == 'lidar':
        model = shaken(PETRv2(4, RANGE, 5, transformer=SMALL['transformer'], **settings))
        features, readout = SceneFeatures(bev=torch.randn(2, 6, 8, 8)), Readout()
        assert not model.needs_levels
    else:
        model, features = head(**settings), replace(features, bev=torch.randn(2, 6, 8, 8))
    assert model.bev_channels == 6
    model.eval()
    plain = run(model, features, readout)
    assert apart(plain, run(model, replace(features, bev=features.bev + 1), readout)) > 1e-3
    assert apart(plain, run(model, features, replace(readout, bev=features.bev + 1))) > 1e-3  # a memory's instead
    boxes = torch.tensor([[4.0, 3, -1, 4, 2, 1.5, 0.3, 1, 0]])
    samples = [Det3DDataSample(gt_instances_3d=InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([label]))) for label in (1, 2)]
    model.train()
    losses = model.loss_by_feat(model(features, readout, SceneTruth.of_samples(samples, torch.device('cpu'))), samples)
    assert {'loss_cls', 'd0.loss_bbox', 'dn.loss_bbox'} <= set(losses)
    sum(losses.values()).backward()
    still = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()}
    assert still <= {'decoder.layers.0.self_attn.in_proj_weight'}  # queries start alike, so it does not matter whom they read


def test_half_precision():
    """A step under autocast: geometry stays single, results are near those without."""
    model, (features, readout) = head(), scene()
    wanted = run(model, features, readout)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert run(model, features, readout).codes.dtype == torch.float32
        found = model.train()(features, readout, None)
        found.codes.sum().backward()
    assert all(value.grad.isfinite().all() for value in model.embedding.parameters())
    assert apart(wanted, found) < 0.5 and (wanted.codes[..., :2] - found.codes[..., :2]).abs().mean() < 0.1


# -- what does not go together ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('settings, message', [
    (dict(images=dict(channel=8)), "images: no setting 'channel'"), (dict(images=dict(num_frames=0)), 'num_frames must'),
    (dict(transformer=dict(width=3)), "transformer: no setting 'width'"),
    (dict(images=dict(depths=dict(number=3))), "depths: no setting 'number'"),
    (dict(images=dict(position_range=(1, 1, 1, 0, 0, 0))), 'position_range must be'),
    (dict(published_quirks=('corners',)), r"has \['corners'\]"),
])
def test_settings_that_do_not_exist(settings, message):
    with pytest.raises(ValueError, match=message):
        head(**settings)


def test_frames_that_do_not_fit():
    with pytest.raises(ValueError, match='nothing to look at'):
        PETRv2(4, RANGE)
    (features, readout), model = scene(), head()
    with pytest.raises(ValueError, match=r'temporal=dict\(type=FrameRing, num_frames=2\)'):
        run(model, features, Readout())
    with pytest.raises(ValueError, match='there is 1'):
        run(head(images=dict(num_frames=3)), features, readout)
    with pytest.raises(ValueError, match='set model.img_backbone'):
        run(head(images=dict(num_frames=1)), SceneFeatures(bev=torch.zeros(1, 2, 3, 3)), Readout())
    with pytest.raises(ValueError, match='image level 0 has 8'):
        run(head(images=dict(channels=4)), features, readout)
    past = readout.past.steps[0][0].with_levels(lambda level: level[..., :0, :0])
    with pytest.raises(ValueError, match='model.temporal.levels must name it'):
        run(model, features, Readout(past=History.of_step([past])))
    assert run(head(images=dict(num_frames=1)), features, readout).logits.shape == (2, 2, 5, 4)


def test_entries_of_another_head_are_named():
    with pytest.raises(ValueError, match='1 entries that the head of PETRv2 does not have: pts_bbox_head.tokens.weight'):
        convert({'pts_bbox_head.tokens.weight': torch.zeros(1), 'pts_bbox_head.code_weights': torch.zeros(10),
                 'img_backbone.stem.weight': torch.zeros(1)})
