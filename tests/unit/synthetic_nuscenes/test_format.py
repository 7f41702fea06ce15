"""Tables: the devkit's links, stamps and files, record by record."""

import os

import numpy as np
import pytest
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import mini_train, mini_val

from projects.synthetic_nuscenes.rig import CAMERAS
from projects.synthetic_nuscenes.taxonomy import KINDS, TABLES

FOREIGN_KEYS = {
    'calibrated_sensor': {'sensor_token': 'sensor'},
    'instance': {
        'category_token': 'category',
        'first_annotation_token': 'sample_annotation',
        'last_annotation_token': 'sample_annotation',
    },
    'sample': {'scene_token': 'scene'},
    'sample_annotation': {
        'sample_token': 'sample',
        'instance_token': 'instance',
        'visibility_token': 'visibility',
    },
    'sample_data': {
        'sample_token': 'sample',
        'ego_pose_token': 'ego_pose',
        'calibrated_sensor_token': 'calibrated_sensor',
    },
    'scene': {'log_token': 'log', 'first_sample_token': 'sample', 'last_sample_token': 'sample'},
}


def test_all_thirteen_tables_and_both_val_scenes(nano_nusc):
    assert sorted(nano_nusc.table_names) == sorted(TABLES) and len(TABLES) == 13
    names = {scene['name'] for scene in nano_nusc.scene}
    assert set(mini_val) <= names <= set(mini_val) | set(mini_train)
    assert len(nano_nusc.category) == 23 and len(nano_nusc.attribute) == 8 and len(nano_nusc.visibility) == 4


def test_every_token_resolves_and_is_unique(nano_nusc):
    for table in TABLES:
        tokens = [row['token'] for row in getattr(nano_nusc, table)]
        assert len(tokens) == len(set(tokens)), table
    for table, keys in FOREIGN_KEYS.items():
        for row in getattr(nano_nusc, table):
            for key, target in keys.items():
                nano_nusc.get(target, row[key])
    for row in nano_nusc.sample_annotation:
        assert len(row['attribute_tokens']) <= 1
        for attribute in row['attribute_tokens']:
            nano_nusc.get('attribute', attribute)


@pytest.mark.parametrize('table', ['sample', 'sample_data', 'sample_annotation'])
def test_prev_and_next_are_each_others_inverse(nano_nusc, table):
    for row in getattr(nano_nusc, table):
        if row['next']:
            assert nano_nusc.get(table, row['next'])['prev'] == row['token']
        if row['prev']:
            assert nano_nusc.get(table, row['prev'])['next'] == row['token']


def test_scene_and_instance_chains_have_the_stated_length(nano_nusc):
    for scene in nano_nusc.scene:
        tokens, token = [], scene['first_sample_token']
        while token:
            tokens.append(token)
            token = nano_nusc.get('sample', token)['next']
        assert len(tokens) == scene['nbr_samples'] == 5 and tokens[-1] == scene['last_sample_token']
    for instance in nano_nusc.instance:
        count, token = 0, instance['first_annotation_token']
        assert nano_nusc.get('sample_annotation', token)['prev'] == ''
        while token:
            count, last = count + 1, token
            token = nano_nusc.get('sample_annotation', token)['next']
        assert count == instance['nbr_annotations'] and last == instance['last_annotation_token']


def test_stamps_follow_the_sensors_clocks(nano_nusc, lidar_records):
    for _, sample, lidar in lidar_records:
        assert sample['timestamp'] == lidar['timestamp'] and set(sample['data']) == {
            'LIDAR_TOP', *(camera.channel for camera in CAMERAS)
        }
        for camera in CAMERAS:
            record = nano_nusc.get('sample_data', sample['data'][camera.channel])
            assert 0 <= lidar['timestamp'] - record['timestamp'] < 50_000
            assert nano_nusc.get('ego_pose', record['ego_pose_token'])['timestamp'] == record['timestamp']
        before = lidar
        while before['prev']:
            after, before = before, nano_nusc.get('sample_data', before['prev'])
            assert after['timestamp'] - before['timestamp'] == 50_000
            assert before['is_key_frame'] == before['filename'].startswith('samples/')
    by_channel = {camera.channel: camera.delay_us for camera in CAMERAS}
    order = sorted(by_channel, key=by_channel.__getitem__)
    assert order == [
        'CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT'
    ]


def test_every_file_is_there_with_its_full_size(nano_nusc):
    for record in nano_nusc.sample_data:
        size = os.path.getsize(nano_nusc.get_sample_data_path(record['token']))
        assert size == 200 * 32 * 20 if record['fileformat'] == 'pcd' else size > 2000
    for row in nano_nusc.map:
        assert row['mask'].mask().max() == 255


def test_lidar_points_equal_the_devkits_count(nano_nusc, lidar_records):
    wrong = 0
    for _, _, lidar in lidar_records:
        path, boxes, _ = nano_nusc.get_sample_data(lidar['token'])
        points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, :3].T
        for box in boxes:
            stated = nano_nusc.get('sample_annotation', box.token)['num_lidar_pts']
            wrong += abs(int(points_in_box(box, points).sum()) - stated)
    assert wrong == 0


def test_annotations_use_the_ten_detection_classes(nano_nusc):
    seen = {row['category_name'] for row in nano_nusc.sample_annotation}
    assert seen == {kind.category for kind in KINDS.values()}


def test_mask_is_set_where_the_ego_drives(nano_nusc, nano_world):
    for scene in nano_world.scenes:
        record = next(row for row in nano_nusc.scene if row['name'] == scene.name)
        log = nano_nusc.get('log', record['log_token'])
        mask = nano_nusc.get('map', log['map_token'])['mask']
        for t_s in (0.0, 1.0, 2.0):
            x, y, _ = scene.ego_pose(t_s)[:3, 3]
            assert mask.is_on_mask(x, y).all()
            assert not mask.is_on_mask(x, 1.0).any()
