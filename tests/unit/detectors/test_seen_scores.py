"""Two scores per box: that it exists and that it is seen now. From the points in true boxes to results and submissions."""

import copy
import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS, TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmdet3d.structures.points import LiDARPoints
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from projects.memfusion.detectors.seen_scores import SeenScores
from projects.memfusion.heads.seen_branch import SeenBoxCoder, seen_loss
from projects.memfusion.metrics.box_results import add_box_scores
from projects.memfusion.structures.box_scores import rated


def built(demo_model, weight=0.0, **test_cfg):
    cfg = copy.deepcopy(demo_model)
    cfg.pop('temporal')
    if weight:
        cfg.pts_bbox_head.seen_weight = weight
    cfg.test_cfg.update(test_cfg)
    cfg.test_cfg.pts.score_threshold = cfg.pts_bbox_head.bbox_coder.score_threshold = 0.0
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


@pytest.fixture
def frames(make_frame):
    return [[make_frame('a', index, points=600)] for index in (0, 1)]


def test_counting_takes_the_frames_own_points_in_augmented_boxes():
    boxes = LiDARInstance3DBoxes(torch.tensor([[0.0, 0, -1, 4, 2, 2, 0.5, 0, 0], [20, 0, -1, 4, 2, 2, 0, 0, 0]]), box_dim=9)
    points = torch.tensor([[0, 0, 0, 0, 0], [1.5, 0.8, 0.5, 0, 0], [1.5, -0.8, 0.5, 0, 0], [0, 0, 0, 0, 0.05]])
    results = dict(points=LiDARPoints(points, points_dim=5), gt_bboxes_3d=boxes)
    count = TRANSFORMS.build(dict(type='CountBoxPoints'))
    assert count.transform(dict(results))['gt_num_points'].tolist() == [2, 0]  # turned by 0.5 rad: one corner is outside
    everything = TRANSFORMS.build(dict(type='CountBoxPoints', time_column=None))
    assert everything.transform(dict(results))['gt_num_points'].tolist() == [3, 0]
    with pytest.raises(ValueError, match='CountBoxPoints'):
        count.transform(dict(results, points=LiDARPoints(points[:, :4], points_dim=4)))


def test_the_branch_changes_neither_boxes_nor_scores_and_gives_two_of_them(demo_model, frames, collated):
    plain, both = built(demo_model), built(demo_model, weight=1.0)
    assert not any('seen' in name for name, _ in plain.named_parameters())
    missing = both.load_state_dict(plain.state_dict(), strict=False)
    assert all('.seen.' in name for name in missing.missing_keys) and not missing.unexpected_keys
    with torch.no_grad():
        expected, found = (model(**collated(model, frames), mode='predict') for model in (plain, both))
    for one, other in zip(expected, found):
        one, other = one.pred_instances_3d, other.pred_instances_3d
        assert len(one) > 5 and torch.equal(one.bboxes_3d.tensor, other.bboxes_3d.tensor)
        assert torch.equal(one.scores_3d, other.scores_3d) and torch.equal(one.labels_3d, other.labels_3d)
        assert torch.equal(other.exists_3d, other.scores_3d) and 'seen_3d' not in one
        assert ((other.seen_3d > 0) & (other.seen_3d < 1)).all() and other.seen_3d.unique().numel() > 3


def test_a_box_carries_the_number_of_its_own_cell(demo_model):
    head = built(demo_model, weight=1.0).pts_bbox_head
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, channels, 32, 32, generator=g) for channels in (5, 1, 1, 1, 3, 2, 2)]
    heat, *_, reg = maps
    reg.fill_(0.5)
    cells = torch.arange(32.0 * 32).view(1, 1, 32, 32)
    coder = SeenBoxCoder(head.bbox_coder)
    (found,) = coder.decode(heat.sigmoid(), *maps[1:5], torch.cat([maps[5], cells], dim=1), reg=reg)
    boxes = found['bboxes']
    column, row = ((boxes[:, axis] + 25.6) / 1.6 - 0.5 for axis in (0, 1))
    assert len(boxes) > 20 and (boxes[:, -1] - (row.round() * 32 + column.round())).abs().max() < 1e-3


def test_the_loss_is_cross_entropy_at_the_boxes_and_wants_their_points(demo_model, frames, collated):
    model = built(demo_model, weight=2.0).train()
    losses = model(**collated(model, frames, training=True), mode='loss')
    assert {'task0.loss_seen', 'task1.loss_seen'} <= set(losses)
    assert all(torch.isfinite(value).all() for value in losses.values())
    sum(value for name, value in losses.items() if name.endswith('loss_seen')).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if '.seen.' in name)
    logits, points = torch.tensor([[2.0, -1.0, 5.0]]), torch.tensor([[3, 0, 7]])
    by_hand = (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))) / 2
    loss = seen_loss(logits, points, torch.tensor([[True, True, False]]), torch.tensor(2.0))
    assert float(loss) == pytest.approx(by_hand, rel=1e-3)
    counted = copy.deepcopy(frames)
    for (frame,) in counted:
        del frame['data_samples'].gt_instances_3d.num_points
    with pytest.raises(ValueError, match='CountBoxPoints'):
        model(**collated(model, counted, training=True), mode='loss')


def test_each_slot_is_taught_by_its_own_box(demo_model):
    """The logit at a box's cell is pulled up where that box holds points, whatever the order of the boxes."""
    head = built(demo_model, weight=1.0).pts_bbox_head
    boxes = torch.tensor([[-10.0, 3, -1, 4, 2, 2, 0, 0, 0], [12, -7, -1, 1, 1, 2, 0, 0, 0], [5, 9, -1, 4, 2, 2, 0, 0, 0]])
    truth = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([4, 8, 0]),
                         num_points=torch.tensor([5, 0, 0]))
    outputs = [[{name: torch.zeros(1, head.task_heads[task].heads[name][0], 32, 32) for name in head.task_heads[task].heads}]
               for task in (0, 1)]
    seen = [one[0]['seen'].requires_grad_() for one in outputs]
    losses = head.loss_by_feat(outputs, [truth])
    (losses['task0.loss_seen'] + losses['task1.loss_seen']).backward()
    for row, (task, sign) in enumerate(((0, -1), (1, 1), (0, 1))):
        column, line = (int((boxes[row, axis] + 25.6) / 1.6) for axis in (0, 1))
        assert torch.sign(seen[task].grad[0, 0, line, column]) == sign
    assert sum(int((one.grad != 0).sum()) for one in seen) == 3


def test_hidden_boxes_are_kept_dropped_or_downweighted(demo_model, frames, collated):
    found = {}
    for how in ('keep', 'drop', 'downweight'):
        model = built(demo_model, weight=1.0, hidden_boxes=how)
        with torch.no_grad():
            found[how] = model(**collated(model, frames), mode='predict')[0].pred_instances_3d
    keep, drop, down = found['keep'], found['drop'], found['downweight']
    stays = keep.seen_3d >= 0.5
    assert 0 < int(stays.sum()) < len(keep)
    assert torch.equal(drop.bboxes_3d.tensor, keep.bboxes_3d.tensor[stays])
    assert torch.equal(drop.scores_3d, keep.scores_3d[stays])
    assert torch.equal(down.scores_3d, keep.scores_3d * keep.seen_3d) and torch.equal(down.exists_3d, keep.scores_3d)
    # from one run that kept them all, the evaluator ranks them anew
    kept = {name: keep[name] for name in keep.keys()}
    assert torch.equal(rated(kept, 'drop', 'x')['scores_3d'], drop.scores_3d)
    assert torch.equal(rated(kept, 'downweight', 'x')['scores_3d'], down.scores_3d)
    assert torch.equal(rated({name: down[name] for name in down.keys()}, 'keep', 'x')['scores_3d'], keep.scores_3d)


def test_counting_points_in_predicted_boxes_is_the_baseline_and_needs_no_branch(demo_model, make_frame, collated):
    model = built(demo_model, seen_from='points')
    for head in model.pts_bbox_head.task_heads:
        head.dim[-1].bias.data.fill_(2.0)  # boxes of 7 m
    clips = [[make_frame('a', index, points=600)] for index in (0, 1)]
    clips[0][0]['inputs']['points'][::4, 4] = 0  # the others are of earlier sweeps
    clips[1][0]['inputs']['points'] = clips[1][0]['inputs']['points'][:0]
    with torch.no_grad():
        one, empty = (sample.pred_instances_3d for sample in model(**collated(model, clips), mode='predict'))
    points = clips[0][0]['inputs']['points']
    inside = []
    for box in one.bboxes_3d.tensor.double():
        x, y, z = (points[:, :3].double() - box[:3]).unbind(1)
        cos, sin = box[6].cos(), box[6].sin()
        along, across = (x * cos + y * sin).abs(), (y * cos - x * sin).abs()
        held = (along < box[3] / 2) & (across < box[4] / 2) & (z > 0) & (z < box[5]) & (points[:, 4] == 0)
        inside.append(bool(held.any()))
    assert torch.equal(one.seen_3d, torch.tensor(inside).float()) and 0 < sum(inside) < len(inside)
    assert len(empty) and empty.seen_3d.max() == 0


def test_submissions_hold_both_scores_and_the_devkit_reads_them(tmp_path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox
    box = dict(sample_token='t', translation=[0, 0, 0], size=[1, 1, 1], rotation=[1, 0, 0, 0], velocity=[0, 0],
               attribute_name='')
    rows = [dict(box, detection_name=name, detection_score=score)
            for name, score in (('car', 0.5), ('bus', 0.5), ('car', 0.25))]
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(dict(meta={}, results=dict(t=rows))))
    predicted = dict(labels_3d=torch.tensor([0, 0, 1, 0]), scores_3d=torch.tensor([0.75, 0.5, 0.5, 0.25]),
                     exists_3d=torch.tensor([0.8, 0.6, 0.7, 0.3]), seen_3d=torch.tensor([0.1, 0.2, 0.3, 0.4]))
    # the first was out of range
    add_box_scores(str(path), [dict(pred_instances_3d=predicted)], [dict(token='t')], ['car', 'bus'])
    written = json.loads(path.read_text())['results']['t']
    scores = [(round(one['exists_score'], 6), round(one['seen_score'], 6)) for one in written]
    assert scores == [(0.6, 0.2), (0.7, 0.3), (0.3, 0.4)]
    loaded, _ = load_prediction(str(path), 500, DetectionBox)
    assert [one.detection_score for one in loaded['t']] == [0.5, 0.5, 0.25]


def test_what_cannot_be_is_named(demo_model):
    for cfg, branch, word in (
            (dict(hidden_boxes='hide'), True, 'hidden_boxes'), (dict(seen_from='eyes'), True, 'seen_from'),
            (dict(hidden_boxes='drop'), False, 'seen_weight'), (dict(seen_from='head'), False, 'seen_weight')):
        with pytest.raises(ValueError, match=word):
            SeenScores.of_config(ConfigDict(cfg), branch)
    with pytest.raises(ValueError, match='seen_weight'):
        built(demo_model, weight=-1.0)
    with pytest.raises(ValueError, match='there are none here'):
        SeenScores(seen_from='points').apply([InstanceData()], None)
    with pytest.raises(ValueError, match='sample t: hidden_boxes'):
        rated(dict(bboxes_3d=None, scores_3d=torch.ones(1), labels_3d=torch.ones(1)), 'drop', 'sample t')
