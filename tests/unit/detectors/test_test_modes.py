"""Testing: streaming, rolling and tiled windows agree where they should; each frame is encoded once; no truth is read."""

import copy

import numpy as np
import pytest
import torch

LENGTH = 6
WINDOW = dict(mode='window')


@pytest.fixture
def scene(make_frame):
    """scene(name, length): its frames, the ego 1.6 m forward a frame and turning."""

    def make(name='a', length=LENGTH, start=0):
        frames = []
        for index in range(start, length):
            frame = make_frame(name, index, length=length, points=600)
            pose, angle = np.eye(4), 0.05 * index
            pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            pose[:2, 3] = [300 + 1.6 * index, 0.3 * index]
            frame['data_samples'].set_metainfo(dict(global_from_lidar=pose))
            frames.append(frame)
        return frames

    return make


def close(features: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal to 1e-5 of the largest feature (3.7).

    Frames batched or alone take other kernels, which differ by up to 2e-6 of it; a frame more or less in memory makes 3e-4.
    """
    return bool((features - expected).abs().max() < 1e-5 * expected.abs().max())


def dropped(frame):
    """The frame as the data set gives it when its file is broken."""
    frame = copy.deepcopy(frame)
    frame['inputs']['points'] = frame['inputs']['points'][:0]
    frame['data_samples'].set_metainfo(dict(frame_valid=False))
    return frame


def padding(frame):
    """What stands before a scene's first frame in a clip that ends at `frame`."""
    frame = dropped(frame)
    frame['data_samples'].set_metainfo(dict(is_scene_start=False))
    return frame


def boxes_of(sample):
    found = sample.pred_instances_3d
    return torch.cat([found.bboxes_3d.tensor, found.scores_3d[:, None], found.labels_3d[:, None].float()], dim=1)


def watch_encoder(model):
    """List of the number of frames in every call of encode_points."""
    calls, encode = [], model.encode_points
    model.encode_points = lambda voxels, frames: calls.append(frames) or encode(voxels, frames)
    return calls


MODULES = {
    'memory': dict(max_mem_frames=3), 'gate': dict(readout=dict(type='GateReadout'), ego_channels=True, motion_gate={}),
    'unlimited': dict(max_mem_frames=LENGTH), 'detections': dict(mask_source='detections', masks=dict(score_threshold=0.0)),
    'agents': dict(mask_source='previous_detections', masks=dict(score_threshold=0.0, num_agents=3)),
    'long-term': dict(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=32, max_elements=64)),
    'gru': dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8),
    'stack': dict(type='StackFusion', in_channels=24, hidden_dim=8, num_frames=3),
    'copy': dict(type='CopyMemory', in_channels=24, value_dim=8, key_dim=4),
    'copy world': dict(type='CopyMemory', in_channels=24, value_dim=8, num_slots=1, long_term=True),
}


@pytest.mark.parametrize('name', MODULES)
def test_streaming_equals_one_window_over_the_whole_history(name, small_detector, predicted, scene):
    streaming = small_detector(MODULES[name])
    rolling = small_detector(MODULES[name], test_cfg=dict(WINDOW, seq_len=LENGTH))
    forgetful = small_detector(MODULES[name], test_cfg=dict(WINDOW, seq_len=1))
    gaps = []
    for frame in scene():
        stream, window = predicted(streaming, [[frame]])[0], predicted(rolling, [[frame]])[0]
        assert close(stream, window)
        gaps.append(float((stream - predicted(forgetful, [[frame]])[0]).abs().max()))
    assert gaps[0] == 0 and min(gaps[1:]) > 1e-3  # history has a say


def test_a_window_of_one_frame_is_a_fresh_memory_each_time(small_detector, predicted, scene):
    window, fresh = small_detector(test_cfg=dict(WINDOW, seq_len=1)), small_detector()
    for frame in scene():
        rolled = predicted(window, [[frame]])[0]
        first = copy.deepcopy(frame)
        first['data_samples'].set_metainfo(dict(is_scene_start=True))
        assert torch.equal(rolled, predicted(fresh, [[first]])[0])


def test_a_rolling_window_is_the_last_frames_from_an_empty_memory(small_detector, predicted, scene, collated):
    """Against each window encoded anew, as in training."""
    rolling, plain = small_detector(test_cfg=dict(WINDOW, seq_len=3)), small_detector()
    frames = scene()
    for end in range(LENGTH):
        rolled = predicted(rolling, [[frames[end]]])[0]
        data = collated(plain, [frames[max(0, end - 2):end + 1]])
        with torch.no_grad():
            anew, _ = plain.remember_clip(plain.encode(data['inputs']), data['data_samples'])
        assert close(rolled, anew.bev[-1:])


def test_each_frame_is_encoded_once(small_detector, predicted, scene):
    model = small_detector(test_cfg=dict(WINDOW, seq_len=4))
    calls = watch_encoder(model)
    for frame in scene():
        predicted(model, [[frame]])
    assert calls == [1] * LENGTH


def test_tiled_windows_are_streams_that_start_anew(small_detector, predicted, scene):
    tiled, stream = small_detector(test_cfg=dict(WINDOW, seq_len=4, stride=4)), small_detector()
    rolling = small_detector(test_cfg=dict(WINDOW, seq_len=4))
    for index, frame in enumerate(scene(length=10)):
        answer, rolled = predicted(tiled, [[frame]])[0], predicted(rolling, [[frame]])[0]
        again = copy.deepcopy(frame)
        again['data_samples'].set_metainfo(dict(is_scene_start=index % 4 == 0))
        assert (answer - predicted(stream, [[again]])[0]).abs().max() == 0
        if index > 4:
            assert (index % 4 == 3) == close(answer, rolled)  # both reach 4 frames back there
    assert tiled.session == {}


def test_interleaved_scenes_equal_each_alone_in_every_mode(small_detector, predicted, scene):
    scenes = [scene('a'), scene('b'), scene('c', length=4), scene('d', length=5)]
    for test_cfg in (dict(), dict(WINDOW, seq_len=3), dict(WINDOW, seq_len=2, stride=2)):
        together, alone = small_detector(test_cfg=test_cfg), small_detector(test_cfg=test_cfg)
        for index in range(LENGTH):  # scene d starts a step later, scene c ends before the others
            frames = [s[index - (s is scenes[3])] for s in scenes if 0 <= index - (s is scenes[3]) < len(s)]
            joint, samples = predicted(together, [[frame] for frame in frames])
            for row, sample, frame in zip(joint, samples, frames):
                single, (lone,) = predicted(alone, [[frame]])
                assert close(row, single[0])
                assert sample.sample_token == lone.sample_token
        assert together.session == {} and alone.session == {}


def test_what_is_kept_is_constant_and_goes_with_its_scene(small_detector, predicted, scene):
    streaming, rolling = small_detector(dict(max_mem_frames=2)), small_detector(test_cfg=dict(WINDOW, seq_len=3))
    sizes, lengths = [], []
    for frame in scene():
        predicted(streaming, [[frame]])
        predicted(rolling, [[frame]])
        sizes += [kept.state.num_bytes for kept in streaming.session.values()]
        lengths += [len(history.features) for history in rolling.session.values()]
        if frame['data_samples'].frame_index == 1:
            other = scene('b')[0]
            predicted(streaming, [[other]])
            assert set(streaming.session) == {'a', 'b'}
            streaming.session.pop('b')
    assert len(set(sizes)) == 1 and lengths == [1, 2, 3, 3, 3]
    assert streaming.session == {} and rolling.session == {}


def test_clips_of_several_frames_equal_the_frames_one_by_one(small_detector, predicted, scene):
    """What sweeps give in streaming: the frames since the keyframe before, of which the last one is asked for."""
    frames = scene()
    for test_cfg in (dict(), dict(WINDOW, seq_len=LENGTH)):
        single, clips = small_detector(test_cfg=test_cfg), small_detector(test_cfg=test_cfg)
        calls = watch_encoder(clips)
        stream = [predicted(single, [[frame]])[0] for frame in frames]
        items = [[padding(frames[0]), padding(frames[0]), frames[0]], frames[1:4], [padding(frames[5]), *frames[4:6]]]
        for item, end in zip(items, (0, 3, 5)):
            answer, samples = predicted(clips, [item])
            assert close(answer, stream[end])
            assert [sample.sample_token for sample in samples] == [f'a-{end}']
        assert calls == [1, 3, 2] and clips.session == {}


def test_a_dropped_frame_leaves_memory_as_it_was(small_detector, predicted, scene):
    frames = scene()
    for test_cfg in (dict(), dict(WINDOW, seq_len=LENGTH), dict(WINDOW, seq_len=LENGTH, stride=LENGTH)):
        broken, whole = small_detector(test_cfg=test_cfg), small_detector(test_cfg=test_cfg)
        for index, frame in enumerate(frames):
            if index in (2, 3):
                _, (sample,) = predicted(broken, [[dropped(frame)]])
                assert len(sample.pred_instances_3d) == 0 and sample.sample_token == f'a-{index}'
            else:
                expected = predicted(whole, [[frame]])[0]
                assert (predicted(broken, [[frame]])[0] - expected).abs().max() < 1e-6, index
        assert broken.session == {}


def test_a_scene_whose_first_or_last_frame_is_dropped(small_detector, predicted, scene):
    frames = scene()
    for test_cfg in (dict(), dict(WINDOW, seq_len=3), dict(WINDOW, seq_len=3, stride=3)):
        model, fresh = small_detector(test_cfg=test_cfg), small_detector(test_cfg=test_cfg)
        predicted(model, [[dropped(frames[0])]])
        second = copy.deepcopy(frames[1])
        second['data_samples'].set_metainfo(dict(is_scene_start=True))
        assert torch.equal(predicted(model, [[frames[1]]])[0], predicted(fresh, [[second]])[0])
        for frame in frames[2:-1]:
            predicted(model, [[frame]])
        _, (sample,) = predicted(model, [[dropped(frames[-1])]])
        assert len(sample.pred_instances_3d) == 0 and model.session == {}


def test_history_that_is_missing_or_out_of_order_is_an_error_in_windows_too(small_detector, predicted, scene):
    frames = scene()
    for test_cfg in (dict(), dict(WINDOW, seq_len=3), dict(WINDOW, seq_len=3, stride=3)):
        model = small_detector(test_cfg=test_cfg)
        with pytest.raises(ValueError, match='frame 3 of scene a came without'):
            predicted(model, [[frames[3]]])
        predicted(model, [[frames[0]]])
        predicted(model, [[frames[2]]])
        for again in (1, 2):
            with pytest.raises(ValueError, match='not later'):
                predicted(model, [[frames[again]]])
        predicted(model, [[frames[0]]])  # a scene that is begun again starts anew


@pytest.mark.parametrize('temporal', [
    dict(), dict(mask_source='none'), dict(mask_source='detections', masks=dict(score_threshold=0.0)),
    dict(mask_source='previous_detections', masks=dict(score_threshold=0.0, num_agents=2)),
    dict(masks=dict(teacher_forcing=1.0, block_dropout=1.0)),
    dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8), dict(type='StackFusion', in_channels=24, hidden_dim=8),
    dict(type='CopyMemory', in_channels=24, value_dim=8)])
@pytest.mark.parametrize('test_cfg', [dict(), dict(WINDOW, seq_len=2)])
def test_no_truth_is_read(temporal, test_cfg, small_detector, predicted, scene):
    with_truth, without = small_detector(temporal, test_cfg=test_cfg), small_detector(temporal, test_cfg=test_cfg)
    for frame in scene(length=3):
        bare = copy.deepcopy(frame)
        del bare['data_samples'].gt_instances_3d
        (bev, (sample,)), (bare_bev, (bare_sample,)) = predicted(with_truth, [[frame]]), predicted(without, [[bare]])
        assert torch.equal(bev, bare_bev) and torch.equal(boxes_of(sample), boxes_of(bare_sample))


def test_no_truth_is_read_where_clips_are_stepped_through_in_eval_mode(small_detector, collated, scene):
    model = small_detector(dict(masks=dict(teacher_forcing=1.0)))
    bare = scene(length=3)
    for frame in bare:
        del frame['data_samples'].gt_instances_3d
    with torch.no_grad():
        answers = [model.remember_clip(model.encode(data['inputs']), data['data_samples'])[0].bev
                   for data in (collated(model, [scene(length=3)]), collated(model, [bare]))]
    assert torch.equal(*answers)


def test_truth_masks_cannot_be_tested(small_detector, predicted, scene):
    with pytest.raises(ValueError, match='mask_source=occupancy'):
        predicted(small_detector(dict(mask_source='truth')), [[scene()[0]]])


def test_masks_of_detections_are_what_the_head_finds(small_detector, predicted, scene):
    """The answer's own boxes: one call of the head, and only those above the threshold are written."""
    frame = scene()[0]
    model = small_detector(dict(mask_source='detections', masks=dict(score_threshold=0.0)))
    calls = []
    model.pts_bbox_head.register_forward_hook(lambda *args: calls.append(1))
    _, (sample,) = predicted(model, [[frame]])
    assert len(calls) == 1
    scores = sample.pred_instances_3d.scores_3d
    threshold = float(scores.sort(descending=True).values[1]) - 1e-6  # two boxes pass
    for level, count in ((threshold, 2), (1.0, 0)):
        model = small_detector(dict(mask_source='detections', masks=dict(score_threshold=level)))
        predicted(model, [[frame]])
        mask = model.session['a'].state.mask[0, 0]
        boxes = sample.pred_instances_3d.bboxes_3d.tensor[scores >= level]
        assert len(boxes) == count
        from projects.geometry import pad_rows
        from projects.memfusion.memory.masks import boxes_to_masks
        owners = torch.zeros(1, len(boxes), dtype=torch.long)
        drawn = boxes_to_masks(*pad_rows([boxes]), owners, 1, model.grid.point_cloud_range, (16, 16))
        assert torch.equal(mask, drawn[0, 0])


def test_the_surest_boxes_are_tracked_first(small_detector, predicted, scene):
    """The head gives its boxes task by task; places go to the surest of all."""
    model = small_detector(dict(mask_source='detections', masks=dict(score_threshold=0.0, num_agents=3)))
    _, (sample,) = predicted(model, [[scene()[0]]])
    found = sample.pred_instances_3d
    surest = found.scores_3d.argsort(descending=True, stable=True)[:2]
    pose = torch.from_numpy(sample.global_from_lidar)
    centers = found.bboxes_3d.tensor[surest].double()[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    assert (model.session['a'].state.agent_position[0, :2] - centers[:, :2]).abs().max() < 1e-4


# -- loader alignment -------------------------------------------------------------------------------------------------
def aligned(frames):
    """A clip as AlignToClipEnd leaves it: everything in the last frame's coordinates."""
    frames = copy.deepcopy(frames)
    last_from_global = np.linalg.inv(frames[-1]['data_samples'].global_from_lidar)
    for frame in frames:
        last_from_lidar = last_from_global @ frame['data_samples'].global_from_lidar
        points = frame['inputs']['points']
        points[:, :3] = points[:, :3] @ torch.from_numpy(last_from_lidar[:3, :3]).float().T + torch.from_numpy(
            last_from_lidar[:3, 3]).float()
        frame['data_samples'].set_metainfo(dict(bev_aug=last_from_lidar, clip_aligned=True))
    return frames


def test_loader_aligned_windows_are_their_clips_alone(small_detector, predicted, scene, collated):
    model, shorter = (small_detector(dict(align='loader'), test_cfg=dict(WINDOW, seq_len=length)) for length in (3, 2))
    frames = scene()
    for end in (4, 2, 5):  # no order is needed: each clip holds its own history
        clip = aligned(frames[end - 2:end + 1])
        answer = predicted(model, [clip])[0]
        data = collated(model, [clip])
        with torch.no_grad():
            anew, _ = model.remember_clip(model.encode(data['inputs']), data['data_samples'])
        assert torch.equal(answer, anew.bev[-1:])
        short = predicted(shorter, [aligned(frames[end - 1:end + 1])])[0]
        assert (answer - short).abs().max() > 1e-3  # the first frame has a say
    assert model.session == {}


def test_loader_aligned_tiles_look_back_to_their_tiles_start(small_detector, predicted, scene):
    tiled = small_detector(dict(align='loader'), test_cfg=dict(WINDOW, seq_len=3, stride=3))
    rolling = {length: small_detector(dict(align='loader'), test_cfg=dict(WINDOW, seq_len=length)) for length in (1, 2, 3)}
    frames = scene()
    for end in range(2, LENGTH):
        clip = aligned(frames[end - 2:end + 1])
        within = clip[2 - end % 3:]
        assert close(predicted(tiled, [clip])[0], predicted(rolling[len(within)], [within])[0])


def test_clips_of_another_length_than_the_window_are_an_error(small_detector, predicted, scene):
    model = small_detector(dict(align='loader'), test_cfg=dict(WINDOW, seq_len=4))
    with pytest.raises(ValueError, match='seq_len=4.*hold 3 frames'):
        predicted(model, [aligned(scene()[:3])])


def test_loader_alignment_cannot_stream(small_detector):
    with pytest.raises(ValueError, match='test_cfg.mode=window'):
        small_detector(dict(align='loader'))


def test_a_data_set_that_aligns_otherwise_is_an_error(small_detector, predicted, scene):
    frames = scene()
    with pytest.raises(ValueError, match="align='network'.*are moved"):
        predicted(small_detector(test_cfg=dict(WINDOW, seq_len=3)), [aligned(frames[:1])])
    with pytest.raises(ValueError, match="align='loader'.*are not moved"):
        predicted(small_detector(dict(align='loader'), test_cfg=dict(WINDOW, seq_len=3)), [frames[:3]])


@pytest.mark.parametrize('test_cfg, word', [
    (dict(mode='rolling'), 'test_cfg.mode'), (dict(seq_len=0), 'test_cfg.seq_len'),
    (dict(WINDOW, seq_len=4, stride=2), 'test_cfg.stride'), (dict(WINDOW, seq_len=4, stride=8), 'test_cfg.stride')])
def test_bad_modes_are_named(test_cfg, word, small_detector):
    with pytest.raises(ValueError, match=word):
        small_detector(test_cfg=test_cfg)
