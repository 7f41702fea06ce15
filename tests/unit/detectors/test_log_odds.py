"""A gate in log-odds: the head's heat maps with what memory says of occupancy, in the detector."""

import pytest
import torch

from projects.memfusion.memory.readouts import resize
from projects.memfusion.runtime.fuse import fuse_for_inference

LOG_ODDS = dict(type='LogOddsReadout')


def heatmaps(model, collated, clips):
    """Heat maps of the last frames, and the occupancy logits."""
    seen = {}
    head, memory = model.head, model.temporal
    def watch(features, readout, truth, metas=None):
        outputs = head(features, readout, truth, metas)
        seen['heat'], seen['aux'] = [task['heatmap'].clone() for (task,) in outputs.raw], dict(readout.aux)
        return outputs
    model.head = watch
    with torch.no_grad():
        samples = model(**collated(model, clips), mode='predict')
    del model.head
    return seen['heat'], None if memory is None else seen['aux']['occ_logits'], samples


@pytest.fixture
def scene(make_frame):
    return [[[make_frame('a', index, points=600)]] for index in range(3)]


def test_alpha_zero_is_the_plain_detector_and_alpha_adds_occupancy(small_detector, collated, scene):
    plain, off, on = (small_detector(None), small_detector(dict(readout=LOG_ODDS, alpha=0.0)),
                      small_detector(dict(readout=LOG_ODDS, alpha=0.5)))
    for clips in scene:
        expected, _, first = heatmaps(plain, collated, clips)
        same, _, second = heatmaps(off, collated, clips)
        raised, logits, _ = heatmaps(on, collated, clips)
        for one, other, third in zip(expected, same, raised):
            assert torch.equal(one, other)
            assert (third - one - 0.5 * resize(logits, one.shape[-2:])).abs().max() < 1e-5
        for one, other in zip(first, second):
            assert torch.equal(one.pred_instances_3d.bboxes_3d.tensor, other.pred_instances_3d.bboxes_3d.tensor)
            assert torch.equal(one.pred_instances_3d.scores_3d, other.pred_instances_3d.scores_3d)
    assert logits.abs().max() > 0.01


def test_fused_it_finds_the_same_boxes(small_detector, collated, scene):
    model, fused = (small_detector(dict(readout=LOG_ODDS)) for _ in range(2))
    fuse_for_inference(fused)
    for clips in scene:
        with torch.no_grad():
            one, other = (each(**collated(each, clips), mode='predict')[0].pred_instances_3d for each in (model, fused))
        assert len(one) == len(other) > 0
        assert (one.bboxes_3d.tensor - other.bboxes_3d.tensor).abs().max() < 1e-3


def test_heads_without_heat_maps_are_named(anchor_detector, collated, scene):
    model = anchor_detector(dict(readout=LOG_ODDS))
    with pytest.raises(ValueError, match='heat maps'), torch.no_grad():
        model(**collated(model, scene[0]), mode='predict')
