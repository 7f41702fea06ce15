"""Clips at sweep rate: frames, poses, stamps and accumulated points against the world's own tables."""

import pickle

import numpy as np
import pytest

from projects.memfusion.data.errors import DataError


def metas(clip):
    return [frame['data_samples'].metainfo for frame in clip]


def by_scene(dataset):
    scenes = {}
    for index, end in enumerate(dataset.clip_ends):
        scenes.setdefault(dataset.scene_tokens[end], []).append((dataset.frame_indices[end], index))
    return {scene: [index for _, index in sorted(items)] for scene, items in scenes.items()}


@pytest.mark.parametrize('frame_stride', [1, 2, 3])
def test_streaming_sees_every_taken_reading_once_with_its_own_pose_stamp_and_file(clips, tables, frame_stride):
    dataset = clips('val', frame_rate='sweep', frame_stride=frame_stride, num_sweeps=1)
    per_item = -(-10 // frame_stride)
    for scene, items in by_scene(dataset).items():
        chain = tables.chain(scene)
        assert len(chain) == 41
        # Counted back from each keyframe (readings 0, 10, 20, 30, 40), after the keyframe before.
        expected = [[chain[0]]] + [chain[key:key - 10:-frame_stride][::-1] for key in (10, 20, 30, 40)]
        for number, (index, taken) in enumerate(zip(items, expected)):
            item = dataset[index]
            frames = metas(item)
            assert len(frames) == per_item, 'one length, so that items can be batched'
            assert [m['frame_valid'] for m in frames] == [False] * (per_item - len(taken)) + [True] * len(taken)
            for record, meta in zip(taken, frames[per_item - len(taken):]):
                assert meta['timestamp_s'] == record['timestamp'] / 1e6
                assert meta['lidar_path'].endswith(record['filename'])
                np.testing.assert_allclose(meta['global_from_lidar'], tables.pose(record), rtol=0, atol=1e-9)
                assert meta['is_keyframe'] == record['is_key_frame']
                assert meta['is_scene_start'] == (record is chain[0]) and meta['is_scene_end'] == (record is chain[-1])
                # The name is that of the keyframe it leads to.
                assert meta['frame_index'] == number and meta['sample_token'] == taken[-1]['sample_token']
                assert meta['sample_idx'] == dataset.clip_ends[index]
            points = item[-1]['inputs']['points'].numpy()
            np.testing.assert_array_equal(points[:, :4], tables.points(taken[-1])[:, :4])


def test_accumulated_points_of_a_sweep_frame(clips, tables):
    dataset = clips('val', frame_rate='sweep', num_sweeps=10)
    scene, items = next(iter(by_scene(dataset).items()))
    chain = tables.chain(scene)
    item = dataset[items[2]]  # readings 11 to 20
    for place, number in ((2, 13), (9, 20)):
        lidar_from_global = np.linalg.inv(tables.pose(chain[number]))
        expected = [np.column_stack([tables.points(chain[number])[:, :4], np.zeros(len(tables.points(chain[number])))])]
        for record in chain[number - 1:number - 10:-1]:
            points = tables.points(record).astype(np.float64)
            points = points[(abs(points[:, 0]) >= 1) | (abs(points[:, 1]) >= 1)]
            xyz = np.column_stack([points[:, :3], np.ones(len(points))]) @ (lidar_from_global @ tables.pose(record)).T
            lag = (chain[number]['timestamp'] - record['timestamp']) / 1e6
            expected.append(np.column_stack([xyz[:, :3], points[:, 3], np.full(len(points), lag)]))
        found = item[place]['inputs']['points'].numpy()
        expected = np.concatenate(expected)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found[:, :3], expected[:, :3], rtol=0, atol=2e-4)  # float32: 1.4e-5
        np.testing.assert_array_equal(found[:, 3], expected[:, 3])
        np.testing.assert_allclose(found[:, 4], expected[:, 4], rtol=0, atol=2.5e-6)  # stamps have steps of 2.4e-7 s


def test_keyframes_have_the_same_sweeps_at_both_rates(clips):
    for index in (0, 1, 7):
        slow = clips('val')[index][-1]['inputs']['points']
        fast = clips('val', frame_rate='sweep', frame_stride=5)[index][-1]['inputs']['points']
        assert (slow == fast).all()


def test_training_clips_end_at_keyframes_and_only_keyframes_have_boxes(clips, tables):
    dataset = clips(frame_rate='sweep', frame_stride=2, seq_len=8, stride=2, num_sweeps=2)
    assert [int(dataset.frame_indices[e]) for e in dataset.clip_ends] == [1, 3, 4] * 2
    slow = clips(use_valid_flag=True)
    for index, end in enumerate(dataset.clip_ends):
        clip = dataset[index]
        frames = metas(clip)
        valid = [m['frame_valid'] for m in frames]
        # Keyframe 1 is reading 10: five earlier frames (8, 6, .. 0), two of padding.
        assert valid == ([False] * 2 + [True] * 6 if dataset.frame_indices[end] == 1 else [True] * 8)
        stamps = [m['timestamp_s'] for m in frames if m['frame_valid']]
        np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-5)
        assert [m['is_keyframe'] for m in frames if m['frame_valid']] == [
            round((m['timestamp_s'] - stamps[-1]) / 0.1) % 5 == 0 for m in frames if m['frame_valid']]
        for frame, meta in zip(clip, frames):
            boxes = frame['data_samples'].gt_instances_3d.bboxes_3d.tensor
            if meta['frame_valid'] and meta['is_keyframe']:
                alone = slow[meta['sample_idx']][0]
                assert meta['sample_token'] == alone['data_samples'].sample_token
                assert (boxes == alone['data_samples'].gt_instances_3d.bboxes_3d.tensor).all() and len(boxes)
            else:
                assert boxes.shape == (0, 9)
        assert [m['is_scene_start'] for m in frames] == [
            m['frame_valid'] and m['timestamp_s'] * 1e6 == pytest.approx(tables.chain(m['scene_token'])[0]['timestamp'], abs=1)
            for m in frames]


def test_longer_test_clips_are_history_and_scenes_shorter_than_a_training_clip_are_an_error(clips):
    item = metas(clips('val', frame_rate='sweep', frame_stride=4, seq_len=3, num_sweeps=1)[6])
    assert [round(m['timestamp_s'] - item[-1]['timestamp_s'], 3) for m in item] == [-0.4, -0.2, 0.0]
    with pytest.raises(ValueError, match='spans 42 LiDAR readings.*has 41'):
        clips(frame_rate='sweep', seq_len=42)
    assert len(clips(frame_rate='sweep', seq_len=41)) == 10


@pytest.fixture
def edited(clips, nano_infos_root, tmp_path):
    """Builds a data set on an info file that a function has changed."""
    def build(change, **arguments):
        content = pickle.loads((nano_infos_root / 'nuscenes_infos_val.pkl').read_bytes())
        change(content['data_list'])
        path = tmp_path / 'infos.pkl'
        path.write_bytes(pickle.dumps(content))
        return clips('val', ann_file=str(path), **arguments)
    return build


def test_bad_sweeps_are_named(edited):
    def no_token(infos):
        del infos[3]['lidar_sweeps'][2]['sample_data_token']

    def later(infos):
        infos[3]['lidar_sweeps'][2]['timestamp'] += 60

    def foreign(infos):
        infos[8]['lidar_sweeps'][1] = {**infos[3]['lidar_sweeps'][1]}

    def same_stamp(infos):
        infos[3]['lidar_sweeps'][2]['timestamp'] = infos[3]['lidar_sweeps'][1]['timestamp']

    def no_pose(infos):
        del infos[3]['lidar_sweeps'][2]['global_from_lidar']

    for change, words in ((no_token, 'sweep 2 of sample .* has no sample_data_token'),
                          (later, 'is not earlier than its keyframe'),
                          (foreign, 'sweep 1 of sample .*another scene'), (same_stamp, 'two LiDAR readings'),
                          (no_pose, 'sweep 2 of sample .* has no pose')):
        with pytest.raises(DataError, match=words) as error:
            edited(change, frame_rate='sweep')
        assert 'infos.pkl' in str(error.value)
        edited(change)  # what keyframe clips do not use does not stop them


def test_sweeps_that_were_not_listed_are_reported_and_left_out(edited, monkeypatch):
    messages = []
    monkeypatch.setattr('projects.memfusion.data.clip_index.print_log', lambda text, *_, **__: messages.append(text))
    edited(lambda infos: None, frame_rate='sweep')
    assert messages == []

    def cut(infos):
        for info in infos:
            if 'lidar_sweeps' in info:
                del info['lidar_sweeps'][7:]

    dataset = edited(cut, frame_rate='sweep', num_sweeps=1)
    assert len(messages) == 1 and 'listed by 8 of 10 samples' in messages[0] and '--max-sweeps' in messages[0]
    assert [m['frame_valid'] for m in metas(dataset[4])] == [True] * 8, 'seven sweeps and the keyframe'


def test_scene_start_is_the_first_taken_frame_where_sweeps_precede_the_first_keyframe(edited):
    def without_first_keyframe(infos):
        for scene in {info['scene_token'] for info in infos}:
            frames = sorted((i for i in infos if i['scene_token'] == scene), key=lambda i: i['frame_index'])
            infos.remove(frames[0])
            for number, info in enumerate(frames[1:]):
                info.update(frame_index=number, num_frames=4)

    dataset = edited(without_first_keyframe, frame_rate='sweep', frame_stride=3, num_sweeps=1)
    for items in by_scene(dataset).values():
        stream = [m for index in items for m in metas(dataset[index]) if m['frame_valid']]
        assert [m['is_scene_start'] for m in stream] == [True] + [False] * (len(stream) - 1)
        assert (np.diff([m['timestamp_s'] for m in stream]) > 0).all()
        assert stream[3]['is_keyframe'], 'readings 1, 4, 7 lead to the keyframe, reading 10'
