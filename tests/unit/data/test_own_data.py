"""Sensors, scenes and point files that are not nuScenes': what infos are made of, and what is said about the rest."""

import json
import re

import numpy as np
import pytest
from mmengine.logging import MMLogger
from nuscenes.nuscenes import NuScenes

from projects.memfusion.data.box_points_check import check_box_points, count_in_boxes, share_found
from projects.memfusion.data.errors import BadFrameError, DataError
from projects.memfusion.data.gt_database import training_frames
from projects.memfusion.data.nuscenes_infos import create_infos, load_info_file
from projects.memfusion.data.point_files import read_points
from projects.memfusion.data.prepare import prepare_nuscenes
from projects.memfusion.data.scene_splits import read_splits
from projects.memfusion.data.sensor_channels import find_channels, pick_lidar

MINI, RIG = 'v1.0-mini', 'v1.0-rig'
SPLITS = dict(train=['yard-0'], val=['yard-1'])


@pytest.fixture
def said(monkeypatch):
    """What is logged as a warning."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, text, *_: lines.append(text) if level >= 30 else None)
    return lines


def frames_of(paths):
    return [info for path in paths.values() for info in load_info_file(path)[0]]


def test_infos_of_own_sensors_are_those_of_the_same_sensors_under_nuscenes_names(three_camera_rig, nano_infos_root, tmp_path):
    paths = create_infos(three_camera_rig, RIG, tmp_path / 'out', splits=SPLITS)
    names = dict(FRONT_WIDE='CAM_FRONT', LEFT='CAM_BACK_LEFT', REAR='CAM_BACK')
    known = {info['token']: info for split in ('train', 'val')
             for info in load_info_file(nano_infos_root / f'nuscenes_infos_{split}.pkl')[0]}
    infos = frames_of(paths)
    assert len(infos) == 10
    for info in infos:
        stock = known[info['token']]
        assert list(info['images']) == ['FRONT_WIDE', 'REAR', 'LEFT']
        for name, image in info['images'].items():
            assert image == stock['images'][names[name]]
            assert len(info['cam_instances'][name]) == len(stock['cam_instances'][names[name]])
        np.testing.assert_equal(info['instances'], stock['instances'])
        assert info['lidar_points'] == stock['lidar_points'] and info['global_from_lidar'] == stock['global_from_lidar']
    data_list, metainfo = load_info_file(paths['val'])
    assert {info['scene_name'] for info in data_list} == {'yard-1'} and metainfo['version'] == RIG
    assert metainfo['lidar_channel'] == 'ROOF' and metainfo['data_prefix'] == dict(
        pts='samples/ROOF', sweeps='sweeps/ROOF', FRONT_WIDE='samples/FRONT_WIDE', REAR='samples/REAR', LEFT='samples/LEFT')


def test_boxes_of_unknown_categories_are_named(three_camera_rig, edit_table, tmp_path, said):
    edit_table(three_camera_rig, 'category', lambda records: [
        {**record, 'name': 'car' if record['name'] == 'vehicle.car' else record['name']} for record in records], RIG)
    infos = frames_of(create_infos(three_camera_rig, RIG, tmp_path / 'out', splits=dict(val=['yard-1']), max_sweeps=0))
    count = sum(instance['bbox_label_3d'] == -1 for info in infos for instance in info['instances'])
    assert count > 0 and any(f'no such name: car ({count});' in line for line in said)


def test_cameras_that_are_not_there_and_keyframes_that_lack_one_are_named(world, edit_table, tmp_path, said):
    channel = {record['token']: record['channel'] for record in json.loads((world / MINI / 'sensor.json').read_text())}
    sensor = {record['token']: channel[record['sensor_token']]
              for record in json.loads((world / MINI / 'calibrated_sensor.json').read_text())}
    gone, lacking = ('CAM_FRONT', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT'), []
    splits = dict(train=['scene-0061'])

    def drop(records):
        kept = [record for record in records if sensor[record['calibrated_sensor_token']] not in gone]
        first = next(record for record in kept if record['is_key_frame']
                     and sensor[record['calibrated_sensor_token']] == 'CAM_BACK')
        lacking.append(first['sample_token'])
        return [record for record in kept if record is not first]
    edit_table(world, 'sample_data', drop)
    infos = frames_of(create_infos(world, MINI, tmp_path / 'out', splits=splits, max_sweeps=0))
    cameras = ['CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK']
    assert {tuple(info['images']) for info in infos if info['token'] not in lacking} == {tuple(cameras)}
    assert [list(info['images']) for info in infos if info['token'] in lacking] == [cameras[:2]]
    assert any('no keyframe images of CAM_FRONT, CAM_BACK_LEFT, CAM_BACK_RIGHT' in line for line in said)
    assert any(f'CAM_BACK: 1 of 5 keyframes of {MINI} have none (first: sample {lacking[0]}' in line for line in said)

    def no_lidar(records):
        return [record for record in records if record['sample_token'] != lacking[0] or not record['is_key_frame']
                or sensor[record['calibrated_sensor_token']] != 'LIDAR_TOP']
    edit_table(world, 'sample_data', no_lidar)
    with pytest.raises(DataError, match=rf'LIDAR_TOP: 1 of 5 keyframes .* sample {lacking[0]} of scene-'):
        create_infos(world, MINI, tmp_path / 'none', splits=splits)


def test_files_of_a_sensor_in_folders_that_infos_cannot_tell_apart(three_camera_rig):
    nusc = NuScenes(RIG, str(three_camera_rig), verbose=False)
    assert find_channels(nusc, nusc.sample).data_prefix()['sweeps'] == 'sweeps/ROOF'
    keyframes = [record for record in nusc.sample_data if record['channel'] == 'ROOF' and record['is_key_frame']]
    keyframes[3]['filename'] = 'more/ROOF/a.pcd.bin'
    with pytest.raises(DataError, match=r'keyframe files of ROOF lie in several folders \(more/ROOF, samples/ROOF\)'):
        find_channels(nusc, nusc.sample)
    for record in keyframes:
        record['filename'] = 'key/ROOF/a.pcd.bin'
    with pytest.raises(DataError, match='ROOF has its keyframes in key/ROOF and its sweeps in sweeps/ROOF'):
        find_channels(nusc, nusc.sample)


@pytest.mark.parametrize(('channels', 'wanted', 'expected'), [
    (['LIDAR_TOP', 'B'], None, 'LIDAR_TOP'), (['B'], None, 'B'), (['A', 'B'], 'B', 'B'),
    (['A', 'B'], None, r'several LiDARs \(A, B\) and none is LIDAR_TOP: .*--lidar-channel NAME'),
    (['A', 'B'], 'C', r'--lidar-channel C: .* \(LiDARs: A, B\)'), ([], None, 'no keyframes of a LiDAR')])
def test_choice_of_the_lidar(channels, wanted, expected):
    if expected in channels:
        assert pick_lidar(channels, wanted) == expected
    else:
        with pytest.raises(DataError, match=expected):
            pick_lidar(channels, wanted)


# -- scenes and splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('content', 'expected'), [
    ('{', 'is not JSON'), ('[1]', 'another form'), ('{"train": "scene"}', 'another form'), ('{"train": [3]}', 'another form'),
    ('{"first": ["a"]}', r'no train, val or test \(it has first\)'), ('{"train": ["a"], "val": []}', 'the split val is empty'),
    ('{"train": ["a", "a"]}', 'a twice in the split train'),
    ('{"train": ["a", "b"], "val": ["c", "b"]}', 'b in both train and val'),
    ('{"my_train": ["a"], "other_train": ["b"]}', 'my_train and other_train could both be train')])
def test_files_of_splits_that_cannot_be_used(tmp_path, content, expected):
    path = tmp_path / 'splits.json'
    path.write_text(content)
    with pytest.raises(DataError, match=f'--splits {re.escape(str(path))}: .*{expected}'):
        read_splits(path)
    with pytest.raises(DataError, match='cannot be read'):
        read_splits(tmp_path / 'no.json')


def test_a_devkit_s_file_of_splits(tmp_path, said):
    path = tmp_path / 'splits.json'
    path.write_text('{"mini_val": ["b"], "mini_train": ["a"], "rest": ["c"]}')
    assert read_splits(path) == dict(train=['a'], val=['b']) and 'rest not used' in said[0]


def test_unknown_scenes_and_splits_are_named(world, edit_table, tmp_path, said):
    def prepare(**options):
        create_infos(world, MINI, tmp_path / 'out', **options)

    with pytest.raises(DataError, match=r'the split val has nowhere, .* none of the 4 scenes .*scene-0061'):
        prepare(splits=dict(train=['scene-0061'], val=['nowhere', 'scene-0103']))
    edit_table(world, 'scene', lambda records: [
        {**record, 'name': f'yard-{record["name"]}' if record['name'] in ('scene-0061', 'scene-0553') else record['name']}
        for record in records])
    with pytest.raises(DataError, match='in the train split, and yard-scene-0061, yard-scene-0553 are in none .*--splits FILE'):
        prepare()
    edit_table(world, 'scene', lambda records: [{**record, 'name': f'yard-{number}'} for number, record in enumerate(records)])
    with pytest.raises(DataError, match=r'none of the 4 scenes .*yard-0, yard-1, .* is in nuScenes.*--splits FILE'):
        prepare()
    with pytest.raises(DataError, match="unknown nuScenes version 'v1.0-yard'.*--splits"):
        prepare_nuscenes(world, 'v1.0-yard', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    (tmp_path / 'val.json').write_text('{"val": ["yard-3"]}')
    prepare_nuscenes(world, MINI, tmp_path / 'out', splits_file=tmp_path / 'val.json')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['nuscenes_infos_val.pkl']
    assert any('3 of 4 scenes are in no split and are left out: yard-0, yard-1, yard-2' in line for line in said)
    assert any('no ground-truth database' in line for line in said)


def test_scenes_whose_files_are_not_there(world, tmp_path, said):
    nusc = NuScenes(MINI, str(world), verbose=False)
    token = next(scene['token'] for scene in nusc.scene if scene['name'] == 'scene-0103')
    samples = {sample['token'] for sample in nusc.sample if sample['scene_token'] == token}
    for record in nusc.sample_data:
        if record['sample_token'] in samples:
            (world / record['filename']).unlink()
    with pytest.raises(DataError, match='is missing: .*1 of 4 scenes lack files: scene-0103; unpack .*--skip-missing-scenes'):
        create_infos(world, MINI, tmp_path / 'out')
    two = dict(train=['scene-0061'], val=['scene-0103'])
    infos = frames_of(create_infos(world, MINI, tmp_path / 'out', splits=two, max_sweeps=0, skip_missing_scenes=True))
    assert {info['scene_name'] for info in infos} == {'scene-0061'} and len(infos) == 5
    assert any(re.search(r'1 of 2 scenes are left out.*scene-0103 \((\d+) of \1 files\)', line) for line in said)
    for file in (world / 'samples' / 'LIDAR_TOP').iterdir():
        file.unlink()
    with pytest.raises(DataError, match='is missing: .*4 of 4 scenes lack files'):
        create_infos(world, MINI, tmp_path / 'none', skip_missing_scenes=True)


# -- point files ----------------------------------------------------------------------------------------------------------


def test_a_size_that_fits_another_number_of_values_names_load_dim(tmp_path):
    path = tmp_path / 'four.bin'
    np.ones((103, 4), np.float32).tofile(path)
    with pytest.raises(BadFrameError, match=r'is truncated or has another .*1648 bytes is not a multiple of 20 \(load_dim=5'
                       r'.*but fits load_dim=4; where .* set load_dim'):
        read_points(str(path), 5)
    with pytest.raises(BadFrameError, match='four.bin has another number of values a point'):
        read_points(str(path), 5, num_bytes=1648)  # as when the infos were made: it was not cut
    with pytest.raises(BadFrameError, match='is truncated: 1648 bytes .*; copy or generate the file again'):
        read_points(str(path), 5, num_bytes=2060)
    assert len(read_points(str(path), 4)[0]) == 103


def rewrite(world, change):
    """Changes the points of all LiDAR keyframes."""
    for file in (world / 'samples' / 'LIDAR_TOP').iterdir():
        points = np.fromfile(file, np.float32).reshape(-1, 5)
        file.unlink()
        change(points[:len(points) // 20 * 20]).astype(np.float32).tofile(file)  # all sizes are multiples of 20 bytes


@pytest.mark.parametrize('dim', [4, 6, 10])
def test_point_files_of_another_number_of_values_are_told_before_anything_is_written(world, tmp_path, dim):
    rewrite(world, lambda points: np.concatenate([points, points], axis=1)[:, :dim])
    with pytest.raises(DataError, match=rf'samples/LIDAR_TOP/.*the files hold {dim} values a point, not 5: .*--load-dim {dim}'):
        create_infos(world, MINI, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    nusc = NuScenes(MINI, str(world), verbose=False)
    check_box_points(nusc, nusc.sample, 'LIDAR_TOP', dim)


def test_load_dim_reaches_infos_and_database(world, tmp_path):
    rewrite(world, lambda points: points[:, :4])
    path = create_infos(world, MINI, tmp_path, splits=dict(train=['scene-0061']), load_dim=4, max_sweeps=0)['train']
    assert {info['lidar_points']['num_pts_feats'] for info in load_info_file(path)[0]} == {4}
    frames = training_frames(world, path)
    info = frames.get_data_info(0)
    expected = np.fromfile(info['lidar_points']['lidar_path'], np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(frames.pipeline(info)['points'].tensor, expected)


def test_points_and_boxes_that_do_not_belong_together(world, tmp_path, said):
    nusc = NuScenes(MINI, str(world), verbose=False)
    check_box_points(nusc, nusc.sample, 'LIDAR_TOP', 5)
    rewrite(world, lambda points: points[:, [1, 0, 2, 3, 4]])  # axes of another convention
    with pytest.raises(DataError, match=r'samples/LIDAR_TOP/.* are empty, .*points and boxes do not belong together'):
        check_box_points(nusc, nusc.sample, 'LIDAR_TOP', 5)
    for record in nusc.sample_annotation:
        record['num_lidar_pts'] = 0
    check_box_points(nusc, nusc.sample, 'LIDAR_TOP', 5)
    assert 'no keyframe has 50 annotated LiDAR points' in said[-1]


def test_points_in_a_turned_box_by_hand():
    # 10 x 2 x 1 m along (3, 4) / 5, bottom at z = 1
    box = np.array([[0.0, 0, 1.0, 10.0, 2.0, 1.0, np.arctan2(4, 3)]])
    inside = [[2.9, 3.9, 1.5], [-2.9, -3.9, 1.1], [-0.7, 0.5, 1.9], [0, 0, 1.0], [0, 0, 2.0]]
    outside = [[3.1, 4.1, 1.5], [-0.9, 0.7, 1.5], [0, 0, 0.9], [0, 0, 2.1], [2.9, -3.9, 1.5]]
    assert count_in_boxes(np.array(inside), box, from_bottom=True).tolist() == [5]
    assert count_in_boxes(np.array(outside), box, from_bottom=True).tolist() == [0]
    assert count_in_boxes(np.zeros((0, 5)), box).tolist() == [0]
    assert count_in_boxes(np.full((2, 4), np.nan), box).tolist() == [0]
    assert count_in_boxes(np.array(inside), box[:0]).tolist() == []


def test_points_are_counted_as_by_hand():
    box = np.array([[10.0, 5, 1, 4, 2, 1, np.pi / 2]])  # turned: 4 m along y
    points = np.float32([[10, 6.9, 1, 0], [10.9, 5, 1, 0], [12, 5, 1, 0], [10, 5, 1.7, 0]])
    found = count_in_boxes(points, box, margin_m=0.05)
    assert found.tolist() == [2]
    assert share_found(found, np.array([4])) == 0.5 and share_found(found, np.array([1])) == 1.0


def test_points_of_the_real_keyframe_lie_in_its_boxes(keyframe_dir):
    info = load_info_file(next(keyframe_dir.glob('*.pkl')))[0][0]
    boxes = np.array([instance['bbox_3d'] for instance in info['instances']])
    expected = np.array([instance['num_lidar_pts'] for instance in info['instances']])
    values = np.fromfile(next(keyframe_dir.glob('*.pcd.bin')), np.float32)
    assert share_found(count_in_boxes(values.reshape(-1, 5), boxes, margin_m=0.05), expected) > 0.95
    assert share_found(count_in_boxes(values[:len(values) // 4 * 4].reshape(-1, 4), boxes), expected) < 0.5
