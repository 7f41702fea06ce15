"""Anchor3DHead in the gated detector: PointPillars at alpha 0; every mask source, test mode and odd clip works."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate

ASSIGNER = dict(type='Max3DIoUAssigner', iou_calculator=dict(type='BboxOverlapsNearest3D'), pos_iou_thr=0.6, neg_iou_thr=0.3,
                min_pos_iou=0.3, ignore_iof_thr=-1)


@pytest.fixture
def scene(make_frame):
    """scene(name, length): its frames, the ego 1.6 m forward a frame."""

    def make(name='a', length=4):
        frames = [make_frame(name, index, length=length, points=600) for index in range(length)]
        for index, frame in enumerate(frames):
            pose = np.eye(4)
            pose[0, 3] = 1.6 * index
            frame['data_samples'].set_metainfo(dict(global_from_lidar=pose))
        return frames

    return make


def padded(frame, **metainfo):
    frame = copy.deepcopy(frame)
    frame['inputs']['points'] = frame['inputs']['points'][:0]
    frame['data_samples'].set_metainfo(dict(frame_valid=False, is_scene_start=False, **metainfo))
    return frame


def point_pillars(model_config, state_dict):
    """mmdet3d's own detector with its own head, of the same weights."""
    cfg = copy.deepcopy(model_config)
    MODELS.build(cfg)  # fills the grid in
    for name in ('grid', 'temporal'):
        cfg.pop(name)
    cfg.update(type='MVXFasterRCNN')
    cfg.data_preprocessor.type, cfg.pts_bbox_head.type = 'Det3DDataPreprocessor', 'Anchor3DHead'
    cfg.train_cfg, cfg.test_cfg = ConfigDict(pts=cfg.train_cfg.pts), ConfigDict(pts=cfg.test_cfg.pts)
    model = MODELS.build(cfg)
    model.load_state_dict(state_dict, strict=True)
    return model


def test_alpha_zero_is_mmdet3ds_point_pillars_bit_for_bit(anchor_model, anchor_detector, collated, scene):
    """Boxes, scores, labels and losses, with its state dict."""
    for alpha in (0.0, 1.0):
        gated = anchor_detector(dict(alpha=alpha))
        own = {name: value for name, value in gated.state_dict().items() if not name.startswith('temporal.')}
        reference = point_pillars(anchor_model, own).eval()
        same = []
        for frame in scene(length=2):
            with torch.no_grad():
                ours, = gated(**collated(gated, [[frame]]), mode='predict')
                theirs, = reference(**reference.data_preprocessor(pseudo_collate([copy.deepcopy(frame)])), mode='predict')
            a, b = ours.pred_instances_3d, theirs.pred_instances_3d
            assert len(a) > 0
            same.append(all(torch.equal(x, y) for x, y in (
                (a.bboxes_3d.tensor, b.bboxes_3d.tensor), (a.scores_3d, b.scores_3d), (a.labels_3d, b.labels_3d))))
        frames = scene(length=2)
        losses = gated.train()(**collated(gated, [frames], training=True), mode='loss')
        expected = reference.train()(**reference.data_preprocessor(pseudo_collate(copy.deepcopy(frames)), True), mode='loss')
        assert set(expected) == {'loss_cls', 'loss_bbox', 'loss_dir'} <= set(losses)
        same += [torch.equal(losses[name], sum(expected[name])) for name in expected]
        assert all(same) if alpha == 0 else not any(same)  # memory has a say where it may


@pytest.mark.parametrize('temporal', [
    dict(), dict(mask_source='detections'), dict(mask_source='previous_detections'), dict(mask_source='none'),
    dict(mask_source='previous_detections', masks=dict(num_agents=3), readout=dict(type='GateReadout'))],
    ids=['occupancy', 'detections', 'previous', 'none', 'agents'])
def test_streaming_equals_one_window_with_every_mask_source(temporal, anchor_detector, predicted, scene):
    temporal = {**temporal, 'masks': dict(score_threshold=0.0, **temporal.get('masks', {}))}
    streaming = anchor_detector(temporal)
    rolling = anchor_detector(temporal, test_cfg=dict(mode='window', seq_len=3))
    tiled = anchor_detector(temporal, test_cfg=dict(mode='window', seq_len=2, stride=2))
    gaps = []
    for frame in scene(length=3):
        (stream, (sample,)), window, tile = (predicted(m, [[frame]]) for m in (streaming, rolling, tiled))
        assert (stream - window[0]).abs().max() < 1e-5
        assert len(sample.pred_instances_3d) == 10 and torch.isfinite(sample.pred_instances_3d.bboxes_3d.tensor).all()
        gaps.append(float((stream - tile[0]).abs().max()))
    assert gaps[:2] == [0, 0] and gaps[2] > 1e-3  # the second tile starts anew


def test_boxes_that_the_head_finds_are_what_is_written(anchor_detector, predicted, scene):
    answers = []
    for threshold in (0.0, 1.0):  # all boxes, none
        model = anchor_detector(dict(mask_source='detections', masks=dict(score_threshold=threshold)))
        answers.append([predicted(model, [[frame]])[0] for frame in scene(length=2)])
    assert torch.equal(answers[0][0], answers[1][0]) and (answers[0][1] - answers[1][1]).abs().max() > 1e-4


def test_loader_aligned_windows(anchor_detector, predicted, scene):
    clip = scene(length=2)
    for frame in clip:
        frame['data_samples'].set_metainfo(dict(clip_aligned=True, bev_aug=np.linalg.inv(
            frame['data_samples'].metainfo['global_from_lidar']) @ clip[-1]['data_samples'].metainfo['global_from_lidar']))
    model = anchor_detector(dict(align='loader', mask_source='detections'), test_cfg=dict(mode='window', seq_len=2))
    sample, = predicted(model, [clip])[1]
    assert len(sample.pred_instances_3d) == 10


@pytest.mark.parametrize('settings', [dict(), dict(loss_frames='last', frozen=['pts_backbone']), dict(grad_frames=1)])
def test_every_parameter_gets_a_gradient_whatever_the_frames(settings, anchor_detector, collated, scene):
    clip = scene(length=2)
    unlabelled, empty = copy.deepcopy(clip), copy.deepcopy(clip)
    unlabelled[-1]['data_samples'].set_metainfo(dict(is_keyframe=False))
    for frame in empty:
        frame['data_samples'].gt_instances_3d = frame['data_samples'].gt_instances_3d[:0]
    nothing = [padded(frame) for frame in clip]
    last = settings.get('loss_frames') == 'last'
    for clips, learns in (
        ([clip], True), ([unlabelled], not last), ([empty], True), ([nothing], False), ([clip, nothing], True),
    ):
        model = anchor_detector(dict(mask_source='detections', masks=dict(teacher_forcing=0.5)), train_cfg=settings).train()
        total, logged = model.parse_losses(model(**collated(model, clips, training=True), mode='loss'))
        total.backward()
        assert torch.isfinite(total)
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert (logged['loss_cls'] > 0) == learns


def test_the_truth_is_left_as_it_was(anchor_detector, collated, scene):
    """mmdet3d's assigner replaces the boxes by a bare tensor, which a second call on the same samples would trip over."""
    model = anchor_detector().train()
    data = collated(model, [scene(length=2)], training=True)
    first = model(**data, mode='loss')
    assert all(type(s.gt_instances_3d.bboxes_3d).__name__ == 'LiDARInstance3DBoxes' for s in data['data_samples'])
    assert set(model(**data, mode='loss')) == set(first)


def test_boxes_are_found_in_single_precision_under_autocast(anchor_detector, collated, scene):
    model = anchor_detector(dict(mask_source='detections', masks=dict(score_threshold=0.0))).train()
    heads, found = [], []
    model.pts_bbox_head.register_forward_hook(lambda module, inputs, outputs: heads.append(outputs[0][0].dtype))
    step = model.step

    def watched(*args, **settings):
        out = step(*args, **settings)
        found.extend(out.outputs.found)
        return out

    model.step = watched
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**collated(model, [scene(length=2)], training=True), mode='loss')
    assert heads == [torch.float32, torch.float32, torch.bfloat16]
    assert all(one.bboxes_3d.tensor.dtype == one.scores_3d.dtype == torch.float32 for one in found)
    assert torch.isfinite(model.parse_losses(losses)[0])


def test_a_missing_part_of_the_grid_is_filled_and_a_contradiction_named(anchor_model):
    cfg = copy.deepcopy(anchor_model)
    model = MODELS.build(cfg)
    anchors, = model.pts_bbox_head.prior_generator.grid_anchors([model.grid.bev_shape], device='cpu')
    centers = anchors.view(*model.grid.bev_shape, -1, 9)[:, :, 0, :2]
    assert centers[0, 0].tolist() == pytest.approx([-24.8, -24.8]) and centers[0, 1].tolist() == pytest.approx([-23.2, -24.8])
    assert centers[-1, -1].tolist() == pytest.approx([24.8, 24.8])
    plain = copy.deepcopy(anchor_model)
    plain.pts_bbox_head.anchor_generator.type = 'Anchor3DRangeGenerator'  # its ranges end at cells' centres
    others, = MODELS.build(plain).pts_bbox_head.prior_generator.grid_anchors([model.grid.bev_shape], device='cpu')
    assert (others.view(-1, 9) - anchors.view(-1, 9)).abs().max() < 1e-4

    def ranges(*values):
        changed = copy.deepcopy(anchor_model)
        changed.pts_bbox_head.anchor_generator.ranges = [list(values)] * 10
        return MODELS.build(changed)

    ranges(-25.0, -25.6, -1.8, 25.0, 25.6, -1.8)  # less than a cell, as mmdet3d's 49.6 m on 50 m
    for wrong, word in (((-49.6, -49.6, -1.8, 49.6, 49.6, -1.8), 'x=-49.6'), ((None, None, -1.8, None, 20.0, -1.8), 'y=20.0'),
                        ((None, None, None, None, None, None), 'z=None'), ((None, None, 7.0, None, None, 7.0), 'z=7.0'),
                        ((-1.8,), 'ranges must be')):
        with pytest.raises(ValueError, match=word):
            ranges(*wrong)


@pytest.mark.parametrize('change, words', [
    (dict(pts_neck=dict(_delete_=True, type='mmdet.FPN', in_channels=[8, 8, 16], out_channels=24, num_outs=3)),
     'mmdet.FPN.*3 levels.*SECONDFPN'),
    (dict(pts_bbox_head=dict(anchor_generator=dict(scales=[1, 2, 4]))), 'scales=.*one BEV map'),
    (dict(pts_bbox_head=dict(in_channels=48)), 'in_channels=48 and feat_channels=24'),
    (dict(pts_bbox_head=dict(use_direction_classifier=False)), 'direction'),
    (dict(pts_bbox_head=dict(anchor_generator=dict(custom_values=[]))), 'code_size=9'),
    (dict(pts_bbox_head=dict(anchor_generator=dict(sizes=[[4.6, 1.9, 1.7]] * 3))), '10 entries for 3 of sizes'),
    (dict(pts_bbox_head=dict(anchor_generator=dict(reshape_out=True))), 'reshape_out=False'),
    (dict(pts_bbox_head=dict(num_classes=3)), '10 anchor sizes and num_classes=3'),
    (dict(train_cfg=dict(pts=dict(assigner=dict(ASSIGNER, _delete_=True)))), 'needs a list of assigners'),
    (dict(train_cfg=dict(pts=dict(assigner=[ASSIGNER] * 3))), 'list of 3, one for each of the 10')])
def test_settings_that_cannot_work_are_named_when_the_model_is_built(anchor_model, change, words):
    from mmengine.config import Config
    cfg = Config(dict(model=copy.deepcopy(anchor_model)))
    cfg.merge_from_dict(dict(model=change))
    with pytest.raises(ValueError, match=words):
        MODELS.build(cfg.model)


def test_levels_that_only_show_when_it_runs_are_named(anchor_detector, collated, scene):
    model = anchor_detector(None)
    model.pts_neck.forward = lambda levels: [level for level in levels for _ in range(3)]
    with pytest.raises(ValueError, match=r'\(16, 16\).*SECONDFPN'):
        model(**collated(model, [scene(length=1)]), mode='predict')
