"""The study of a memory that copies: rows, what is stored and skipped, visibility by points, the report."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData

from projects.memfusion.runtime.errors import UserError
from projects.studies.memory import copying, copying_report
from projects.studies.memory.cache import FeatureCache
from projects.studies.memory.rows import choose_rows


def scores_of(shift, **more):
    own = {name: 0.3 + shift for name in (*copying_report.COLUMNS.values(),)}
    own |= {f'memory/num_0pts_seen{end}': 40.0 for end in ('', '_2-6s', *copying_report.SPLITS.values())}
    return dict(own={**own, **more}, other={copying_report.HIDDEN: 0.1}, none={copying_report.HIDDEN: 0.2})


def store(folder, row, seed, scores):
    folder.mkdir(exist_ok=True)
    copying.result_path(folder, row, seed).write_text(json.dumps(dict(row=row, scores=scores)))


def test_every_row_has_a_config_and_clips_longer_than_its_slots(repo):
    assert len({row.name for row in copying.ROWS}) == len(copying.ROWS)
    for row in copying.ROWS:
        cfg = Config.fromfile(str(repo / row.config))
        temporal, clip = cfg.model.get('temporal'), cfg.train_dataloader.dataset
        if temporal is not None and temporal.type in ('CopyMemory', 'StackFusion'):
            kept = temporal.get('num_slots', temporal.get('num_frames', 4) - 1 if temporal.type == 'StackFusion' else 3)
            assert clip.seq_len > kept * temporal.get('mem_every', 1) - temporal.get('mem_every', 1) + 1, row.name
        assert clip.keep_seen_s == (0.0 if copying_report.PLAIN_SEEN in row.name else 6.0)
        assert [step.type for step in clip.pipeline][-2:] == ['CountBoxPoints', 'PackClipFrame']
        assert [one.get('hidden_boxes') for one in cfg.test_evaluator] == [None, 'drop', 'downweight', None]
    assert [row.name for row in choose_rows(['copy'], copying.ROWS)] == ['copy']


def test_finished_rows_and_those_of_fewer_seeds_are_skipped(tmp_path, monkeypatch):
    def fail(*args):
        raise AssertionError('nothing is to be done')

    monkeypatch.setattr(copying, 'make_data', fail)
    rows = choose_rows(['copy_world', 'copy_stack8'], copying.ROWS)
    store(tmp_path, 'copy_world', 2, {})
    copying.run_seed(tmp_path, tmp_path, tmp_path, 2, rows)  # the stack of eight has one seed
    with pytest.raises(AssertionError, match='nothing is to be done'):
        copying.run_seed(tmp_path, tmp_path, tmp_path, 1, rows)
    with pytest.raises(AssertionError, match='nothing is to be done'):  # asked for by name
        copying.run_seed(tmp_path, tmp_path, tmp_path, 2, rows, more_seeds=True)


def test_the_ap_of_a_class_is_the_mean_over_distances_of_the_downweighted_score():
    scores = {f'{prefix}/pred_instances_3d_NuScenes/{name}_AP_dist_{distance}': value
              for prefix, shift in (('NuScenes metric', 0.5), ('downweight', 0.0), ('drop', 0.4))
              for name, values in dict(car=(0.1, 0.2, 0.3, 0.4), traffic_cone=(0.0, 0.0, 0.0, 0.2)).items()
              for distance, value in zip((0.5, 1.0, 2.0, 4.0), (one + shift for one in values))}
    scores['downweight/pred_instances_3d_NuScenes/car_trans_err'] = 9.0
    found = copying.class_aps(scores)
    assert list(found) == ['downweight/AP_car', 'downweight/AP_traffic_cone']
    assert list(found.values()) == pytest.approx([0.25, 0.05])
    assert all(name.startswith(copying._STORED) for name in found)


def test_the_report_says_means_gains_and_what_was_wanted(tmp_path):
    doc, (begin, end) = tmp_path / 'memory.md', copying_report.MARKERS
    doc.write_text(f'before\n{begin}\noutdated\n{end}\nafter\n')
    with pytest.raises(UserError, match='copy_plain'):
        copying_report.write_report(tmp_path / 'rows', doc)
    for seed, shift in ((0, 0.0), (1, 0.02)):
        store(tmp_path / 'rows', copying.PLAIN, seed, scores_of(shift))
        store(tmp_path / 'rows', 'copy_world', seed, scores_of(shift + 0.1))
    store(tmp_path / 'rows', 'copy_plain_250', 0, scores_of(-0.1))
    store(tmp_path / 'rows', 'copy_slots6', 0, scores_of(0.05))
    store(tmp_path / 'rows', copying.STACK, 0, scores_of(0.05))
    copying_report.write_report(tmp_path / 'rows', doc)
    text, title = doc.read_text(), 'copy, 3 slots, what leaves them in a world map'
    assert text.startswith('before') and text.endswith('after\n') and 'outdated' not in text
    assert f'| {title} | 2 | 1000 | 41.0 ± 1.0 |' in text and '| stack of 4 | 1 | 1000 | 35.0 |' in text
    assert '| copy, 6 slots | own | +15.0 |' in text  # over the plain detector of as many steps
    assert f'| {title} | own | +10.0 ± 0.0 |' in text and f'| {title} | other | - | -21.0 ± 1.0 | - |' in text
    assert f'- {title} over stack of 4, hidden to 2 s: +5.0 (one seed)' in text
    assert 'of 40 boxes hidden for up to 2 s and 40 for 2 to 6 s' in text and 'Not run yet: stack of 4, given' in text
    assert '+10.0 over the best plain detector' in text and 'AP by class' not in text
    aps = {'downweight/AP_car': 0.2, 'downweight/AP_bus': 0.4}
    store(tmp_path / 'rows', copying.PLAIN, 2, scores_of(0.0, **aps))
    store(tmp_path / 'rows', 'copy_world', 2, scores_of(0.1, **{name: ap + 0.1 for name, ap in aps.items()}))
    store(tmp_path / 'rows', 'copy_slots6', 2, scores_of(0.1, **aps))  # of another seed than the planned one; not claimed
    copying_report.write_report(tmp_path / 'rows', doc)
    text = doc.read_text()
    assert '(seed 2):' in text and '| row | bus | car |' in text and '| copy, 6 slots | 2 | 250 |' in text
    assert '| plain, no memory | 40.0 | 20.0 |' in text and f'| {title} | 50.0 | 30.0 |' in text


def cache_of(points):
    """Two frames of one scene whose boxes hold so many points."""
    samples = []
    for index, counts in enumerate(points):
        sample = Det3DDataSample(metainfo=dict(scene_token='s', sample_token=str(index)))
        boxes = torch.tensor([[float(row), 0, 0, 1, 1, 1, 0, 0, 0] for row in range(len(counts))]).view(-1, 9)
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.zeros(len(counts), dtype=torch.long),
            num_points=torch.tensor(counts))
        samples.append(sample)
    bev = torch.arange(2 * 3 * 4 * 5.0).view(1, 2, 3, 4, 5).half()
    return FeatureCache(bev, torch.ones(1, 2, 1, 4, 5, dtype=torch.bool), [samples], {'s': [0, 1]})


def test_truth_that_holds_nothing_can_be_left_out_and_cells_are_drawn_from_all_frames():
    cache = cache_of([[3, 0, 1], [0]])
    shown = copying.without_hidden(cache)
    assert [sample.gt_instances_3d.num_points.tolist() for sample in shown.samples[0]] == [[3, 1], []]
    assert [len(sample.gt_instances_3d) for sample in cache.samples[0]] == [3, 1]  # the stored ones stay
    cells = copying.some_cells(cache, seed=0)
    assert cells.shape == (40, 3) and set(cells[:, 0].tolist()) <= set(range(20)) | set(range(60, 80))
    assert (cells[:, 1] - cells[:, 0] == 20).all()


def test_boxes_are_counted_in_the_cloud_of_their_own_frame(monkeypatch):
    seen = {}
    monkeypatch.setattr(copying, 'score', lambda cfg, predictions, official: seen.update(
        cfg=cfg.test_evaluator, found=predictions) or {'points/mAP': 0.5})
    boxes = LiDARInstance3DBoxes(torch.tensor([[0.0, 0, 0, 2, 2, 2, 0, 0, 0], [10.0, 0, 0, 2, 2, 2, 0, 0, 0]]), box_dim=9)
    found = [dict(sample_idx=index, pred_instances_3d=dict(bboxes_3d=boxes, scores_3d=torch.tensor([0.6, 0.7]),
                                                           labels_3d=torch.zeros(2))) for index in (0, 1)]
    clouds = [np.array([[0.0, 0, 1, 0, 0]], dtype=np.float32), np.array([[10.0, 0, 1, 0, 0]], dtype=np.float32)]
    cfg = Config(dict(test_evaluator=[dict(type='OrderedNuScenesMetric'), dict(type='MemoryMetric')]))
    assert copying.score_by_points(cfg, found, clouds) == {'points/mAP': 0.5}
    assert [one['pred_instances_3d']['seen_3d'].tolist() for one in seen['found']] == [[1, 0], [0, 1]]
    assert seen['cfg'] == [dict(type='OrderedNuScenesMetric', hidden_boxes='drop', prefix='points')]
