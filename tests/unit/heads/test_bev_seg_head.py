"""BEV segmentation: targets by hand in the frame of the boxes, groups, empty frames, two ranks."""

import math

import pytest
import torch
from torch.testing import assert_close

from projects.memfusion.heads import BEVSegHead

CLASSES = ['car', 'truck', 'pedestrian']
CAR = [2.0, 0.0, 0, 4.0, 2.0, 1.5, 0.0, 0, 0]  # x 0..4, y -1..1
PERSON = [-5.5, 2.5, 0, 0.5, 0.5, 1.8, 0.0, 0, 0]


def make_head(seed=0, **changes):
    torch.manual_seed(seed)
    return BEVSegHead(**{**dict(in_channels=4, classes=CLASSES, groups=dict(vehicle=['truck', 'car'], person=['pedestrian']),
                                point_cloud_range=[-8, -4, -3, 8, 4, 1], channels=8,
                                loss_seg=dict(type='OccupancyLoss', hard_fraction=1.0)), **changes})


def make_bev(frames, seed=0):
    return torch.randn(frames, 4, 8, 16, generator=torch.Generator().manual_seed(seed))


def test_targets_by_hand(make_sample):
    """Cells of 1 m, 16 along x from -8, 8 along y from -4."""
    turned = [*CAR[:6], math.pi / 2, 0, 0]  # x 1..3, y -2..2
    samples = [make_sample(boxes=[CAR, PERSON], labels=[0, 2]), make_sample(boxes=[turned], labels=[1]), make_sample()]
    want = torch.zeros(3, 2, 8, 16)
    want[0, 0, 3:5, 8:12] = 1
    want[0, 1, 6, 2] = 1
    want[1, 0, 2:6, 9:11] = 1
    assert torch.equal(make_head().targets(samples, torch.zeros(3, 2, 8, 16)), want)
    occupied = make_head(groups=dict(occupied=CLASSES)).targets(samples, torch.zeros(3, 1, 8, 16))
    assert torch.equal(occupied, want.amax(dim=1, keepdim=True))


def test_a_box_of_no_class_is_in_no_group(make_sample):
    target = make_head().targets([make_sample(boxes=[CAR], labels=[-1])], torch.zeros(1, 2, 8, 16))
    assert target.sum() == 0


def test_loss_by_hand(make_sample):
    """Logits of 0 everywhere: BCE is log 2; dice 1 - (2 * n/2 + 1) / (64 + n + 1) for n cells of 128."""
    head = make_head()
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    losses = head.loss(make_bev(1), [make_sample(boxes=[CAR, PERSON], labels=[0, 2])], None)
    assert losses['loss_bev_seg_bce'].item() == pytest.approx(math.log(2))
    assert losses['loss_bev_seg_dice'].item() == pytest.approx(1 - (9 / 73 + 2 / 66) / 2)
    assert set(losses) == {'loss_bev_seg_bce', 'loss_bev_seg_dice'}


def test_it_learns_one_frame(make_sample):
    head, bev, sample = make_head(channels=32), make_bev(1), make_sample(boxes=[CAR, PERSON], labels=[0, 2])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    history = []
    for _ in range(60):
        loss = sum(head.loss(bev, [sample], None).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.25 * history[0], history
    head.predict(bev, [sample], None)
    target = head.targets([sample], head(bev))[0]
    assert torch.equal(sample.pred_bev_seg > 0.5, target > 0.5)


def test_prediction_is_a_probability_and_batch_equals_single(make_sample):
    head, bev, both = make_head(), make_bev(2), [make_sample(), make_sample()]
    head.predict(bev, both, None)
    for i, batched in enumerate(both):
        single = make_sample()
        head.predict(bev[i:i + 1], [single], None)
        assert_close(batched.pred_bev_seg, single.pred_bev_seg)
        assert_close(batched.pred_bev_seg, head(bev)[i].sigmoid())
        assert batched.pred_bev_seg.shape == (2, 8, 16) and not batched.pred_bev_seg.requires_grad


def test_every_parameter_has_a_gradient_whatever_was_labelled(make_sample, assert_all_gradients):
    head = make_head()
    for boxes, labels in (([CAR, PERSON], [0, 2]), ([CAR], [-1]), ([], [])):
        assert_all_gradients(head, head.loss(make_bev(1), [make_sample(boxes=boxes, labels=labels)], None))
    none = head.loss(make_bev(0), [], None)
    assert_all_gradients(head, none)
    assert sum(none.values()) == 0
    with torch.autocast('cpu', torch.bfloat16):
        assert_all_gradients(head, head.loss(make_bev(1), [make_sample(boxes=[CAR], labels=[0])], None))


@pytest.mark.parametrize('first', [0, 1])
def test_two_ranks_have_the_loss_of_both(make_sample, on_two_ranks, first):
    """Ranks of unequal numbers of frames, down to none."""
    head, bev = make_head(loss_weight=0.5), make_bev(3)
    samples = [make_sample(boxes=[CAR], labels=[0]), make_sample(boxes=[CAR, PERSON], labels=[1, 2]), make_sample()]
    whole = head.loss(bev, samples, None)
    ranks = on_two_ranks(lambda: head.loss(bev[:first], samples[:first], None),
                         lambda: head.loss(bev[first:], samples[first:], None))
    for name, value in whole.items():
        assert_close((ranks[0][name] + ranks[1][name]) / 2, value)


def test_errors():
    with pytest.raises(ValueError, match=r"groups\['vehicle'\]: \['tram'\]"):
        make_head(groups=dict(vehicle=['car', 'tram']))
    with pytest.raises(ValueError, match=r"groups\['nothing'\]: no class"):
        make_head(groups=dict(nothing=[]))
    with pytest.raises(ValueError, match='groups is empty'):
        make_head(groups={})
