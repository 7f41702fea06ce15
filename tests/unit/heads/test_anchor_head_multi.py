"""AnchorHeadMulti against slow oracles in plain Python: groups of three, two and one classes, several anchors of a class."""

from __future__ import annotations

import math
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.models.task_modules.assigners import Max3DIoUAssigner
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.heads.anchor_multi.coder import DirectionBins, ResidualBoxCoder
from projects.memfusion.heads.anchor_multi.groups import GroupOutput
from projects.memfusion.heads.anchor_multi.postprocessing import BoxSelection
from projects.memfusion.heads.anchor_multi.targets import assign_boxes

GROUPS = [['car', 'truck', 'bus'], ['cone'], ['bike', 'walker']]
RANGE, SHAPE = [-6.0, -4.0, -5.0, 8.0, 4.0, 3.0], (5, 6)
ANCHORS = dict(
    car=dict(sizes_m=[[4.0, 2.0, 1.5]], bottom_heights_m=[-1.0], pos_iou_thr=0.5, neg_iou_thr=0.3),
    truck=dict(sizes_m=[[6.0, 2.5, 3.0], [9.0, 2.6, 3.4]], bottom_heights_m=[-0.5], pos_iou_thr=0.45, neg_iou_thr=0.3),
    bus=dict(sizes_m=[[10.0, 3.0, 3.5]], bottom_heights_m=[-0.2, 0.4], pos_iou_thr=0.5, neg_iou_thr=0.35),
    cone=dict(sizes_m=[[0.5, 0.5, 1.0]], bottom_heights_m=[-1.2], pos_iou_thr=0.6, neg_iou_thr=0.4, rotations_rad=[0.0]),
    bike=dict(sizes_m=[[1.7, 0.6, 1.3]], bottom_heights_m=[-1.1], pos_iou_thr=0.5, neg_iou_thr=0.3),
    walker=dict(sizes_m=[[0.8, 0.7, 1.8]], bottom_heights_m=[-0.9], pos_iou_thr=0.6, neg_iou_thr=0.4))
WEIGHTS = dict(pos_weight=1.5, neg_weight=2.0, code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 0.8, 0.2, 0.3])
SINCOS = dict(bbox_coder=dict(type='ResidualBoxCoder', sincos_yaw=True), train_cfg=WEIGHTS,
              loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25))
BINS = dict(
    bbox_coder=dict(type='ResidualBoxCoder'), branches=dict(numbers=dict(reg=2, height=1, size=3, angle=1, velo=2), channels=4),
    train_cfg={**WEIGHTS, 'code_weights': [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 0.2, 0.3]},
    direction=dict(offset_rad=0.78539, limit_offset=0.0, num_bins=2),
    loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1 / 9, loss_weight=0.25),
    loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.2))


def make_head(**changes):
    torch.manual_seed(0)
    return MODELS.build({**dict(
        type='AnchorHeadMulti', in_channels=4, tasks=[dict(class_names=group) for group in GROUPS], anchors=ANCHORS,
        point_cloud_range=RANGE, bev_shape=SHAPE, shared_channels=4, branches=dict(channels=4),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=1.0)), **SINCOS, **changes}).eval()


def random_truth(seed: int, count: int = 12):
    """(G, 9) boxes with the bottom's z in the range, and labels 0..5; of the sizes of their classes' anchors, about."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 6, (count,), generator=g)
    sizes = torch.tensor([row['sizes_m'][0] for row in ANCHORS.values()])[labels]
    boxes = torch.rand(count, 9, generator=g) * torch.tensor([12.0, 7, 1, 0, 0, 0, 7, 4, 4]) \
        - torch.tensor([5.0, 3.5, 1.5, 0, 0, 0, 3.5, 2, 2])
    boxes[:, 3:6] = sizes * (0.8 + 0.4 * torch.rand(count, 3, generator=g))
    return boxes, labels


# -- layout -----------------------------------------------------------------------------------------------------------
def slow_anchors():
    """Class, size, yaw, height, y, x; centres from border to border."""
    rows = []
    for settings in ANCHORS.values():
        for size, yaw, bottom in product(settings['sizes_m'], settings.get('rotations_rad', [0.0, 1.57]),
                                         settings['bottom_heights_m']):
            for y, x in product(range(SHAPE[0]), range(SHAPE[1])):
                rows.append([-6 + 14 * x / (SHAPE[1] - 1), -4 + 8 * y / (SHAPE[0] - 1), bottom + size[2] / 2, *size, yaw])
    return np.array(rows)


def test_anchors_stand_in_the_published_order():
    head = make_head()
    np.testing.assert_allclose(head.anchors.numpy(), slow_anchors(), atol=1e-5)
    assert 'anchors' not in head.state_dict()


def test_centred_anchors_lie_in_the_cells_centres():
    head = make_head(anchors={**ANCHORS, 'car': {**ANCHORS['car'], 'align_center': True}})
    first = head.anchors[:SHAPE[0] * SHAPE[1]].view(*SHAPE, 7)
    assert torch.allclose(first[0, :, 0], -6 + 14 / 6 * (torch.arange(6) + 0.5), atol=1e-5)
    assert torch.allclose(first[:, 0, 1], -4 + 8 / 5 * (torch.arange(5) + 0.5), atol=1e-5)


def test_branches_are_joined_and_then_read_flat():
    head = make_head()
    group = head.group_heads[0]
    anchors, counts = 10, dict(reg=2, height=1, size=3, angle=2, velo=2)  # car 2, truck 4, bus 4 in a cell
    joined = []
    for name, branch in group.box.items():
        last = branch[-1]
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.arange(anchors * counts[name]) + 1000.0 * (len(joined) + 1)
        joined += last.bias.tolist()
    for part in (group.cls[-1],):
        torch.nn.init.zeros_(part.weight)
        part.bias.data = torch.arange(anchors * 3).float()
    out = head([torch.rand(2, 4, *SHAPE)])[0]
    codes, logits = out.box_codes.view(2, anchors, *SHAPE, 10), out.cls_logits.view(2, anchors, *SHAPE, 3)
    for anchor, number in product(range(anchors), range(10)):
        assert (codes[:, anchor, :, :, number] == joined[anchor * 10 + number]).all()
    for anchor, label in product(range(anchors), range(3)):
        assert (logits[:, anchor, :, :, label] == anchor * 3 + label).all()


def test_cells_run_along_x_first():
    group = make_head().group_heads[1]
    maps = torch.arange(2 * 3 * 30.0).view(2, 3, *SHAPE)  # one anchor in a cell, three numbers
    flat = group._per_anchor(maps, 3)
    for frame, y, x, number in product(range(2), range(5), range(6), range(3)):
        assert flat[frame, y * 6 + x, number] == maps[frame, number, y, x]


# -- coding -----------------------------------------------------------------------------------------------------------
def test_codes_have_the_values_of_a_hand_made_example():
    anchor = torch.tensor([[1.0, 2.0, 0.5, 3.0, 4.0, 2.0, 0.0]])  # diagonal 5
    box = torch.tensor([[2.0, 0.0, 1.5, 6.0, 2.0, 4.0, math.pi / 2, 3.0, -1.0]])
    log2 = math.log(2)
    assert torch.allclose(ResidualBoxCoder(sincos_yaw=True).encode(box, anchor),
                          torch.tensor([[0.2, -0.4, 0.5, log2, -log2, log2, -1.0, 1.0, 3.0, -1.0]]), atol=1e-6)
    assert torch.allclose(ResidualBoxCoder().encode(box, anchor),
                          torch.tensor([[0.2, -0.4, 0.5, log2, -log2, log2, math.pi / 2, 3.0, -1.0]]), atol=1e-6)


@pytest.mark.parametrize('sincos', [True, False])
@pytest.mark.parametrize('velocity', [True, False])
def test_decoding_undoes_encoding(sincos, velocity):
    coder = ResidualBoxCoder(sincos, velocity)
    boxes, anchors = random_truth(3, 50)[0][:, :coder.box_size], make_head().anchors[::7][:50]
    codes = coder.encode(boxes, anchors)
    assert codes.shape == (50, coder.code_size)
    again = coder.decode(codes[None], anchors)[0]
    turn = again[:, 6] - boxes[:, 6]
    assert torch.allclose(again[:, [0, 1, 2, 3, 4, 5, *range(7, coder.box_size)]],
                          boxes[:, [0, 1, 2, 3, 4, 5, *range(7, coder.box_size)]], atol=1e-4)
    assert torch.atan2(turn.sin(), turn.cos()).abs().max() < 1e-4  # float32 on yaws around 3


def test_bins_and_rest_give_the_yaw_back():
    bins = DirectionBins(offset_rad=0.78539, num_bins=4)
    yaw = torch.linspace(-6, 6, 201)
    rest = yaw + math.pi / 2 * torch.randint(-3, 4, yaw.shape)  # regression that misses by whole bins
    turn = bins.resolve(rest, bins.bin_of(yaw)) - yaw
    assert torch.atan2(turn.sin(), turn.cos()).abs().max() < 1e-4
    assert DirectionBins().bin_of(torch.tensor([0.8, 0.7, 0.8 + math.pi, -math.pi])).tolist() == [0, 1, 1, 0]


# -- targets ----------------------------------------------------------------------------------------------------------
def slow_iou(a, b):
    """Overlap from above of two boxes turned to the nearest axis."""
    def corners(box):
        yaw = abs((box[6] + math.pi / 2) % math.pi - math.pi / 2)
        dx, dy = (box[3], box[4]) if yaw < math.pi / 4 else (box[4], box[3])
        return box[0] - dx / 2, box[1] - dy / 2, box[0] + dx / 2, box[1] + dy / 2

    p, q = corners(a), corners(b)
    width, height = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
    inter = max(width, 0) * max(height, 0)
    return inter / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - inter)


def slow_assignment(anchors, boxes, pos, neg):
    table = [[slow_iou(anchor, box) for box in boxes] for anchor in anchors.tolist()]
    result = []
    for row in table:
        best = max(row)
        own = row.index(best)
        forced = any(row[g] > 0 and row[g] > max(other[g] for other in table) - 1e-6 for g in range(len(boxes)))
        result.append(own + 1 if forced or best >= pos else 0 if best < neg else -1)
    return result


def assign(anchors, boxes, pos, neg):
    """assign_boxes for one of two frames, beside boxes of another class that cover anchors; the other frame has no boxes."""
    padded = torch.stack([torch.cat([boxes[:, :7], anchors[:3]]), anchors[:1].repeat(len(boxes) + len(anchors[:3]), 1)])
    mine = torch.zeros(padded.shape[:2], dtype=torch.bool)
    mine[0, :len(boxes)] = True
    assigned = assign_boxes(anchors, padded, mine, pos, neg)
    assert not assigned[1].any()
    return assigned[0]


@pytest.mark.parametrize('seed', range(4))
def test_assignment_equals_the_slow_oracle_and_mmdet3d(seed):
    head = make_head()
    boxes, labels = random_truth(seed, 40)
    begin, seen = 0, set()
    for label, settings in enumerate(head.class_anchors):
        anchors = head.anchors[begin:begin + settings.per_cell * 30]
        begin += len(anchors)
        mine = boxes[labels == label]
        ours = assign(anchors, mine, settings.pos_iou_thr, settings.neg_iou_thr)
        assert ours.tolist() == slow_assignment(anchors, mine.tolist(), settings.pos_iou_thr, settings.neg_iou_thr)
        theirs = Max3DIoUAssigner(settings.pos_iou_thr, settings.neg_iou_thr, min_pos_iou=1e-6,
                                  iou_calculator=dict(type='BboxOverlapsNearest3D', coordinate='lidar'))
        truth = InstanceData(bboxes_3d=mine[:, :7], labels_3d=labels[labels == label])
        found = theirs.assign(InstanceData(priors=anchors), truth)
        assert torch.equal(found.gt_inds.clamp(-1, 1), ours.clamp(-1, 1))
        seen |= set(ours.clamp(-1, 1).tolist())
    assert seen == {-1, 0, 1}


def test_a_forced_anchor_learns_the_box_that_it_overlaps_most():
    anchors = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0], [50.0, 0, 0, 4, 2, 1, 0]])
    boxes = torch.tensor([[3.0, 0, 0, 4, 2, 1, 0], [0.2, 0, 0, 4, 2, 1, 0]])  # the first one has no better anchor
    assert assign(anchors, boxes, 0.6, 0.4).tolist() == [2, 0]
    assert assign(anchors, boxes[:1], 0.6, 0.4).tolist() == [1, 0]
    assert assign(anchors, boxes[:1] + 20, 0.6, 0.4).tolist() == [0, 0]  # no overlap forces nothing
    assert assign(anchors, boxes[:0], 0.6, 0.4).tolist() == [0, 0]


# -- losses -----------------------------------------------------------------------------------------------------------
def slow_losses(head, groups, truths, direction):
    """The published sums, anchor by anchor, in double precision."""
    total = dict(loss_cls=0.0, loss_bbox=0.0, **(dict(loss_dir=0.0) if direction else {}))
    weights = head.losses_of.weights
    for frame, (boxes, labels) in enumerate(truths):
        rows, begin = [], 0  # (label or 0 or -1, code) of every anchor
        for label, settings in enumerate(head.class_anchors):
            anchors = head.anchors[begin:begin + settings.per_cell * 30]
            begin += len(anchors)
            mine = boxes[labels == label]
            assigned = slow_assignment(anchors, mine.tolist(), settings.pos_iou_thr, settings.neg_iou_thr) \
                if len(mine) else [0] * len(anchors)
            for anchor, index in zip(anchors, assigned):
                code = head.bbox_coder.encode(mine[index - 1][None], anchor[None])[0].tolist() if index > 0 else None
                rows.append((label + 1 if index > 0 else index, code, anchor))
        share = len(truths) * max(1, sum(row[0] > 0 for row in rows))
        begin, first = 0, 1
        for group in groups:
            classes = group.cls_logits.shape[-1]
            for n in range(group.cls_logits.shape[1]):
                label, code, anchor = rows[begin + n]
                weight = weights.pos_weight if label > 0 else weights.neg_weight if label == 0 else 0.0
                for k, logit in enumerate(group.cls_logits[frame, n].tolist()):
                    p = 1 / (1 + math.exp(-logit))
                    hit = label == first + k
                    total['loss_cls'] += weight / share * (
                        -0.25 * (1 - p) ** 2 * math.log(p) if hit else -0.75 * p ** 2 * math.log(1 - p))
                if label > 0:
                    said = group.box_codes[frame, n].tolist()
                    for i, (a, b, w) in enumerate(zip(said, code, weights.code_weights)):
                        if b != b:
                            continue
                        apart = abs(w * (math.sin(a - b) if direction and i == 6 else a - b))
                        smooth = apart - 1 / 18 if apart >= 1 / 9 else 4.5 * apart ** 2
                        total['loss_bbox'] += 0.25 / share * (smooth if direction else apart)
                    if direction:
                        yaw = (code[6] + float(anchor[6]) - 0.78539) % (2 * math.pi)
                        scores = group.dir_logits[frame, n].tolist()
                        total['loss_dir'] += 0.2 / share * (
                            math.log(sum(math.exp(s) for s in scores)) - scores[int(yaw >= math.pi)])
            begin, first = begin + group.cls_logits.shape[1], first + classes
    return total


@pytest.mark.parametrize('variant', [SINCOS, BINS], ids=['sincos', 'bins'])
def test_losses_equal_the_slow_oracle(variant, make_sample):
    head = make_head(**variant)
    truths = [random_truth(1), (torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64)), random_truth(2, 5)]
    truths[0][0][3, 7] = float('nan')  # a velocity that nobody knows
    samples = [make_sample(None, boxes.tolist(), labels.tolist()) for boxes, labels in truths]
    for boxes, _ in truths:
        boxes[:, 2] += boxes[:, 5] / 2
    feats = [torch.rand(3, 4, *SHAPE) * 4]
    losses = head.loss(feats, samples)
    with torch.no_grad():
        expected = slow_losses(head, head(feats), truths, 'direction' in variant)
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name  # float32 sums of 600 terms
        assert value > 0.01


def test_every_parameter_learns_with_and_without_boxes(make_sample, assert_all_gradients):
    boxes, labels = random_truth(5)
    for variant in (SINCOS, BINS):
        head = make_head(**variant).train()
        for truth in ([make_sample()], [make_sample(None, boxes.tolist(), labels.tolist()), make_sample()]):
            assert_all_gradients(head, head.loss([torch.rand(len(truth), 4, *SHAPE)], truth))


def test_ranks_with_unequal_shares_have_the_mean_of_one_process(make_sample, on_two_ranks):
    head = make_head()
    samples = [make_sample(None, *(part.tolist() for part in random_truth(seed))) for seed in range(3)]
    feats = torch.rand(3, 4, *SHAPE)
    alone = head.loss([feats], samples)
    ranks = on_two_ranks(lambda: head.loss([feats[:1]], samples[:1]), lambda: head.loss([feats[1:]], samples[1:]))
    for name, value in alone.items():
        assert (ranks[0][name] + ranks[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-5)


def test_a_rank_without_a_labelled_frame_takes_no_share(make_sample, on_two_ranks):
    head = make_head()
    sample, idle = make_sample(None, *(part.tolist() for part in random_truth(1))), make_sample()
    idle.set_metainfo(dict(is_labelled=False))
    feats = torch.rand(1, 4, *SHAPE)
    alone = head.loss([feats], [sample])
    ranks = on_two_ranks(lambda: head.loss([feats], [sample]), lambda: head.loss([feats], [idle]))
    for name, value in alone.items():
        assert (ranks[0][name] + 0.0 * ranks[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-5)
    assert all(value.isfinite() for value in head.loss([feats], [idle]).values())  # nobody has one


# -- answers ----------------------------------------------------------------------------------------------------------
def slow_overlap(a, b):
    """Rotated boxes from above, by OpenCV's polygons."""
    rects = [((box[0], box[1]), (box[3], box[4]), math.degrees(box[6])) for box in (a, b)]
    kind, points = cv2.rotatedRectangleIntersection(*rects)
    inter = 0.0 if kind == cv2.INTERSECT_NONE else cv2.contourArea(cv2.convexHull(points))
    return inter / (a[3] * a[4] + b[3] * b[4] - inter)


def test_suppression_equals_a_greedy_loop():
    g = torch.Generator().manual_seed(0)
    boxes = torch.rand(120, 9, generator=g) * torch.tensor([12.0, 12, 1, 3, 1, 1, 6, 1, 1]) \
        + torch.tensor([-6.0, -6, 0, 2, 1, 1, -3, 0, 0])
    scores = [torch.rand(70, 2, generator=g), torch.rand(50, 1, generator=g)]
    expected = []
    for begin, group, first in ((0, scores[0], 0), (70, scores[1], 2)):
        for k in range(group.shape[1]):
            order = sorted((s, n) for n, s in enumerate(group[:, k].tolist()) if s >= 0.3)[::-1][:40]
            kept: list = []
            for score, n in order:
                if all(slow_overlap(boxes[begin + n].tolist(), boxes[begin + m].tolist()) <= 0.2 for _, m in kept):
                    kept.append((score, n))
            expected += [(first + k, begin + n, score) for score, n in kept[:6]]
    found, score, label = BoxSelection(0.3, 0.2, pre_max_size=40, post_max_size=6)(boxes, scores)
    assert label.tolist() == [row[0] for row in expected] and len(expected) == 18
    assert torch.equal(found, boxes[[row[1] for row in expected]])
    assert score.tolist() == [row[2] for row in expected]


def test_a_score_at_the_threshold_is_an_answer_and_no_answer_is_an_empty_list():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0.3, 0, 0], [9.0, 0, 0, 4, 2, 1, 0.3, 0, 0]])
    found, _, label = BoxSelection(score_threshold=0.25)(boxes, [torch.tensor([[0.25], [0.2499]])])
    assert torch.equal(found, boxes[:1]) and label.tolist() == [0]
    found, score, label = BoxSelection()(boxes, [torch.zeros(1, 2), torch.zeros(1, 1)])
    assert found.shape == (0, 9) and len(score) == len(label) == 0


@pytest.mark.parametrize('variant', [SINCOS, BINS], ids=['sincos', 'bins'])
def test_what_targets_say_is_predicted_as_the_true_boxes(variant, make_sample):
    """Head and labels agree on axes, yaw, the box's origin and the order of classes."""
    head = make_head(**variant)
    boxes = torch.tensor([[-3.0, -2, -1.5, 3.9, 1.9, 1.6, 0.2, 1.0, 2.0], [5.0, 2, -0.4, 10.5, 2.9, 3.6, -2.9, 5.0, -1.0],
                          [-0.3, 2.1, -1.0, 0.5, 0.5, 1.1, 1.4, 0.0, 0.0], [5.3, -2.1, -1.0, 0.8, 0.6, 1.7, 2.0, 0.5, 0.5]])
    sample = make_sample(None, boxes.tolist(), [0, 2, 3, 5])
    sample.set_metainfo(dict(box_type_3d=LiDARInstance3DBoxes))
    targets, groups, begin, first = head.targets([sample]), [], 0, 1
    for part in head.group_heads:
        rows = slice(begin, begin + part.per_cell * 30)
        label = targets.labels[:, rows]
        logits = torch.stack([(label == first + k) * 12.0 - 6 for k in range(part.num_classes)], dim=-1)
        bins = None
        if head.direction is not None:
            bin_of = head.direction.bin_of(targets.codes[:, rows, 6] + head.anchors[rows, 6])
            bins = torch.nn.functional.one_hot(bin_of, 2).float()
        groups.append(GroupOutput(logits, targets.codes[:, rows], bins))
        begin, first = rows.stop, first + part.num_classes
    found = head.predict_by_feat(groups, [sample.metainfo])[0]
    assert found.labels_3d.tolist() == [0, 2, 3, 5]
    ours = found.bboxes_3d.tensor.clone()
    turn = ours[:, 6] - boxes[:, 6]
    ours[:, 6] = boxes[:, 6] + torch.atan2(turn.sin(), turn.cos())
    assert torch.allclose(ours, boxes, atol=1e-4)


# -- settings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(('changes', 'said'), [
    (dict(tasks=[dict(class_names=['car', 'car'])]), 'exactly one task'),
    (dict(tasks=[dict(num_class=2, class_names=['car'])]), 'num_class=2'),
    (dict(tasks=[dict(class_names=['car'])]), 'every class of the tasks its anchors'),
    (dict(anchors={**ANCHORS, 'car': {**ANCHORS['car'], 'size': 3}}), r"anchors\['car'\]: no setting 'size'"),
    (dict(anchors={**ANCHORS, 'car': {**ANCHORS['car'], 'neg_iou_thr': 0.9}}), r"anchors\['car'\].*0.9 and 0.5"),
    (dict(bbox_coder=dict(type='ResidualBoxCoder')), 'add up to 10, but bbox_coder makes 9'),
    (dict(direction=dict()), 'sincos_yaw=False'),
    (dict(loss_dir=BINS['loss_dir']), 'go together'),
    (dict(train_cfg=dict(code_weights=[1.0])), 'needs 10 numbers, got 1'),
    (dict(test_cfg=dict(pre_max_size=0)), r"model.test_cfg.pts=.*'pre_max_size': 0.*at least 1"),
    (dict(test_cfg=dict(nms_type='rotate')), r"model.test_cfg.pts: no setting 'nms_type'; it takes \['score_threshold'"),
    (dict(test_cfg=dict(pre_max_size='many')), "model.test_cfg.pts=.*'many'"),
    (dict(anchors={**ANCHORS, 'car': {}}), r"anchors\['car'\]: there is no 'sizes_m'"),
])
def test_wrong_settings_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        make_head(**changes)


def test_levels_of_another_shape_are_refused():
    for feats in ([torch.rand(1, 4, 5, 5)], [torch.rand(1, 4, *SHAPE)] * 2):
        with pytest.raises(ValueError, match=r'one level of \(5, 6\) cells'):
            make_head()(feats)


def test_boxes_without_velocity_are_named(make_sample):
    sample = make_sample()
    sample.gt_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(torch.rand(2, 7)), labels_3d=torch.zeros(2).long())
    with pytest.raises(ValueError, match='sample frame: boxes of 7 numbers'):
        make_head().targets([sample])
