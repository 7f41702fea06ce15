"""The official score: truth scores 1, nothing scores 0, the order and split of results does not matter."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.fileio import load
from mmengine.logging import MMLogger

from projects.memfusion.metrics import OrderedNuScenesMetric, demo_map
from projects.memfusion.metrics import nuscenes_metric as module
from projects.memfusion.metrics.nuscenes_metric import order_results

CLASSES = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
           'traffic_cone']
PREFIX = 'NuScenes metric/pred_instances_3d_NuScenes'


@pytest.fixture(scope='module')
def infos(nano_infos_root):
    return load(str(nano_infos_root / 'nuscenes_infos_val.pkl'))


@pytest.fixture
def metric(nano_infos_root):
    def make(kind=OrderedNuScenesMetric, **kwargs):
        made = kind(str(nano_infos_root), str(nano_infos_root / 'nuscenes_infos_val.pkl'), **kwargs)
        made.dataset_meta = dict(classes=CLASSES, version='v1.0-trainval')  # what the data-set class says
        return made
    return make


def truth_as_predictions(infos, noise=0.0, seed=0):
    """One prediction per truth box with points; info labels follow the info file's own class order."""
    names = {index: name for name, index in infos['metainfo']['categories'].items()}
    g = np.random.default_rng(seed)
    samples = []
    for info in infos['data_list']:
        rows, labels = [], []
        for instance in info['instances']:
            seen = instance['num_lidar_pts'] + instance['num_radar_pts'] > 0  # the evaluator drops other truth
            if seen and names.get(instance['bbox_label_3d']) in CLASSES:
                velocity = np.nan_to_num(np.array(instance['velocity'], dtype=float))
                rows.append([*instance['bbox_3d'], *velocity])
                labels.append(CLASSES.index(names[instance['bbox_label_3d']]))
        boxes = np.array(rows, dtype=np.float32).reshape(-1, 9)
        boxes[:, :2] += noise * g.standard_normal(boxes[:, :2].shape)
        scores = np.round(g.uniform(0.3, 1.0, len(rows)), 1) if noise else np.full(len(rows), 0.9)  # many ties
        samples.append(prediction(info['sample_idx'], boxes, scores, labels))
    return samples


def prediction(index, boxes=None, scores=(), labels=()):
    boxes = np.zeros((0, 9), dtype=np.float32) if boxes is None else boxes
    return dict(sample_idx=index, pred_instances_3d=dict(
        bboxes_3d=LiDARInstance3DBoxes(torch.as_tensor(boxes), box_dim=9, origin=(0.5, 0.5, 0.5)),
        scores_3d=torch.tensor(np.asarray(scores), dtype=torch.float32),
        labels_3d=torch.tensor(np.asarray(labels), dtype=torch.int64)))


def score(made, samples):
    made.process({}, samples)
    return made.evaluate(len(samples))


def test_truth_scores_one_on_the_classes_that_are_there(metric, infos, nano_infos_root, tmp_path):
    from nuscenes import NuScenes
    result = score(metric(jsonfile_prefix=str(tmp_path)), truth_as_predictions(infos))
    nusc = NuScenes('v1.0-mini', str(nano_infos_root), verbose=False)
    path = tmp_path / 'pred_instances_3d' / 'results_nusc.json'
    near = demo_map(nusc, str(path), 'mini_val', min_truth=1)
    assert near['classes'] and near['mAP'] > 0.98
    assert all(near['per_class'][name] > 0.95 for name in near['classes'])
    for name in near['classes']:
        assert result[f'{PREFIX}/{name}_AP_dist_1.0'] > 0.9, name
        assert result[f'{PREFIX}/{name}_trans_err'] < 0.02, name
        if name != 'traffic_cone':
            assert result[f'{PREFIX}/{name}_orient_err'] < 0.02, name
    present = sum(result[f'{PREFIX}/{name}_AP_dist_1.0'] > 0 for name in CLASSES)
    assert result['NuScenes metric/mAP'] == result[f'{PREFIX}/mAP'] == pytest.approx(present / 10, abs=0.03)
    assert result['NuScenes metric/NDS'] == result[f'{PREFIX}/NDS'] > 0.3


def test_same_names_and_values_as_the_stock_metric(metric, infos):
    samples = truth_as_predictions(infos, noise=0.4)
    stock = metric(NuScenesMetric)
    stock.dataset_meta = dict(classes=CLASSES, version='v1.0-mini')
    for sample in samples:
        sample['pred_instances'] = {}
    expected, ours = score(stock, samples), score(metric(), samples)
    assert {*ours} - {*expected} == {'NuScenes metric/NDS', 'NuScenes metric/mAP'}
    for name, value in expected.items():
        assert ours[name] == value or (np.isnan(ours[name]) and np.isnan(value)), name
    assert 0.05 < ours['NuScenes metric/mAP'] < 0.9


def test_split_and_order_do_not_matter(metric, infos, monkeypatch):
    samples = truth_as_predictions(infos, noise=0.4)
    expected = score(metric(), samples)
    order = np.random.default_rng(1).permutation(len(samples))
    one = metric()
    one.process({}, [samples[i] for i in order])
    ranks = [one.results[:3], [], one.results[3:]]  # of three processes, one empty
    monkeypatch.setattr(module, 'all_gather_object', lambda results: ranks)
    again = one.evaluate(len(samples))
    assert {k: repr(v) for k, v in again.items()} == {k: repr(v) for k, v in expected.items()}


def test_nothing_predicted_scores_zero_without_a_traceback(metric, infos):
    warnings = []
    logger = MMLogger.get_current_instance()
    original, logger.warning = logger.warning, warnings.append
    try:
        result = score(metric(), [prediction(info['sample_idx']) for info in infos['data_list']])
    finally:
        logger.warning = original
    some = score(metric(), truth_as_predictions(infos))
    assert result.keys() == some.keys()
    assert result['NuScenes metric/mAP'] == 0 and result['NuScenes metric/NDS'] == 0
    assert result[f'{PREFIX}/mATE'] == 1 and np.isnan(result[f'{PREFIX}/traffic_cone_vel_err'])
    assert 'nothing was predicted' in warnings[0]


def test_only_far_boxes_count_as_nothing(metric, infos):
    far = np.array([[200, 0, 0, 4, 2, 1.5, 0, 0, 0]], dtype=np.float32)
    samples = [prediction(info['sample_idx'], far, [0.9], [0]) for info in infos['data_list']]
    assert score(metric(), samples)['NuScenes metric/NDS'] == 0


def test_best_500_boxes_are_kept(metric):
    made = metric()
    scores = torch.linspace(0, 1, 700)[torch.randperm(700, generator=torch.Generator().manual_seed(0))]
    boxes = np.zeros((700, 9), dtype=np.float32)
    boxes[:, 0], boxes[:, 3:6] = scores.numpy(), 1
    made.process({}, [prediction(0, boxes, scores.numpy(), np.zeros(700))])
    kept = made.results[0]['pred_instances_3d']
    assert torch.equal(kept['scores_3d'], torch.linspace(0, 1, 700).flip(0)[:500])
    assert torch.equal(kept['bboxes_3d'].tensor[:, 0], kept['scores_3d'])


def test_submission_is_what_the_devkit_reads(metric, infos, tmp_path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox
    made = metric(format_only=True, jsonfile_prefix=str(tmp_path / 'submission'))
    assert score(made, truth_as_predictions(infos)) == {}
    path = tmp_path / 'submission' / 'pred_instances_3d' / 'results_nusc.json'
    boxes, meta = load_prediction(str(path), 500, DetectionBox)
    assert set(boxes.sample_tokens) == {info['token'] for info in infos['data_list']} and len(boxes.all) > 10
    assert meta == dict(use_camera=False, use_lidar=True, use_radar=False, use_map=False, use_external=False)
    with pytest.raises(ValueError, match=r'test_evaluator\.jsonfile_prefix'):
        metric(format_only=True)


def test_split_without_truth_is_told(metric, infos, tmp_path, monkeypatch):
    made = metric()
    monkeypatch.setattr(module, 'loads_pickle', lambda *_: dict(
        metainfo=dict(version='v1.0-test'), data_list=infos['data_list']))
    with pytest.raises(ValueError, match=r'v1\.0-test.*format_only=True'):
        score(made, truth_as_predictions(infos))


def result(index):
    return dict(sample_idx=index)


def test_ordering_rules():
    parts = [[result(2), result(0)], [], [result(1)]]
    assert [r['sample_idx'] for r in order_results(parts, 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r'1 of 4 samples were not predicted \(first: sample_idx 3\)'):
        order_results(parts, 4)
    with pytest.raises(ValueError, match='sample_idx 2 was predicted, but the data set has 2'):
        order_results(parts, 2)
    with pytest.raises(ValueError, match='predicted twice'):
        order_results([[result(0), result(1), result(1)]], 2)
    first = result(0)
    padded = [[first, result(2)], [result(1), result(0)]]  # DefaultSampler fills up the second rank
    assert order_results(padded, 3)[0] is first
    with pytest.raises(ValueError, match='3 samples were predicted twice'):
        order_results([padded[0] + padded[0], padded[1]], 3)


def test_camera_boxes_and_missing_samples_are_refused(metric, infos):
    from mmdet3d.structures import CameraInstance3DBoxes
    made = metric()
    sample = prediction(0)
    sample['pred_instances_3d']['bboxes_3d'] = CameraInstance3DBoxes(torch.zeros(0, 9), box_dim=9)
    with pytest.raises(ValueError, match='LiDAR frame'):
        made.process({}, [sample])
    made.process({}, truth_as_predictions(infos)[:-1])
    with pytest.raises(ValueError, match=f'1 of {len(infos["data_list"])} samples were not predicted'):
        made.evaluate(len(infos['data_list']))


def test_near_map_counts_only_what_is_near(infos, nano_infos_root, metric, tmp_path):
    from nuscenes import NuScenes
    score(metric(jsonfile_prefix=str(tmp_path)), truth_as_predictions(infos))
    path = tmp_path / 'pred_instances_3d' / 'results_nusc.json'
    nusc = NuScenes('v1.0-mini', str(nano_infos_root), verbose=False)
    near, far = (demo_map(nusc, str(path), 'mini_val', range_m=range_m, min_truth=1) for range_m in (15.0, 25.0))
    expected = dict.fromkeys(CLASSES, 0)  # counted by hand from the tables
    from nuscenes.eval.detection.utils import category_to_detection_name
    for info in infos['data_list']:
        sample = nusc.get('sample', info['token'])
        lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
        ego = np.array(nusc.get('ego_pose', lidar['ego_pose_token'])['translation'])
        for token in sample['anns']:
            box = nusc.get('sample_annotation', token)
            name = category_to_detection_name(box['category_name'])
            if name and box['num_lidar_pts'] + box['num_radar_pts'] and np.hypot(*(box['translation'] - ego)[:2]) < 25:
                expected[name] += 1
    assert far['num_truth'] == expected
    assert sum(near['num_truth'].values()) < sum(far['num_truth'].values())
    most = max(expected.values())
    assert demo_map(nusc, str(path), 'mini_val', min_truth=most)['classes'] == [n for n in CLASSES if expected[n] == most]
    assert demo_map(nusc, str(path), 'mini_val', min_truth=most + 1)['mAP'] == 0
    submission = json.loads(path.read_text())
    submission['results'] = {token: [] for token in submission['results']}
    path.write_text(json.dumps(submission))
    assert demo_map(nusc, str(path), 'mini_val', min_truth=1)['mAP'] == 0
    submission['results'].pop(next(iter(submission['results'])))
    path.write_text(json.dumps(submission))
    with pytest.raises(ValueError, match='are not the'):
        demo_map(nusc, str(path), 'mini_val')
