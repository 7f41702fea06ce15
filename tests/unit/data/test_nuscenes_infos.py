"""Info files against mmdet3d's own converter and the devkit; bad folders, tables and info files."""

import copy
import importlib.util
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from nuscenes.nuscenes import NuScenes
from nuscenes.utils import splits
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from projects.memfusion.data.errors import DataError
from projects.memfusion.data.files import partial_path, write_pickles
from projects.memfusion.data.nuscenes_infos import create_infos
from projects.memfusion.data.prepare import prepare_nuscenes
from projects.memfusion.data.sequence_fields import complete_infos, ensure_sequence_fields, load_info_file
from projects.memfusion.runtime.errors import run_cli

MINI = 'v1.0-mini'
REPO = Path(__file__).parents[3]
EXTRA = {
    'info': {'scene_token', 'scene_name', 'frame_index', 'num_frames', 'prev_sample_token', 'next_sample_token',
             'global_from_lidar'},
    'lidar_points': {'sample_data_token', 'timestamp', 'num_bytes'},
    'lidar_sweeps': {'global_from_lidar'},
    'images': {'ego2global', 'height', 'width', 'distortion'},
    'instances': {'instance_token', 'attribute'},
}


def read(path):
    return pickle.loads(Path(path).read_bytes())


def assert_same(ours, stock, where='info', extra=frozenset(), tolerance=0.0):
    """Every key and value of `stock` is in `ours`, floats to `tolerance` and NaN as NaN; new keys are in `extra`."""
    if isinstance(stock, dict):
        assert set(stock) <= set(ours), f'{where}: {set(stock) - set(ours)} missing'
        assert set(ours) - set(stock) <= extra, f'{where}: {set(ours) - set(stock)} not expected'
        for key, value in stock.items():
            assert_same(ours[key], value, f'{where}.{key}', EXTRA.get(key, frozenset()) if extra else extra, tolerance)
    elif isinstance(stock, (list, tuple)):
        assert len(ours) == len(stock), f'{where}: {len(ours)} != {len(stock)}'
        for index, (mine, value) in enumerate(zip(ours, stock)):
            assert_same(mine, value, f'{where}[{index}]', extra, tolerance)
    elif isinstance(stock, str) and where.endswith('lidar_path'):
        assert os.path.normpath(ours) == os.path.normpath(stock), where
    elif isinstance(stock, (float, np.floating)):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=tolerance, equal_nan=True, err_msg=where)
    else:
        assert ours == stock, f'{where}: {ours!r} != {stock!r}'


@pytest.fixture(scope='module')
def pairs(stock_dir):
    """[(our content, mmdet3d's content)] of train and val, made from the same ./data/nuscenes."""
    cwd = os.getcwd()
    os.chdir(stock_dir)  # both store sweep paths as the root was given
    try:
        paths = create_infos(Path('data/nuscenes'), MINI, stock_dir / 'ours', workers=1)
    finally:
        os.chdir(cwd)
    return [(read(path), read(stock_dir / 'data' / 'nuscenes' / path.name)) for path in paths.values()]


@pytest.fixture(scope='module')
def nusc(nano_root):
    return NuScenes(MINI, str(nano_root), verbose=False)


def test_equal_to_mmdet3d(pairs):
    assert [len(ours['data_list']) for ours, _ in pairs] == [len(stock['data_list']) for _, stock in pairs]
    assert sum(len(ours['data_list']) for ours, _ in pairs) >= 20
    for ours, stock in pairs:
        assert_same(ours['metainfo'], stock['metainfo'], 'metainfo', {'memfusion_info_version'})
        assert ours['metainfo']['memfusion_info_version'] == '1.0'
        for mine, theirs in zip(ours['data_list'], stock['data_list']):
            images = {camera: {key: mine['images'][camera].pop(key) for key in EXTRA['images'] & set(image)}
                      for camera, image in mine['images'].items()}
            assert_same(mine, theirs, extra=EXTRA['info'], tolerance=1e-6)
            for camera, extra in images.items():
                assert {'ego2global', 'height', 'width'} <= set(extra)
                mine['images'][camera].update(extra)


def test_completed_mmdet3d_infos_equal_ours(pairs, stock_dir):
    for ours, stock in pairs:
        completed = copy.deepcopy(stock['data_list'])
        assert ensure_sequence_fields(completed, stock['metainfo'], stock_dir / 'data/nuscenes', 'x.pkl') is completed
        assert_same(completed, ours['data_list'], tolerance=1e-6)  # both directions: no key more, none less
        for mine, theirs in zip(ours['data_list'], completed):
            for key in EXTRA['info']:
                assert mine[key] == theirs[key]
            assert mine['lidar_points'] == theirs['lidar_points']
        before = copy.deepcopy(ours['data_list'])
        ensure_sequence_fields(ours['data_list'], ours['metainfo'], '/nowhere', 'x.pkl')  # complete: no table is read
        assert_same(ours['data_list'], before)


def test_sequence_fields_against_devkit(pairs, nusc):
    def pose(record):
        return transform_matrix(record['translation'], Quaternion(record['rotation']))

    def global_from(token):
        record = nusc.get('sample_data', token)
        sensor = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
        return pose(nusc.get('ego_pose', record['ego_pose_token'])) @ pose(sensor), record, sensor

    for info in (info for ours, _ in pairs for info in ours['data_list']):
        sample = nusc.get('sample', info['token'])
        scene = nusc.get('scene', sample['scene_token'])
        assert (info['scene_token'], info['scene_name']) == (scene['token'], scene['name'])
        assert info['num_frames'] == scene['nbr_samples']
        assert (info['frame_index'] == 0) == (info['prev_sample_token'] == '')
        assert (info['frame_index'] == info['num_frames'] - 1) == (info['next_sample_token'] == '')
        expected, record, _ = global_from(sample['data']['LIDAR_TOP'])
        np.testing.assert_allclose(info['global_from_lidar'], expected, rtol=0, atol=1e-9)
        assert info['lidar_points']['timestamp'] == record['timestamp'] / 1e6
        for sweep in info.get('lidar_sweeps', []):
            np.testing.assert_allclose(sweep['global_from_lidar'], global_from(sweep['sample_data_token'])[0],
                                       rtol=0, atol=1e-9)
        for image in info['images'].values():
            _, record, sensor = global_from(image['sample_data_token'])
            np.testing.assert_allclose(image['ego2global'], pose(nusc.get('ego_pose', record['ego_pose_token'])),
                                       rtol=0, atol=1e-9)
            assert (image['width'], image['height']) == (record['width'], record['height'])
            assert ('distortion' in image) == bool(sensor.get('distortion'))
            if 'distortion' in image:
                assert image['distortion'] == sensor['distortion']
        for instance, token in zip(info['instances'], sample['anns']):
            annotation = nusc.get('sample_annotation', token)
            names = [nusc.get('attribute', attribute)['name'] for attribute in annotation['attribute_tokens']]
            assert instance['instance_token'] == annotation['instance_token']
            assert instance['attribute'] == (names or [''])[0]


def test_frame_order_follows_time(pairs):
    by_scene = {}
    for info in (info for ours, _ in pairs for info in ours['data_list']):
        by_scene.setdefault(info['scene_token'], []).append(info)
    for infos in by_scene.values():
        infos.sort(key=lambda info: info['timestamp'])
        assert [info['frame_index'] for info in infos] == list(range(len(infos)))
        assert [info['next_sample_token'] for info in infos[:-1]] == [info['token'] for info in infos[1:]]


def test_distortion_is_kept_where_there_is_any(world, edit_table, tmp_path):
    distortion = dict(model='radtan', coefficients=[0.1, -0.2, 0.0, 0.001, 0])

    def distort(records):
        for record in records:
            record.pop('distortion', None)
        record = next(record for record in records if record['camera_intrinsic'])
        record['distortion'] = distortion
        return records
    edit_table(world, 'calibrated_sensor', distort)
    data_lists = [read(path)['data_list'] for path in create_infos(world, MINI, tmp_path / 'out').values()]
    found = [image.get('distortion') for infos in data_lists for info in infos for image in info['images'].values()]
    assert distortion in found and None in found
    assert all(value in (None, distortion) for value in found)


def test_two_workers_write_the_same(world, tmp_path):
    one = create_infos(world, MINI, tmp_path / 'one', workers=1)
    two = create_infos(world, MINI, tmp_path / 'two', workers=2)
    for split in one:
        assert_same(read(two[split]), read(one[split]))


def test_max_sweeps(world, tmp_path):
    data_list = read(create_infos(world, MINI, tmp_path, max_sweeps=3)['val'])['data_list']
    assert {len(info.get('lidar_sweeps', [])) for info in data_list} == {0, 3}


def test_root_with_the_word_samples(nano_root, world, tmp_path):
    """mmdet3d's dataset looks for 'samples' anywhere in a sweep's path; such a root must not get into it."""
    root = tmp_path / 'my_samples'
    os.rename(world, root)
    data_list = read(create_infos(root, MINI, tmp_path)['val'])['data_list']
    for sweep in (sweep for info in data_list for sweep in info.get('lidar_sweeps', [])):
        path = sweep['lidar_points']['lidar_path']
        assert (root / path).is_file() and path.startswith(('samples/', 'sweeps/'))


def test_scenes_of_no_split_are_val(world, tmp_path, monkeypatch):
    train_only = splits.mini_train[:1]
    monkeypatch.setattr(splits, 'mini_train', train_only)
    monkeypatch.setattr(splits, 'mini_val', [])
    paths = create_infos(world, MINI, tmp_path)
    train, val = read(paths['train'])['data_list'], read(paths['val'])['data_list']
    assert {info['scene_name'] for info in train} <= set(train_only)
    assert len(train) + len(val) == len(read_table(world, 'sample'))


def read_table(root, name, version=MINI):
    return json.loads((root / version / f'{name}.json').read_text())


def make_versions(world, edit_table):
    """Turns a mini world into v1.0-trainval and v1.0-test (same scenes, no annotations); returns its scene names."""
    (world / 'v1.0-test').mkdir()
    for table in (world / MINI).iterdir():
        (world / 'v1.0-test' / table.name).write_bytes(table.read_bytes())
    for name in ('sample_annotation', 'instance'):
        edit_table(world, name, lambda records: [], 'v1.0-test')
    os.rename(world / MINI, world / 'v1.0-trainval')
    return [scene['name'] for scene in read_table(world, 'scene', 'v1.0-trainval')]


def test_v1_0_is_trainval_and_test(world, edit_table, tmp_path, monkeypatch):
    names = make_versions(world, edit_table)
    for split, scenes in (('train', names[:1]), ('val', names[1:]), ('test', names[1:2])):
        monkeypatch.setattr(splits, split, scenes)
    prepare_nuscenes(world, 'v1.0', tmp_path / 'out', 'tag', with_gt_database=False)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'tag_infos_test.pkl', 'tag_infos_train.pkl', 'tag_infos_val.pkl']
    data_list, metainfo = load_info_file(tmp_path / 'out' / 'tag_infos_test.pkl')
    assert metainfo['version'] == 'v1.0-test' and {info['scene_name'] for info in data_list} == {names[1]}
    for info in data_list:
        assert info['instances'] == [] and 'cam_instances' not in info and len(info['images']) == 6
    bare = [{key: value for key, value in info.items() if key not in EXTRA['info']} for info in data_list]
    complete_infos(bare, world, 'v1.0-test')  # reads no annotation table
    assert_same(bare, data_list)


# -- bad input ---------------------------------------------------------------------------------------------


def run_tool(*arguments):
    spec = importlib.util.spec_from_file_location('create_data', REPO / 'tools' / 'create_data.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    try:
        run_cli(lambda: tool.main(['nuscenes', '--workers', '1', *map(str, arguments)]))
    except SystemExit as stop:
        return stop.code
    return 0


def assert_one_line_error(capsys, *words):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    for word in words:
        assert str(word) in lines[0]


def test_missing_root_and_versions(world, tmp_path, capsys):
    assert run_tool('--root-path', tmp_path / 'no', '--version', MINI) == 2
    assert_one_line_error(capsys, tmp_path / 'no', '--root-path')
    assert run_tool('--root-path', world, '--version', 'v1.0-test') == 2
    assert_one_line_error(capsys, world / 'v1.0-test', f'versions found in {world}: {MINI}', '--version')
    assert run_tool('--root-path', world) == 2  # v1.0: fails before anything is written
    assert_one_line_error(capsys, world / 'v1.0-trainval')
    assert run_tool('--root-path', world, '--version', 'v1.0-test', '--only-gt-database') == 2
    assert_one_line_error(capsys, 'v1.0-test has no annotations')
    assert run_tool('--root-path', world, '--version', MINI, '--only-gt-database') == 2
    assert_one_line_error(capsys, world / 'nuscenes_infos_train.pkl', 'tools/create_data.py')
    assert run_tool('--root-path', world, '--version', 'v9') == 2
    assert_one_line_error(capsys, "'v9'", 'v1.0-trainval, v1.0-test, v1.0-mini')
    assert not list(world.glob('*.pkl'))


def test_damaged_tables(world, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = ('--root-path', world, '--version', MINI, '--out-dir', out)
    table = world / MINI / 'ego_pose.json'
    content = table.read_bytes()
    table.write_bytes(content[:len(content) // 2])
    assert run_tool(*arguments) == 2
    assert_one_line_error(capsys, table, 'not a JSON table')
    table.write_text('[]')
    assert run_tool(*arguments) == 2
    assert_one_line_error(capsys, world / MINI, 'contradict')
    table.unlink()
    assert run_tool(*arguments) == 2
    assert_one_line_error(capsys, table, 'is missing')
    table.write_bytes(content)
    (world / 'maps').unlink()
    assert run_tool(*arguments) == 2
    assert_one_line_error(capsys, 'map mask', world)
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize('folder', ['samples/LIDAR_TOP', 'samples/CAM_BACK', 'sweeps/LIDAR_TOP'])
def test_missing_sensor_file(world, tmp_path, capsys, folder):
    records = read_table(world, 'sample_data')
    used = {record['prev'] for record in records if record['is_key_frame']}  # the sweep just before a keyframe
    file = next(world / record['filename'] for record in records if record['filename'].startswith(folder)
                and (record['is_key_frame'] or record['token'] in used))
    file.unlink()
    assert run_tool('--root-path', world, '--version', MINI, '--out-dir', tmp_path / 'out') == 2
    assert_one_line_error(capsys, file, 'is missing')
    assert not (tmp_path / 'out').exists()


def test_lidar_only_download_is_accepted(world, tmp_path):
    for camera in list((world / 'samples').glob('CAM_*')):
        for file in camera.iterdir():
            file.unlink()
        camera.rmdir()
    assert len(read(create_infos(world, MINI, tmp_path)['val'])['data_list'][0]['images']) == 6


def test_info_files_of_another_version(pairs, stock_dir, tmp_path):
    path = tmp_path / 'nuscenes_infos_val.pkl'
    ours = pairs[1][0]
    for content in ([{'token': 'old'}], {'infos': [], 'metadata': {}}, {**ours, 'metainfo': {'version': MINI}},
                    {**ours, 'metainfo': {**ours['metainfo'], 'memfusion_info_version': '7'}}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match='another version.*tools/create_data.py') as error:
            load_info_file(path)
        assert str(path) in str(error.value)
    path.write_bytes(pickle.dumps(ours)[:1000])
    with pytest.raises(DataError, match='nuscenes_infos_val.pkl is not a readable info file'):
        load_info_file(path)
    with pytest.raises(DataError, match='cannot read .*no.pkl.*No such file'):
        load_info_file(tmp_path / 'no.pkl')


def test_infos_that_cannot_be_completed(pairs, world, edit_table, tmp_path):
    _, stock = pairs[1]
    metainfo, data_list = stock['metainfo'], stock['data_list']
    with pytest.raises(DataError, match='x.pkl.*nowhere/v1.0-mini/scene.json.*tools/create_data.py'):
        ensure_sequence_fields(copy.deepcopy(data_list), metainfo, tmp_path / 'nowhere', 'x.pkl')
    other = copy.deepcopy(data_list)
    other[0]['token'] = 'a' * 32
    with pytest.raises(DataError, match=f"sample.json has no record with token '{'a' * 32}'"):
        complete_infos(other, world, MINI)
    edit_table(world, 'sample_annotation', lambda records: [
        record for record in records if record['sample_token'] != data_list[1]['token']])
    with pytest.raises(DataError, match=f'{data_list[1]["token"]} has .* instances .* and 0 in the tables'):
        complete_infos(copy.deepcopy(data_list), world, MINI)
    with pytest.raises(DataError, match='x.pkl has no sequence fields and no version'):
        ensure_sequence_fields(copy.deepcopy(data_list), {'info_version': '1.1'}, world, 'x.pkl')


def test_the_info_of_a_lone_keyframe_is_read(keyframe_dir):
    path = next(keyframe_dir.glob('*.pkl'))
    data_list, metainfo = load_info_file(path)
    assert len(data_list) == 1 and metainfo['version'] == MINI
    with pytest.raises(DataError, match='sequence fields'):
        ensure_sequence_fields(data_list, metainfo, path.parent, path)


def test_interrupted_writing_leaves_the_old_files(tmp_path, monkeypatch):
    old, new = tmp_path / 'a.pkl', tmp_path / 'b.pkl'
    write_pickles({old: 'old'})
    with pytest.raises(AttributeError):  # the second object cannot be pickled: not even the first file may change
        write_pickles({old: 'new', new: lambda: None})
    assert read(old) == 'old' and sorted(tmp_path.iterdir()) == [old]
    partial_path(old).write_bytes(b'half')  # what a killed run leaves
    write_pickles({old: 'new'})
    assert read(old) == 'new' and sorted(tmp_path.iterdir()) == [old]
