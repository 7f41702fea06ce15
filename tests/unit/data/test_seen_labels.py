"""keep_seen_s: objects without points are kept while they were seen a moment ago; by hand, and through the data sets."""

import copy
import pickle

import numpy as np
import pytest

from projects.memfusion.data.errors import DataError
from projects.memfusion.data.seen_labels import mark_seen


def infos(*frames, scene='s', start_s=1.5e9, step_s=0.5):
    """One info a frame; a frame is {instance: number of LiDAR points}."""
    return [dict(token=f'{scene}{number}', scene_token=scene, frame_index=number,
                 lidar_points=dict(timestamp=start_s + step_s * number),
                 instances=[dict(instance_token=name, num_lidar_pts=points, bbox_3d_isvalid=points > 0)
                            for name, points in frame.items()])
            for number, frame in enumerate(frames)]


def marks(data, keep_seen_s, use_valid_flag=True):
    data = copy.deepcopy(data)
    mark_seen(data, keep_seen_s, use_valid_flag, 'infos.pkl')
    return [{i['instance_token']: i['was_seen'] for i in info['instances']} for info in data]


def test_by_hand():
    data = infos(dict(a=5, b=0), dict(a=0, b=3), dict(b=0), dict(a=0, b=0))
    assert marks(data, 0.6) == [dict(a=True, b=False), dict(a=True, b=True), dict(b=True), dict(a=False, b=False)]
    assert marks(data, 0.4) == [dict(a=True, b=False), dict(a=False, b=True), dict(b=False), dict(a=False, b=False)]


def test_the_boundary_is_inside_and_stamps_may_be_rounded():
    data = infos(dict(a=5), dict(a=0), dict(a=0), dict(a=0), step_s=0.1)  # 0.1 s is not a binary number
    assert [m['a'] for m in marks(data, 0.2)] == [True, True, True, False]
    assert [m['a'] for m in marks(data, 0.2 - 1e-5)] == [True, True, False, False]


def test_time_goes_by_stamps_not_by_frames():
    data = infos(dict(a=5), dict(a=0), dict(a=0))
    data[2]['lidar_points']['timestamp'] += 3
    assert [m['a'] for m in marks(data, 1.0)] == [True, True, False]


def test_scenes_do_not_mix_and_the_order_of_the_list_does_not_matter():
    one, two = infos(dict(a=5), dict(a=0)), infos(dict(a=0), dict(a=0), scene='t', start_s=1.5e9 + 0.1)
    assert [m['a'] for m in marks([*one, *two], 2.0)] == [True, True, False, False]
    assert [m['a'] for m in marks([two[1], one[1], two[0], one[0]], 2.0)] == [False, True, False, True]


def test_the_future_does_not_count():
    assert [m['a'] for m in marks(infos(dict(a=0), dict(a=5)), 5.0)] == [False, True]


def test_valid_is_what_the_data_set_s_filter_says():
    data = infos(dict(a=0), dict(a=0))
    data[0]['instances'][0]['bbox_3d_isvalid'] = True  # radar points only
    assert [m['a'] for m in marks(data, 1.0, use_valid_flag=True)] == [True, True]
    assert [m['a'] for m in marks(data, 1.0, use_valid_flag=False)] == [False, False]


def test_infos_without_instance_tokens():
    data = infos(dict(a=5))
    del data[0]['instances'][0]['instance_token']
    with pytest.raises(DataError, match='infos.pkl.*sample s0 .*instance_token.*keep_seen_s=2'):
        mark_seen(data, 2.0, True, 'infos.pkl')


@pytest.fixture
def hidden(nano_infos_root, tmp_path):
    """Training infos in which one object of the first scene is seen in frame 1 only. Returns (path, token, scene)."""
    content = pickle.loads((nano_infos_root / 'nuscenes_infos_train.pkl').read_bytes())
    scene = content['data_list'][0]['scene_token']
    frames = [i for i in content['data_list'] if i['scene_token'] == scene]
    tokens = [{i['instance_token'] for i in info['instances'] if i['bbox_label_3d'] >= 0} for info in frames]
    token = sorted(set.intersection(*tokens))[0]
    for info in frames:
        for instance in info['instances']:
            if instance['instance_token'] == token:
                points = 7 * (info['frame_index'] == 1)
                instance.update(num_lidar_pts=points, num_radar_pts=0, bbox_3d_isvalid=points > 0)
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(content))
    return path, token, scene


@pytest.mark.parametrize('use_valid_flag', [True, False])
@pytest.mark.parametrize('kind', ['NuScenesSequenceDataset', 'SeededNuScenesDataset'])
def test_data_sets_keep_the_box(clips, hidden, kind, use_valid_flag):
    path, token, scene = hidden

    def boxes(**arguments):
        dataset = clips(kind=kind, ann_file=str(path), use_valid_flag=use_valid_flag, **arguments)
        found = {}
        for position in range(10):
            info = dataset.get_data_info(position)
            if info['scene_token'] == scene:
                annotations = info['ann_info']
                count = len(annotations['gt_bboxes_3d'])
                assert count == len(annotations['gt_labels_3d']) == len(annotations['instance_token'])
                place = annotations['instance_token'].tolist().index(token) if token in annotations['instance_token'] else -1
                found[info['frame_index']] = count, annotations['gt_bboxes_3d'].tensor[place] if place >= 0 else None
        return found

    off, on = boxes(), boxes(keep_seen_s=1.0)
    stock = boxes() if kind != 'NuScenesSequenceDataset' else {
        n: (int(sum((i['bbox_3d_isvalid'] if use_valid_flag else i['num_lidar_pts'] > 0) for i in info['instances'])), None)
        for info in pickle.loads(path.read_bytes())['data_list'] if info['scene_token'] == scene
        for n in [info['frame_index']]}
    assert [off[n][0] for n in range(5)] == [stock[n][0] for n in range(5)]
    assert [off[n][1] is not None for n in range(5)] == [False, True, False, False, False]
    assert [on[n][1] is not None for n in range(5)] == [False, True, True, True, False]
    assert np.isfinite(on[2][1].numpy()).all() and all(on[n][0] >= off[n][0] for n in range(5))


def test_negative_time_is_an_error(clips):
    for wrong in (-1.0, float('nan')):
        with pytest.raises(ValueError, match='keep_seen_s'):
            clips(keep_seen_s=wrong)
