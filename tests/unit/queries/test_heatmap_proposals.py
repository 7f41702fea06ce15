"""Proposals: peaks by a slow loop, targets as mmdet3d's, who is taught what, batches, frames without points, bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries.heatmap_proposals import HeatmapProposals, ProposalSettings, class_heatmaps, highest_peaks
from projects.memfusion.structures import Readout, SceneFeatures, SceneTruth

RANGE = (-25.6, -12.8, -5.0, 25.6, 12.8, 3.0)
CFG = dict(type='StreamPETR', num_classes=3, point_cloud_range=RANGE,
           queries=dict(num_learned=5, num_propagated=0, num_proposed=6), bev_tokens=dict(in_channels=4),
           transformer=dict(dim=16, num_layers=2, num_heads=2, ffn_dim=16, dropout=0.0))


def branch(**settings):
    """Reproducible, no weight is 0."""
    torch.manual_seed(0)
    part = HeatmapProposals(ProposalSettings(hidden_channels=8, **settings), 6, 4, 3, 16, RANGE)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return part


def head(**changes):
    torch.manual_seed(0)
    made = MODELS.build({**CFG, **changes}).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def bev(frames=2, seed=1):
    return torch.randn(frames, 4, 6, 8, generator=torch.Generator().manual_seed(seed))


def sample(count, seed=0, **fields):
    """Boxes of three classes in and around the range."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=g) * torch.tensor([56.0, 28, 4, 12, 4, 3, 7, 8, 8]) \
        - torch.tensor([28.0, 14, 3, -0.1, -0.1, -0.1, 3, 4, 4])
    if count > 5:
        boxes[1, :2] = boxes[0, :2]
        boxes[3, 3] = 0  # no area
        boxes[5, :2] = torch.tensor([RANGE[0] - 0.1, RANGE[1] - 0.7])  # less than a cell outside
    return Det3DDataSample(gt_instances_3d=InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.randint(0, 3, (count,), generator=g), **fields))


# -- peaks --------------------------------------------------------------------------------------------------------------
def slow_peaks(heat, kernel):
    """(K, H, W) -> (row, column, class), peaks first, each by height."""
    found = []
    reach, (classes, height, width) = kernel // 2, heat.shape
    for kind in range(classes):
        for row in range(height):
            for column in range(width):
                around = heat[kind, max(row - reach, 0):row + reach + 1, max(column - reach, 0):column + reach + 1]
                value = heat[kind, row, column].item()
                found.append((value < around.max().item(), -value, row, column, kind))
    return [place for *_, row, column, kind in sorted(found) for place in [(row, column, kind)]]


@pytest.mark.parametrize('kernel', [1, 3, 5])
def test_peaks_come_by_height_over_all_classes_and_then_other_cells(kernel):
    heat = torch.randn(3, 4, 5, 7, generator=torch.Generator().manual_seed(kernel))
    cells, classes = highest_peaks(heat, kernel, 4 * 5 * 7)
    for frame in range(3):
        found = [(cell // 7, cell % 7, kind) for cell, kind in zip(cells[frame].tolist(), classes[frame].tolist())]
        assert found == slow_peaks(heat[frame], kernel)


def test_a_hand_made_map_gives_the_centres_of_its_cells():
    part, heat = branch(), torch.full((1, 3, 6, 8), -5.0)
    heat[0, 2, 0, 0], heat[0, 0, 3, 4], heat[0, 0, 3, 5], heat[0, 1, 5, 7] = 1.0, 3.0, 2.0, 2.5  # the third is beside a higher
    part.heatmap = lambda features: heat
    found = part(bev(1))
    # a cell is 1 / 8 of the range wide and 1 / 6 deep
    expected = torch.tensor([[4.5 / 8, 3.5 / 6, 0.5], [7.5 / 8, 5.5 / 6, 0.5], [0.5 / 8, 0.5 / 6, 0.5]])
    torch.testing.assert_close(found.references[0, :3], expected, rtol=0, atol=1e-6)
    features = part.reduce(bev(1)).relu()
    for query, (row, column, kind) in enumerate([(3, 4, 0), (5, 7, 1), (0, 0, 2)]):
        content = part.content.weight @ features[0, :, row, column] + part.content.bias + part.classes.weight[kind]
        torch.testing.assert_close(found.content[0, query], content)


# -- what the map is taught ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize('counts', [(40, 0, 7), (0, 0)])
def test_targets_are_those_of_mmdet3ds_center_head(counts):
    from mmdet3d.models.dense_heads import CenterHead
    init_default_scope('mmdet3d')
    theirs = MODELS.build(dict(
        type=CenterHead, in_channels=4, share_conv_channel=8, tasks=[dict(class_names=['car', 'truck', 'bus'])],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        bbox_coder=dict(type='CenterPointBBoxCoder', pc_range=RANGE[:2], out_size_factor=4, voxel_size=[0.2, 0.2]),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3),
        train_cfg=ConfigDict(dense_reg=1, max_objs=50, gaussian_overlap=0.1, min_radius=2, grid_size=[256, 128, 1],
                             voxel_size=[0.2, 0.2, 8], out_size_factor=4, point_cloud_range=list(RANGE),
                             code_weights=[1.0] * 10)))
    truths = [sample(count, seed).gt_instances_3d for seed, count in enumerate(counts)]
    expected = theirs.get_targets(truths)[0][0]
    found = class_heatmaps([one.bboxes_3d.tensor for one in truths], [one.labels_3d for one in truths], (3, 32, 64), RANGE,
                           ProposalSettings())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (found == 1).sum() > 20 or not any(counts)


def test_the_loss_is_mmdets_and_frames_without_points_are_not_asked():
    from mmdet.models.losses import GaussianFocalLoss
    part, truths = branch(loss_weight=0.5), [sample(9, seed).gt_instances_3d for seed in range(2)]
    with torch.no_grad():
        found = part(bev())
        targets = class_heatmaps([one.bboxes_3d.tensor for one in truths], [one.labels_3d for one in truths], (3, 6, 8), RANGE,
                                 part.settings)
        expected = GaussianFocalLoss()(found.logits.sigmoid(), targets, avg_factor=int((targets == 1).sum()))
        torch.testing.assert_close(part.loss(found, truths), 0.5 * expected, rtol=1e-4, atol=0)
        first = part(bev()[:1])
        half = part(bev(), torch.tensor([True, False]))
    torch.testing.assert_close(part.loss(half, truths), part.loss(first, truths[:1]))


def test_hidden_boxes_are_asked_of_the_map_or_not():
    points = torch.tensor([0, 1, 5, 2, 0, 0, 0, 3, 0])
    counted = sample(9, num_points=points).gt_instances_3d
    part = branch(min_points=1)
    found = part(bev(1))
    assert torch.equal(part.loss(found, [counted]), part.loss(found, [counted[points > 0]]))
    assert not torch.equal(part.loss(found, [counted]), branch().loss(found, [counted]))
    assert part.loss(found, [sample(0).gt_instances_3d]).isfinite()
    with pytest.raises(ValueError, match='CountBoxPoints'):
        part.loss(found, [sample(9).gt_instances_3d])


def test_the_map_learns_from_centres_and_the_content_from_the_decoder():
    made, samples = head().train(), [sample(4, 1), sample(3, 2)]
    outputs = made(SceneFeatures(bev()), Readout(), None)
    losses = made.loss_by_feat(outputs, samples)
    losses['loss_heatmap'].backward(retain_graph=True)
    part = made.proposals
    assert all(layer.weight.grad.abs().max() > 0 for layer in (part.reduce, part.expand, part.heat))
    assert part.content.weight.grad is None and part.classes.weight.grad is None
    made.zero_grad()
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert part.content.weight.grad.abs().max() > 0 and part.classes.weight.grad.abs().max() > 0
    assert part.heat.weight.grad.abs().max() == part.expand.weight.grad.abs().max() == 0


# -- in the head --------------------------------------------------------------------------------------------------------
def test_a_frame_finds_beside_others_what_it_finds_alone():
    made, both = head(), SceneFeatures(bev(3), observed=torch.tensor([1, 0, 1]).bool()[:, None, None, None])
    together = made(both, Readout(), None)
    assert together.there.sum(1).tolist() == [11, 5, 11]
    for row in range(3):
        alone = made(both.take([row]), Readout(), None)
        torch.testing.assert_close(alone.logits[:, 0], together.logits[:, row])
        torch.testing.assert_close(alone.codes[:, 0], together.codes[:, row], atol=1e-4, rtol=1e-5)
        assert torch.equal(alone.there[0], together.there[row])


def test_what_is_not_proposed_is_read_by_nobody():
    """A frame without points: the learned queries find what they find in a head that proposes nothing."""
    made, deaf = head(), SceneFeatures(bev(1), observed=torch.zeros(1, 1, 6, 8, dtype=torch.bool))
    plain = head(queries=dict(num_learned=5, num_propagated=0))
    weights = made.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith('proposals.')}
    assert list(kept) == list(plain.state_dict()) and len(kept) < len(weights)  # without proposals no name changes
    plain.load_state_dict(kept)
    one, two = made(deaf, Readout(), None), plain(deaf, Readout(), None)
    torch.testing.assert_close(one.logits[:, :, :5], two.logits)
    torch.testing.assert_close(one.codes[:, :, :5], two.codes)
    assert two.there is None and two.proposed is None and (one.carried.scores[:, 5:] == -1).all()
    seen = replace(deaf, observed=~deaf.observed)
    assert (made(seen, Readout(), None).logits[:, :, :5] - plain(seen, Readout(), None).logits).abs().max() > 1e-3


def test_noisy_queries_change_nothing_for_proposed_ones():
    made, truth = head(denoising=dict(groups=2)).train(), sample(3).gt_instances_3d
    told = SceneTruth((truth.bboxes_3d.tensor,), (truth.labels_3d,))
    noisy, plain = (made(SceneFeatures(bev(1)), Readout(), known) for known in (told, None))
    assert noisy.noisy_logits.shape == (2, 1, 6, 3)
    torch.testing.assert_close(noisy.logits, plain.logits)
    torch.testing.assert_close(noisy.codes, plain.codes, atol=1e-4, rtol=1e-5)


# -- bad input ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('changes, word', [
    (dict(bev_tokens=None, image_tokens=dict(in_channels=8)), 'set bev_tokens'),
    (dict(queries=dict(num_learned=5, num_propagated=0), proposals=dict(kernel=3)), 'num_proposed is 0'),
    (dict(proposals=dict(kernel=2)), 'kernel must be odd'), (dict(proposals=dict(min_overlap=0)), 'min_overlap'),
    (dict(proposals=dict(loss_weight=-1)), 'negative'), (dict(queries=dict(num_proposed=-1)), 'num_proposed'),
    (dict(proposals=dict(stride=2)), "'stride'")])
def test_settings_that_do_not_fit_are_named(changes, word):
    with pytest.raises(ValueError, match=word):
        head(**changes)


def test_more_queries_than_cells_are_refused():
    with pytest.raises(ValueError, match='num_proposed=6, but a heat map'):
        branch()(torch.zeros(1, 4, 1, 1))
