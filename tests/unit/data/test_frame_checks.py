"""Infos that are not scenes in time order with rigid poses are errors that name file, scene and sample."""

import copy
import pickle

import numpy as np
import pytest

from projects.memfusion.data.clip_index import keyframe_index
from projects.memfusion.data.errors import DataError
from projects.memfusion.data.frame_checks import check_keyframes


def make_infos(scenes=('s', 't'), length=3):
    angle = 0.3
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = 1000, 2000, 3
    return [dict(token=f'{scene}{n}', scene_token=scene, frame_index=n, num_frames=length, global_from_lidar=pose.tolist(),
                 lidar_points=dict(timestamp=1.5e9 + 100 * (scene == 't') + 0.5 * n))
            for scene in scenes for n in range(length)]


def test_good_infos_in_any_order():
    infos = make_infos()
    order = [3, 1, 5, 0, 4, 2]
    keyframes = check_keyframes([infos[i] for i in order], 'f.pkl')
    assert keyframes.scene.tolist() == [1, 0, 1, 0, 1, 0] and keyframes.frame.tolist() == [0, 1, 2, 0, 1, 2]
    assert keyframes.num_frames.tolist() == [3, 3]
    np.testing.assert_array_equal(keyframes.stamp_s, [infos[i]['lidar_points']['timestamp'] for i in order])
    index = keyframe_index(keyframes)
    assert [index.source[row] for row in index.history(2, 3, 1)] == [0, 4, 2]
    assert index.history(1, 3, 1)[0] == -1 and index.history(0, 2, 1)[0] == -1, 'not the other scene'


def test_a_keyframe_that_is_not_in_the_list_is_padding():
    infos = make_infos()
    del infos[1]
    index = keyframe_index(check_keyframes(infos, 'f.pkl'))
    assert [row if row < 0 else index.source[row] for row in index.history(1, 3, 1)] == [0, -1, 1]


def mirror(info):
    info['global_from_lidar'][0] = [-value for value in info['global_from_lidar'][0]]


@pytest.mark.parametrize('change, words', [
    (lambda i: i[4].update(token='s1'), 'sample s1 .*comes twice'),
    (lambda i: i[4].update(frame_index=2), 'sample t2 .*same scene and frame_index as sample t1'),
    (lambda i: i[4]['lidar_points'].update(timestamp=1.5e9 + 100), 'sample t1 .*not later than .*sample t0'),
    (lambda i: i[2]['lidar_points'].update(timestamp=1.5e9 + 0.1), 'sample s2 .*scene s, frame 2.*not later than'),
    (lambda i: i[1]['lidar_points'].pop('timestamp'), "sample s1 .*lidar_points..timestamp"),
    (lambda i: i[1].update(global_from_lidar=None), 'sample s1 .*no pose'),
    (lambda i: i[1].update(global_from_lidar=np.eye(3).tolist()), r'sample s1 .*shape \(3, 3\)'),
    (lambda i: i[1]['global_from_lidar'][2].__setitem__(3, float('nan')), 'sample s1 .*NaN'),
    (lambda i: i[1]['global_from_lidar'][2].__setitem__(3, float('inf')), 'sample s1 .*infinite'),
    (lambda i: i[1]['global_from_lidar'][0].__setitem__(0, 0.97), 'sample s1 .*not a rotation'),
    (lambda i: i[1]['global_from_lidar'][3].__setitem__(0, 0.5), 'sample s1 .*not a rotation'),
    (lambda i: mirror(i[1]), 'sample s1 .*mirror'),
    (lambda i: i[1].update(num_frames=7), 'sample s1 .*says its scene has 7 frames, others say 3'),
    (lambda i: i[5].update(frame_index=3), 'sample t2 .*index'),
])
def test_bad_infos(change, words):
    infos = make_infos()
    change(infos)
    with pytest.raises(DataError, match=words) as error:
        check_keyframes(infos, 'f.pkl')
    assert str(error.value).startswith('f.pkl: ') and 'create_data.py' in str(error.value)


def test_small_rounding_of_a_rotation_is_accepted_and_arrays_too():
    infos = make_infos()
    infos[1]['global_from_lidar'] = np.array(infos[1]['global_from_lidar'], np.float32)
    infos[2]['global_from_lidar'][0][0] += 3e-4
    check_keyframes(infos, 'f.pkl')


def test_no_infos():
    with pytest.raises(DataError, match='f.pkl has no keyframes'):
        check_keyframes([], 'f.pkl')


def test_the_data_set_checks(clips, nano_infos_root, tmp_path):
    content = pickle.loads((nano_infos_root / 'nuscenes_infos_train.pkl').read_bytes())
    content['data_list'].append(copy.deepcopy(content['data_list'][2]))
    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=f"{path}: sample {content['data_list'][2]['token']} .*comes twice"):
        clips(ann_file=str(path))
