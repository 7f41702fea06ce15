"""The samples of an info file are scored, whatever they are, by official code; what cannot be scored is named early."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.fileio import load
from mmengine.logging import MMLogger

from projects.memfusion.data.nuscenes_infos import create_infos
from projects.memfusion.metrics import MemoryMetric, OrderedNuScenesMetric

CLASSES = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
           'traffic_cone']
PREFIX = 'NuScenes metric/pred_instances_3d_NuScenes'
MINI = 'v1.0-mini'


@pytest.fixture(scope='module')
def contents(nano_infos_root):
    return {split: load(str(nano_infos_root / f'nuscenes_infos_{split}.pkl')) for split in ('train', 'val')}


@pytest.fixture
def said(monkeypatch):
    """What is logged."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', lines.append)
    monkeypatch.setattr(logger, 'info', lines.append)
    return lines


def written(content, infos, path):
    path.write_bytes(pickle.dumps(dict(metainfo=content['metainfo'], data_list=infos)))
    return path


def predictions(content, infos, classes=CLASSES, seed=0):
    """Truth moved a little, with scores that tie, and boxes anywhere; of each class its own draw, whatever the others are."""
    names = {index: name for name, index in content['metainfo']['categories'].items()}
    samples = []
    for index, info in enumerate(infos):
        rows, scores, labels = [], [], []
        for label, name in enumerate(classes):
            g = np.random.default_rng([seed, CLASSES.index(name), *info['token'].encode()])
            truth = [[*one['bbox_3d'], *np.nan_to_num(one['velocity'])] for one in info['instances']
                     if names[one['bbox_label_3d']] == name]
            noise = [[*g.uniform(-20, 20, 2), 0, 2, 2, 2, 0, 0, 0] for _ in range(3)]
            boxes = np.array(truth + noise).reshape(-1, 9)
            boxes[:, :2] += 0.4 * g.standard_normal((len(boxes), 2))
            rows += boxes.tolist()
            scores += np.round(g.uniform(0.3, 1, len(boxes)), 1).tolist()
            labels += [label] * len(boxes)
        samples.append(sample(index, rows, scores, labels, info['token']))
    return samples


def sample(index, rows, scores, labels, token='t', origin=(0.5, 0.5, 0.5)):
    boxes = torch.tensor(np.array(rows, dtype=np.float32).reshape(len(scores), -1 if rows else 9))
    return dict(sample_idx=index, sample_token=token, pred_instances_3d=dict(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[1], origin=origin),
        scores_3d=torch.tensor(scores, dtype=torch.float32), labels_3d=torch.tensor(labels)))


def score(root, path, samples, classes=CLASSES, kind=OrderedNuScenesMetric, **options):
    metric = kind(data_root=str(root), ann_file=str(path), **options)
    metric.dataset_meta = dict(classes=classes, version='v1.0-trainval')
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        value == theirs[name] or (np.isnan(value) and np.isnan(theirs[name])) for name, value in ours.items())


def official(root, version, scenes, samples, infos, tmp_path):
    """The devkit's own way: a `splits.json` beside the tables, and an eval_set of that name. In a copy, not in the data."""
    from nuscenes import NuScenes
    from nuscenes.eval.detection.config import config_factory
    from nuscenes.eval.detection.evaluate import NuScenesEval
    metric = OrderedNuScenesMetric(str(root), '', format_only=True, jsonfile_prefix=str(tmp_path / 'official'))
    metric.data_infos = infos
    paths, _ = metric.format_results(samples, CLASSES, str(tmp_path / 'official'))
    copied = tmp_path / 'tables'
    copied.mkdir()
    (copied / 'maps').symlink_to((root / 'maps').resolve())
    (copied / version).mkdir()
    for table in (root / version).iterdir():
        (copied / version / table.name).write_bytes(table.read_bytes())
    (copied / version / 'splits.json').write_text(json.dumps({'mine': scenes}))
    evaluation = NuScenesEval(NuScenes(version, str(copied), verbose=False), config_factory('detection_cvpr_2019'),
                              paths['pred_instances_3d'], 'mine', str(tmp_path / 'out'), verbose=False)
    return evaluation.main(render_curves=False)


def test_one_scene_scores_as_by_the_devkit_s_own_splits_and_is_said_to_be_part(contents, nano_infos_root, tmp_path, said):
    content = contents['val']
    infos = [info for info in content['data_list'] if info['scene_name'] == 'scene-0916']
    path = written(content, infos, tmp_path / 'one.pkl')
    samples = predictions(content, infos)
    before = sorted(entry.name for entry in (nano_infos_root / MINI).iterdir())
    ours = score(nano_infos_root, path, samples)
    assert sorted(entry.name for entry in (nano_infos_root / MINI).iterdir()) == before
    theirs = official(nano_infos_root, MINI, ['scene-0916'], samples, infos, tmp_path)
    assert ours['NuScenes metric/mAP'] == theirs['mean_ap'] and ours['NuScenes metric/NDS'] == theirs['nd_score']
    assert 0.1 < theirs['mean_ap'] < 0.9
    assert any('part of mini_val: 1 of 2 scenes, 5 of the 5 keyframes' in line for line in said)
    memory = score(nano_infos_root, path, samples, kind=MemoryMetric)
    assert memory['memory/mAP'] == pytest.approx(ours['NuScenes metric/mAP'], abs=1e-12)


def test_training_scenes_and_single_frames_are_scored_and_named(contents, nano_infos_root, tmp_path, said):
    infos = contents['train']['data_list'] + contents['val']['data_list'][:2]
    path = written(contents['val'], infos, tmp_path / 'mixed.pkl')
    samples = predictions(contents['val'], infos)
    ours = score(nano_infos_root, path, samples)
    expected = 'an evaluation set of its own: 3 scenes, 1 of them of mini_val, 12 of the 15 keyframes'
    assert any(expected in line for line in said)
    memory = score(nano_infos_root, path, samples, kind=MemoryMetric)
    assert memory['memory/mAP'] == pytest.approx(ours['NuScenes metric/mAP'], abs=1e-12) and memory['memory/mAP'] > 0.1
    said.clear()
    whole = copy.deepcopy(contents['val']['data_list'])
    expected = score(nano_infos_root, nano_infos_root / 'nuscenes_infos_val.pkl', predictions(contents['val'], whole))
    assert not any('part of' in line or 'its own' in line or 'classes' in line for line in said)
    for info in whole:  # as mmdet3d's converter writes them
        del info['lidar_points']['sample_data_token'], info['scene_token'], info['scene_name'], info['global_from_lidar']
    path = written(contents['val'], whole, tmp_path / 'stock.pkl')
    assert same(score(nano_infos_root, path, predictions(contents['val'], whole)), expected)


def test_own_sensors_scenes_and_version_score_as_the_same_data_under_nuscenes_names(
        three_camera_rig, contents, nano_infos_root, tmp_path, said):
    paths = create_infos(three_camera_rig, 'v1.0-rig', tmp_path / 'infos', splits=dict(val=['yard-1', 'yard-3']), max_sweeps=0)
    infos = load(str(paths['val']))
    stock = contents['val']
    assert [info['token'] for info in infos['data_list']] == [info['token'] for info in stock['data_list']]
    samples = predictions(stock, stock['data_list'])
    expected = score(nano_infos_root, nano_infos_root / 'nuscenes_infos_val.pkl', copy.deepcopy(samples))
    assert same(score(three_camera_rig, paths['val'], samples), expected) and expected['NuScenes metric/mAP'] > 0.1
    assert any('an evaluation set of its own: 2 scenes, 10 of the 10 keyframes' in line for line in said)


def test_some_classes_score_the_means_over_these_and_say_so(contents, nano_infos_root, said):
    path, infos = nano_infos_root / 'nuscenes_infos_val.pkl', contents['val']['data_list']
    classes = ['pedestrian', 'car', 'barrier']
    whole = score(nano_infos_root, path, predictions(contents['val'], infos))
    some = score(nano_infos_root, path, predictions(contents['val'], infos, classes), classes)
    distances = ('0.5', '1.0', '2.0', '4.0')
    for name in classes:
        for key in (f'AP_dist_{distance}' for distance in distances):
            assert some[f'{PREFIX}/{name}_{key}'] == whole[f'{PREFIX}/{name}_{key}']
    expected = np.mean([whole[f'{PREFIX}/{name}_AP_dist_{distance}'] for name in classes for distance in distances])
    assert some['NuScenes metric/mAP'] == pytest.approx(expected, abs=1e-4)  # the single ones are rounded to 4 digits
    errors = {}
    for short, error in dict(mATE='trans_err', mASE='scale_err', mAOE='orient_err', mAVE='vel_err', mAAE='attr_err').items():
        errors[short] = np.nanmean([whole[f'{PREFIX}/{name}_{error}'] for name in classes])
        assert some[f'{PREFIX}/{short}'] == pytest.approx(errors[short], abs=1e-4)
    nds = (5 * expected + sum(max(0, 1 - error) for error in errors.values())) / 10
    assert some['NuScenes metric/NDS'] == pytest.approx(nds, abs=1e-4)
    assert f'{PREFIX}/truck_trans_err' not in some
    assert any('are over 3 of 10 classes (car, pedestrian, barrier)' in line for line in said)
    memory = score(nano_infos_root, path, predictions(contents['val'], infos, classes), classes, MemoryMetric)
    assert memory['memory/mAP'] == pytest.approx(some['NuScenes metric/mAP'], abs=1e-12)
    said.clear()
    cones = score(nano_infos_root, path, predictions(contents['val'], infos, ['traffic_cone']), ['traffic_cone'])
    assert np.isnan(cones[f'{PREFIX}/mAOE']) and 0 <= cones['NuScenes metric/NDS'] <= 1
    assert any('mAOE and mAVE and mAAE: undefined for these classes' in line for line in said)


# -- what cannot be scored ------------------------------------------------------------------------------------------------


def meta(metric, classes=CLASSES):
    metric.dataset_meta = dict(classes=classes)
    return metric


@pytest.mark.parametrize('kind', [OrderedNuScenesMetric, MemoryMetric])
def test_classes_and_truth_are_checked_before_anything_is_predicted(kind, contents, nano_infos_root, tmp_path):
    val = str(nano_infos_root / 'nuscenes_infos_val.pkl')
    with pytest.raises(ValueError, match="'van', which nuScenes does not score; use some of car, truck"):
        meta(kind(data_root=str(nano_infos_root), ann_file=val), ['car', 'van'])
    bare = [{**info, 'instances': []} for info in contents['val']['data_list']]
    path = written(contents['val'], bare, tmp_path / 'bare.pkl')
    with pytest.raises(ValueError, match='bare.pkl.* no (annotations|truth)'):
        meta(kind(data_root=str(nano_infos_root), ann_file=str(path)))
    meta(OrderedNuScenesMetric(str(nano_infos_root), str(path), format_only=True, jsonfile_prefix=str(tmp_path)))


@pytest.mark.parametrize(('change', 'expected'), [
    (dict(attribute='vehicle.flying'), "attribute 'vehicle.flying' is none of nuScenes"),
    (dict(bbox_3d=[1, 2, 3, 4, 5, 6, np.nan]), 'yaw of annotation 0 is nan'),
    (dict(bbox_3d=[1, 2, 3, 4, 0, 6, 1], num_lidar_pts=1), 'size of annotation 0 is 0')])
def test_truth_that_the_devkit_would_die_of_is_told_before_anything_is_predicted(
        contents, nano_infos_root, tmp_path, change, expected):
    infos = copy.deepcopy(contents['val']['data_list'])
    infos[4]['instances'][0].update(change)
    path = written(contents['val'], infos, tmp_path / 'bad.pkl')
    with pytest.raises(ValueError, match=f'bad.pkl: sample {infos[4]["token"]}: the {expected}'):
        meta(OrderedNuScenesMetric(str(nano_infos_root), str(path)))
    infos[4]['instances'][0] |= dict(bbox_3d=[1, 2, 3, 4, 0, 6, 1], num_lidar_pts=0, num_radar_pts=0, attribute='')
    meta(OrderedNuScenesMetric(str(nano_infos_root), str(written(contents['val'], infos, tmp_path / 'good.pkl'))))


def test_another_info_file_than_the_data_set_s_is_told_at_the_first_sample(contents, nano_infos_root):
    metric = meta(OrderedNuScenesMetric(str(nano_infos_root), str(nano_infos_root / 'nuscenes_infos_val.pkl')))
    infos = contents['train']['data_list']
    with pytest.raises(ValueError, match=f'sample {infos[0]["token"]} of the data set is not sample 0 of the info file'):
        metric.process({}, predictions(contents['train'], infos)[:1])


BOTTOM = (0.5, 0.5, 0)  # as mmdet3d's boxes are: nothing is computed
GOOD = [1.0, 2, 0, 4, 2, 1.5, 0.3, 0, 0]


def changed(column, value):
    return [value if index == column else number for index, number in enumerate(GOOD)]


@pytest.mark.parametrize(('row', 'score_of', 'label', 'expected'), [
    (changed(0, np.nan), 0.9, 0, 'bboxes_3d centre is nan, 2'), (changed(4, np.inf), 0.9, 0, 'bboxes_3d size is 4, inf'),
    (changed(3, 0.0), 0.9, 0, 'bboxes_3d size is 0, 2.*above 0'), (changed(5, -1.0), 0.9, 0, 'bboxes_3d size is 4, 2, -1'),
    (changed(6, np.nan), 0.9, 0, 'bboxes_3d yaw is nan'), (GOOD, np.nan, 0, 'scores_3d is nan in 1 of 2'),
    (GOOD, np.inf, 0, 'scores_3d is inf'), (changed(8, -np.inf), 0.9, 0, 'bboxes_3d velocity is 0, -inf'),
    (GOOD, 0.9, 10, 'labels_3d is 10 .*10 classes'), (GOOD, 0.9, -1, 'labels_3d is -1')])
def test_boxes_that_cannot_be_scored_name_sample_and_field(nano_infos_root, row, score_of, label, expected):
    metric = OrderedNuScenesMetric(str(nano_infos_root), str(nano_infos_root / 'nuscenes_infos_val.pkl'))
    metric._dataset_meta = dict(classes=CLASSES)
    with pytest.raises(ValueError, match=f'sample abc: {expected}'):
        metric.process({}, [sample(0, [GOOD, row], [0.8, score_of], [0, label], 'abc', BOTTOM)])
    metric.process({}, [sample(0, [GOOD, GOOD], [0.8, 0.7], [0, 9], 'abc'), sample(1, [], [], [], 'abd')])


def test_boxes_without_velocity(nano_infos_root):
    metric = OrderedNuScenesMetric(str(nano_infos_root), str(nano_infos_root / 'nuscenes_infos_val.pkl'))
    with pytest.raises(ValueError, match='sample abc: bboxes_3d have 7 values and no velocity'):
        metric.process({}, [sample(0, [GOOD[:7]], [0.8], [0], 'abc')])
    MemoryMetric('x.pkl').process({}, [sample(0, [GOOD[:7]], [0.8], [0], 'abc')])  # it does not look at velocity


def test_unknown_velocities_are_left_out_as_by_the_devkit_and_counted(contents, nano_infos_root, said):
    path, infos = nano_infos_root / 'nuscenes_infos_val.pkl', contents['val']['data_list']
    samples = predictions(contents['val'], infos)
    samples[3]['pred_instances_3d']['bboxes_3d'].tensor[:4, 7] = np.nan
    result = score(nano_infos_root, path, samples)
    assert np.isfinite(result['NuScenes metric/NDS']) and result[f'{PREFIX}/mAVE'] < 2
    assert any(f'velocity of 4 predicted boxes is NaN (first: sample {infos[3]["token"]})' in line for line in said)
