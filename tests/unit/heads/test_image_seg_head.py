"""Image segmentation: targets and loss by hand, pixel alignment of every level, missing cameras, two ranks."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from projects.memfusion.heads import ImageSegHead
from projects.memfusion.heads.image_seg_head import seg_target


def make_head(seed=0, **changes):
    torch.manual_seed(seed)
    return ImageSegHead(**{**dict(in_channels=4, num_classes=3, stride=4, levels=(0, 1), channels=8), **changes})


def make_feats(frames, cameras=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(frames, cameras, 4, 16 // s, 24 // s, generator=g) for s in (1, 2)]  # of a 64 x 96 image


def random_seg(seed, shape=(64, 96)):
    seg = torch.randint(4, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return torch.where(seg == 3, torch.full_like(seg, 255), seg)


def test_loss_is_the_weighted_mean_over_labelled_pixels(make_rig, make_labels, make_sample):
    """Oracle: torch's own mean, of the labelled pixels picked one image at a time."""
    sizes, weights = [(50, 90), (64, 96)], [1.0, 0.5, 3.0]
    rig, feats, head = make_rig(1, sizes), make_feats(1), make_head(class_weights=weights)
    segs = [random_seg(i, size) for i, size in enumerate(sizes)]
    loss = head.loss(feats, [make_sample([make_labels(sem_seg=seg) for seg in segs])], rig)['loss_img_seg']
    logits = F.interpolate(head(feats), scale_factor=4, mode='bilinear')
    picked, truth = [], []
    for image, seg, (h, w) in zip(logits, segs, sizes):
        rows, columns = torch.nonzero(seg != 255, as_tuple=True)
        picked.append(image[:, :h, :w][:, rows, columns].T)
        truth.append(seg[rows, columns].long())
    want = F.cross_entropy(torch.cat(picked), torch.cat(truth), torch.tensor(weights))
    assert_close(loss, want)


def test_targets_by_hand(make_rig, make_labels):
    rig = make_rig(1, [(2, 3), (4, 4), (4, 4)])
    maps = [torch.tensor([[0, 1, 2], [255, 1, 0]], dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)]
    target = seg_target([make_labels(sem_seg=maps[0]), make_labels(sem_seg=maps[1]), None], rig, (4, 4), 3)
    unknown = 255
    assert target[0].tolist() == [[0, 1, 2, unknown], [unknown, 1, 0, unknown], [unknown] * 4, [unknown] * 4]
    assert (target[1] == 1).all() and (target[2] == unknown).all()
    padded = F.pad(maps[0], (0, 1, 0, 2))  # zeros in the padding are no class 0
    assert_close(seg_target([make_labels(sem_seg=padded), None, make_labels()], rig, (4, 4), 3)[0], target[0])
    with pytest.raises(ValueError, match=r'CAM_0: sem_seg is \(3, 3\)'):
        seg_target([make_labels(sem_seg=torch.zeros(3, 3, dtype=torch.uint8))], rig, (4, 4), 3)
    with pytest.raises(ValueError, match='CAM_0: sem_seg holds class 2.*num_classes is 2'):
        seg_target([make_labels(sem_seg=maps[0])], rig, (4, 4), 2)


def test_levels_and_pixels_line_up():
    """Features that hold their cell's pixel coordinate u; the sum over two levels, enlarged, is 2 u at every inner pixel."""
    head = make_head(in_channels=1, channels=1, num_classes=1)
    for layer in head.lateral:
        torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(head.lateral[0].bias)
    torch.nn.init.zeros_(head.smooth.conv.weight)
    head.smooth.conv.weight.data[..., 1, 1] = 1.0
    torch.nn.init.ones_(head.classify.weight)
    torch.nn.init.zeros_(head.classify.bias)
    feats = [((torch.arange(96 // s) + 0.5) * s - 0.5).expand(1, 1, 1, 64 // s, 96 // s) for s in (4, 8)]
    pixels = head.pixel_logits(head(feats))
    assert pixels.shape == (1, 1, 64, 96)
    assert_close(pixels[0, 0, :, 6:90], (2 * torch.arange(96.0))[6:90].expand(64, -1), rtol=0, atol=1e-4)


def test_it_learns_one_frame(make_rig, make_labels, make_sample):
    seg = torch.zeros(64, 96, dtype=torch.uint8)
    seg[32:, :48], seg[:16] = 1, 2
    feats = make_feats(1)
    cells = F.interpolate(F.one_hot(seg.long(), 3).permute(2, 0, 1)[None].float(), (16, 24), mode='area')
    feats[0][:, :, :3] += 3 * cells
    rig, sample, head = make_rig(1), make_sample([make_labels(sem_seg=seg), None]), make_head()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    history = []
    for _ in range(50):
        loss = head.loss(feats, [sample], rig)['loss_img_seg']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.25 * history[0], history
    head.predict(feats, [sample], rig)
    assert (sample.pred_img_sem_seg[0] == seg).float().mean() > 0.95


def test_a_missing_camera_and_the_padding(make_rig, make_labels, make_sample):
    rig, feats, head = make_rig(1, [(50, 90), (64, 96)]), make_feats(1), make_head()
    missing = replace(rig, cam_valid=torch.tensor([[True, False]]))
    labels = make_labels(sem_seg=random_seg(0, (50, 90)))
    alone = head.loss([x[:, :1] for x in feats], [make_sample([labels])], rig.take_cameras([0]))
    for other in (None, make_labels(sem_seg=random_seg(1))):
        assert_close(head.loss(feats, [make_sample([labels, other])], missing), alone)
    sample = make_sample()
    head.predict(feats, [sample], missing)
    seg = sample.pred_img_sem_seg
    assert seg.shape == (2, 64, 96) and seg.dtype == torch.uint8
    assert (seg[0, :50, :90] < 3).all() and (seg[0, 50:] == 255).all() and (seg[0, :, 90:] == 255).all()
    assert (seg[1] == 255).all()


def test_every_parameter_has_a_gradient_whatever_was_labelled(make_rig, make_labels, make_sample, assert_all_gradients):
    rig, head = make_rig(1), make_head(norm_cfg=dict(type='GN', num_groups=2))
    labels = make_labels(sem_seg=random_seg(0))
    masked = replace(rig, cam_valid=torch.zeros(1, 2, dtype=torch.bool))
    for given, calibration in (([labels] * 2, rig), ([make_labels()] * 2, rig), ([None] * 2, rig), ([labels] * 2, masked)):
        loss = head.loss(make_feats(1), [make_sample(given)], calibration)
        assert_all_gradients(head, loss)
        assert (loss['loss_img_seg'] > 0) == (given[0] is labels and calibration is rig)
    head = make_head()
    assert_all_gradients(head, head.loss(make_feats(0), [], rig.select(torch.tensor([False]))))
    with torch.autocast('cpu', torch.bfloat16):
        assert_all_gradients(head, head.loss(make_feats(1), [make_sample([labels] * 2)], rig))


def test_batch_equals_single(make_rig, make_sample):
    rig, feats, head, both = make_rig(2), make_feats(2), make_head(), [make_sample(), make_sample()]
    head.predict(feats, both, rig)
    for i, batched in enumerate(both):
        single = make_sample()
        head.predict([x[i:i + 1] for x in feats], [single], rig.select(torch.tensor([i])))
        assert torch.equal(batched.pred_img_sem_seg, single.pred_img_sem_seg)


def test_two_ranks_have_the_loss_of_both(make_rig, make_labels, make_sample, on_two_ranks):
    rig, feats, head = make_rig(2), make_feats(2), make_head(class_weights=[1, 2, 3], loss_weight=0.5)
    full, little = random_seg(0), torch.full((64, 96), 255, dtype=torch.uint8)
    little[:3] = 1
    samples = [make_sample([make_labels(sem_seg=full)] * 2), make_sample([None, make_labels(sem_seg=little)])]
    whole = head.loss(feats, samples, rig)['loss_img_seg']
    ranks = on_two_ranks(*[lambda i=i: head.loss([x[i:i + 1] for x in feats], samples[i:i + 1],
                                                 rig.select(torch.tensor([i]))) for i in range(2)])
    assert_close((ranks[0]['loss_img_seg'] + ranks[1]['loss_img_seg']) / 2, whole)


def test_errors():
    for key, changes in dict(num_classes=dict(num_classes=256), levels=dict(levels=(0, 0)),
                             class_weights=dict(class_weights=[1.0])).items():
        with pytest.raises(ValueError, match=f'ImageSegHead.{key}'):
            make_head(**changes)
    with pytest.raises(ValueError, match='level 1 must be the finest'):
        make_head(levels=(1, 0))(make_feats(1))
