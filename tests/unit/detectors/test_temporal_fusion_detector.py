"""What must be exact in the gated detector, on random clouds."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

CONFIG = 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'


@pytest.fixture(scope='module')
def config(repo):
    init_default_scope('mmdet3d')
    return Config.fromfile(repo / CONFIG)


def build(config, **temporal):
    """A detector with reproducible weights; `temporal=None` leaves the slot out. Scores are not cut, so outputs are dense."""
    model_cfg = copy.deepcopy(config.model)
    model_cfg.pts_bbox_head.bbox_coder.score_threshold = 0.0
    model_cfg.test_cfg.pts.update(pre_max_size=50, post_max_size=20)
    if temporal.get('temporal', True) is None:
        model_cfg.pop('temporal')
    else:
        model_cfg.temporal.update(temporal)
    torch.manual_seed(0)
    model = MODELS.build(model_cfg)
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(model.state_dict().items()):  # also BatchNorm statistics and zero biases
        if value.dtype.is_floating_point and 'temporal' not in name:
            noise = torch.rand(value.shape, generator=generator) * 0.1
            value.add_(noise if 'var' in name else noise - 0.05)
    return model.eval()


@torch.no_grad()
def predict(model, frames):
    data = model.data_preprocessor(pseudo_collate([[frame] for frame in copy.deepcopy(frames)]))
    return [sample.pred_instances_3d for sample in model(**data, mode='predict')]


def assert_same(a, b, tolerance=0.0):
    assert len(a) == len(b) and torch.equal(a.labels_3d, b.labels_3d)
    assert (a.scores_3d - b.scores_3d).abs().max() <= tolerance
    assert (a.bboxes_3d.tensor - b.bboxes_3d.tensor).abs().max() <= tolerance * 100


def bev_of(model, frames):
    """The features the head would see, before its decoding sorts and cuts them."""
    seen = []
    hook = model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].clone()))
    predict(model, frames)
    hook.remove()
    return seen[0]


def test_alpha_zero_is_the_plain_detector_bit_for_bit(config, make_frame):
    plain, gated = build(config, temporal=None), build(config, alpha=0.0)
    for index in range(3):
        frame = [make_frame('a', index)]
        assert_same(predict(gated, frame)[0], predict(plain, frame)[0])


def test_an_open_gate_is_the_plain_detector(config, make_frame):
    plain, gated = build(config, temporal=None), build(config, alpha=1.0)
    gated.temporal.network.occupancy.weight.data.zero_()
    gated.temporal.network.occupancy.bias.data.fill_(30.0)
    frame = [make_frame('a', 0)]
    assert (bev_of(gated, frame) - bev_of(plain, frame)).abs().max() < 1e-6


def test_plain_slots_are_mmdet3ds_centerpoint(config, make_frame):
    plain = build(config, temporal=None)
    build_cfg = copy.deepcopy(config.model)
    build_cfg.pop('temporal')
    MODELS.build(build_cfg)  # fills the grid into build_cfg's parts
    build_cfg.pop('grid')
    build_cfg.type = 'CenterPoint'
    build_cfg.data_preprocessor.type = 'Det3DDataPreprocessor'
    build_cfg.train_cfg.pop('loss_frames')
    build_cfg.test_cfg.pop('mode')
    build_cfg.pts_bbox_head.bbox_coder.score_threshold = 0.0
    build_cfg.test_cfg.pts.update(pre_max_size=50, post_max_size=20)
    reference = MODELS.build(build_cfg).eval()
    reference.load_state_dict(plain.state_dict(), strict=True)
    frame = make_frame('a', 0)
    with torch.no_grad():
        data = reference.data_preprocessor(pseudo_collate([copy.deepcopy(frame)]))
        expected = reference(**data, mode='predict')[0].pred_instances_3d
    assert_same(predict(plain, [frame])[0], expected)


def test_memory_changes_what_the_head_sees(config, make_frame):
    """Without this the exactness tests below could pass on a memory that does nothing."""
    model = build(config, alpha=1.0)
    fresh = bev_of(model, [make_frame('a', 0, seed=5)])
    bev_of(model, [make_frame('a', 1, seed=6)])
    remembering = bev_of(model, [make_frame('a', 2, seed=5)])
    assert (remembering - fresh).abs().max() > 1e-4


def test_batch_of_four_interleaved_scenes_equals_one_by_one(config, make_frame):
    scenes = ['a', 'b', 'c', 'd']
    together, alone = build(config), build(config)
    for index in range(3):
        # Scene d starts one step later than the others.
        frames = [make_frame(s, index - (s == 'd')) for s in scenes if index >= (s == 'd')]
        joint = bev_of(together, frames)
        for row, frame in zip(joint, frames):
            assert (row - bev_of(alone, [frame])[0]).abs().max() < 1e-5


def test_scene_change_equals_a_fresh_state_bit_for_bit(config, make_frame):
    model = build(config)
    for index in range(3):
        predict(model, [make_frame('a', index)])
    after = bev_of(model, [make_frame('b', 0)])
    assert torch.equal(after, bev_of(build(config), [make_frame('b', 0)]))
    restarted = bev_of(model, [make_frame('a', 0)])
    assert torch.equal(restarted, bev_of(build(config), [make_frame('a', 0)]))


def test_streaming_equals_the_training_path(config, make_frame):
    """The same clip as one training window and as a stream: one read path."""
    model = build(config)
    frames = [make_frame('a', index) for index in range(4)]
    streamed = torch.cat([bev_of(model, [frame]) for frame in frames])
    with torch.no_grad():
        data = model.data_preprocessor(pseudo_collate([copy.deepcopy(frames)]))
        window, _ = model.remember_clip(model.encode(data["inputs"]), data["data_samples"])
    assert (window.bev - streamed).abs().max() < 1e-5


def test_padding_is_as_if_it_were_not_there(config, make_frame):
    model = build(config)
    clip = [make_frame('a', 0), make_frame('a', 1)]
    padded = [make_frame('a', 0, valid=False), make_frame('a', 0, valid=False), *clip]
    padded[0]['data_samples'].set_metainfo(dict(is_scene_start=False))
    padded[1]['data_samples'].set_metainfo(dict(is_scene_start=False))

    @torch.no_grad()
    def window(frames):
        data = model.data_preprocessor(pseudo_collate([copy.deepcopy(frames)]))
        return model.remember_clip(model.encode(data["inputs"]), data["data_samples"])

    (readout, memory), (readout_padded, memory_padded) = window(clip), window(padded)
    assert (readout_padded.bev[2:] - readout.bev).abs().max() < 1e-6
    assert (readout_padded.aux['occ_logits'][2:] - readout.aux['occ_logits']).abs().max() < 1e-5
    assert memory_padded.ages == memory.ages == (2,)
    assert memory_padded.num_frames.tolist() == memory.num_frames.tolist() == [2]


def test_state_bytes_are_constant_and_scenes_are_let_go(config, make_frame):
    model = build(config)
    sizes = []
    for index in range(10):
        predict(model, [make_frame('a', index)])
        sizes += [scene.state.num_bytes for scene in model.session.values()]
    assert len(set(sizes)) == 1 and len(sizes) == 9
    assert model.session == {}


def test_history_that_is_missing_or_out_of_order_is_an_error(config, make_frame):
    model = build(config)
    with pytest.raises(ValueError, match='frame 3 of scene a'):
        predict(model, [make_frame('a', 3)])
    predict(model, [make_frame('a', 0)])
    predict(model, [make_frame('a', 2)])
    with pytest.raises(ValueError, match='not later'):
        predict(model, [make_frame('a', 1)])


def test_no_truth_is_read_in_testing(config, make_frame):
    with_truth, without = build(config), build(config)
    for index in range(2):
        frame = make_frame('a', index)
        bare = copy.deepcopy(frame)
        del bare['data_samples'].gt_instances_3d
        assert_same(predict(with_truth, [frame])[0], predict(without, [bare])[0])


def test_every_parameter_gets_a_gradient_also_at_a_scene_start_and_for_one_frame(config, make_frame):
    for clip in ([make_frame('a', 0)], [make_frame('a', 0, valid=False), make_frame('a', 0, valid=False), make_frame('a', 1)]):
        model = build(config).train()
        losses = model(**model.data_preprocessor(pseudo_collate([clip]), True), mode='loss')
        model.parse_losses(losses)[0].backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_empty_clouds_work_and_an_all_padding_batch_predicts_nothing(config, make_frame):
    model = build(config)
    empty = make_frame('a', 0)
    empty['inputs']['points'] = empty['inputs']['points'][:0]
    full = make_frame('b', 0)
    both = bev_of(model, [full, empty])
    assert both.shape[0] == 2 and torch.equal(both[0], bev_of(build(config), [full])[0])
    model.session.clear()
    assert len(predict(model, [make_frame('a', 0, valid=False)])[0]) == 0
    alone = make_frame('c', 0)
    alone['inputs']['points'] = alone['inputs']['points'][:0]
    predict(model, [alone])


def test_a_grid_said_twice_differently_is_an_error(config):
    cfg = copy.deepcopy(config.model)
    cfg.pts_voxel_encoder.voxel_size = [0.2, 0.2, 8.0]
    with pytest.raises(ValueError, match='pts_voxel_encoder.voxel_size'):
        MODELS.build(cfg)


@pytest.mark.parametrize('change, word', [
    (dict(alpha=1.5), 'alpha'), (dict(max_mem_frames=0), 'max_mem_frames'), (dict(mask_source='oracle'), 'mask_source')])
def test_bad_memory_settings_are_named(config, change, word):
    with pytest.raises(ValueError, match=word):
        build(config, **change)
