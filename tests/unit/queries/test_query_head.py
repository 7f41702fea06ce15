"""What all query heads share: losses against mmdet's and by hand, matching, denoising, boxes."""

import math

import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import nn

from projects.memfusion.heads import scene_head
from projects.memfusion.queries import Decoded, QueryHead
from projects.memfusion.queries.assignment import Assigner
from projects.memfusion.queries.query_losses import focal_loss
from projects.memfusion.structures import Readout, SceneFeatures, SceneTruth

RANGE = [-40.0, -40.0, -5.0, 40.0, 40.0, 3.0]


class GivenHead(QueryHead):
    """Says what its parameters are, of two layers and four queries, and the true codes of noisy ones."""

    bev_channels = 2

    def __init__(self, **settings):
        super().__init__(3, RANGE, **settings)
        torch.manual_seed(0)
        self.logits = nn.Parameter(torch.randn(2, 1, 4, 3))
        self.codes = nn.Parameter(torch.randn(2, 1, 4, 10))
        self.idle = nn.Linear(2, 2)

    def decode_queries(self, features, readout, noisy):
        batch = features.batch_size
        logits, codes = self.logits.expand(-1, batch, -1, -1), self.codes.expand(-1, batch, -1, -1)
        if noisy is not None:
            logits = torch.cat([logits.new_zeros(2, batch, noisy.num, 3), logits], 2)
            codes = torch.cat([(noisy.codes.where(~noisy.codes.isnan(), 0.0) + 1).expand(2, -1, -1, -1), codes], 2)
        return Decoded(logits, codes, carried='for the memory')


def sample(boxes, labels):
    truth = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor(labels, dtype=torch.long))
    return Det3DDataSample(gt_instances_3d=truth)


def boxes(count, seed=1):
    torch.manual_seed(seed)
    return torch.cat([torch.rand(count, 3) * 4 - 2, torch.rand(count, 3) + 0.5, torch.rand(count, 3)], 1)


def run(head, samples):
    features = SceneFeatures(torch.zeros(len(samples), 2, 4, 4))
    return head.forward(features, Readout(), SceneTruth.of_samples(samples, torch.device('cpu')))


def test_the_focal_loss_is_mmdets():
    from mmdet.models.losses import FocalLoss
    logits, labels = torch.randn(12, 3), torch.randint(0, 4, (12,))
    wanted = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)(logits, labels, avg_factor=5.0)
    assert torch.allclose(2 * focal_loss(logits, labels, 0.25, 2.0).sum() / 5, wanted, atol=1e-6)


def test_matching_is_the_cheapest_of_all_assignments():
    """Against every permutation, with the costs of the losses."""
    from itertools import permutations
    torch.manual_seed(3)
    logits, codes = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 10)
    true, labels = torch.randn(3, 10), torch.tensor([2, 0, 2])
    true[:, 8:] = torch.nan
    found = Assigner(dict(weight=2.0), dict(weight=0.25, code_weights=[2.0, 2.0] + [1.0] * 6 + [0.0] * 2)).match(
        logits, codes, [true], [labels])
    for layer in range(2):
        def cost(query, box, layer=layer):
            p = logits[layer, 0, query, labels[box]].sigmoid()
            focal = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log() - 0.75 * p ** 2 * -(1 - p + 1e-12).log()
            weight = torch.tensor([2.0, 2.0] + [1.0] * 6)
            return float(2 * focal + 0.25 * ((codes[layer, 0, query] - true[box])[:8].abs() * weight).sum())
        best = min(permutations(range(4), 3), key=lambda order: sum(cost(query, box) for box, query in enumerate(order)))
        assert [found[layer, 0].tolist().index(box) for box in range(3)] == list(best)
        assert (found[layer] == -1).sum() == 1


def test_losses_by_hand():
    head = GivenHead(loss_cfg=dict(code_weights=[2.0] * 2 + [1.0] * 6 + [0.5] * 2)).train()
    samples = [sample(boxes(2), [0, 2]), sample(torch.zeros(0, 9), [])]
    outputs = run(head, samples)
    assert outputs.carried == 'for the memory' and scene_head(head) is head
    losses = head.loss_by_feat(outputs, samples)
    assert set(losses) == {'loss_cls', 'loss_bbox', 'd0.loss_cls', 'd0.loss_bbox'}
    true = head.code.encode(boxes(2))
    for layer, prefix in enumerate(('d0.', '')):
        places = head.losses.assigner.match(outputs.logits, outputs.codes, [true, true[:0]],
                                            [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.long)])[layer]
        labels = torch.full((2, 4), 3)
        labels[0] = torch.where(places[0] >= 0, torch.tensor([0, 2])[places[0].clamp(min=0)], 3)
        focal = 2 * focal_loss(outputs.logits[layer], labels, 0.25, 2.0).sum() / 2
        assert torch.allclose(losses[f'{prefix}loss_cls'], focal, atol=1e-6)
        l1 = sum(((outputs.codes[layer, 0, query] - true[place]).abs() * torch.tensor([2.0] * 2 + [1.0] * 6 + [0.5] * 2)).sum()
                 for query, place in enumerate(places[0].tolist()) if place >= 0)
        assert torch.allclose(losses[f'{prefix}loss_bbox'], 0.25 * l1 / 2, atol=1e-6)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_unknown_velocities_are_not_learned():
    head, known = GivenHead(), boxes(2)
    unknown = known.clone()
    unknown[:, 7:] = torch.nan
    one, two = (head.loss_by_feat(run(head, [sample(each, [0, 1])]), [sample(each, [0, 1])]) for each in (known, unknown))
    assert torch.isfinite(two['loss_bbox']) and two['loss_bbox'] < one['loss_bbox']
    assert torch.equal(one['loss_cls'], two['loss_cls'])
    head.zero_grad()
    two['loss_bbox'].backward()
    assert (head.codes.grad[..., 8:] == 0).all()


@pytest.mark.parametrize('count', [0, 2])
def test_denoising(count):
    head = GivenHead(denoising=dict(groups=3, split=0.75, loss_weight=0.5)).train()
    samples = [sample(boxes(count), [1] * count)]
    torch.manual_seed(5)
    outputs = run(head, samples)
    losses = head.loss_by_feat(outputs, samples)
    assert {name for name in losses if name.startswith('dn.')} == {
        'dn.loss_cls', 'dn.loss_bbox', 'dn.d0.loss_cls', 'dn.d0.loss_bbox'}
    assert outputs.logits.shape == (2, 1, 4, 3) and torch.equal(outputs.codes, head.codes)
    # Every number of every noisy query is off by 1; logits are 0.
    assert torch.allclose(losses['dn.loss_bbox'], torch.tensor(0.5 * 0.25 * (8 + 0.4) * bool(count)))
    right = int((outputs.noisy.labels < 3).sum())
    each = 0.25 * math.log(2) * torch.tensor([0.25, 0.75])
    wanted = 0.5 * 2 * (right * each[0] + (3 * 3 * count - right) * each[1])
    assert torch.allclose(losses['dn.loss_cls'], wanted / max(1, 3 * count * math.pi / 6 * 0.75 ** 3), atol=1e-6)
    plain = GivenHead()
    assert torch.allclose(losses['loss_cls'], plain.loss_by_feat(run(plain, samples), samples)['loss_cls'])
    head.eval()
    assert run(head, samples).noisy is None


def test_boxes_come_out_with_bottom_centres():
    head = GivenHead(box_code=dict(order='x y w l z h'), decode_cfg=dict(max_num=3)).eval()
    with torch.no_grad():
        true = boxes(4)
        head.codes[1, 0] = head.code.encode(true)
        head.logits.copy_(torch.tensor([-5.0, -5.0, -5.0]))
        head.logits[1, 0, 2, 1] = 2.0
    outputs = head.forward(SceneFeatures(torch.zeros(1, 2, 4, 4)), Readout(), None)
    (found,) = head.predict_by_feat(outputs, [dict(box_type_3d=LiDARInstance3DBoxes)])
    assert len(found) == 3 and found.labels_3d[0] == 1 and torch.allclose(found.bboxes_3d.tensor[0], true[2], atol=1e-5)
    assert head.decoding.post_center_range == [-50, -50, -10, 50, 50, 10]


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match='code_weights must be 10'):
        GivenHead(loss_cfg=dict(code_weights=[1.0]))
    with pytest.raises(ValueError, match='num_classes'):
        QueryHead(0, RANGE)
