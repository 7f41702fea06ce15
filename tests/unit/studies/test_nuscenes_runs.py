"""The recipe of runs: its configs exist, hours, steps and scores come out of the logs that MMEngine writes."""

import json

import pytest
from mmengine.config import Config

from projects.studies.nuscenes_runs import MARKERS, RUNS, read_work_dir, runs_table, write_runs


def log(folder, name, lines):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def train(step, time):
    return dict(lr=1e-3, time=time, data_time=0.1, loss=1.0, iter=step, step=step)


def test_every_run_has_a_config_and_loads_from_a_run_before_it(repo):
    before = set()
    for run in RUNS:
        source = Config.fromfile(str(repo / 'configs' / run.config)).get('load_from')
        assert source is None or source.split('/')[1] in before, run.name
        before.add(run.name)


def test_the_copying_memory_and_its_baselines_differ_in_memory_alone(repo):
    '''Same detector, labels, steps and scores; clips are of one length where something remembers.'''
    temporal, rest = {}, set()
    for name in ('copy', 'stack4', 'convgru', 'plain'):
        run = next(run for run in RUNS if run.name.startswith(f'{name}_') and 'phase1' in run.name)
        cfg = Config.fromfile(str(repo / 'configs' / run.config)).to_dict()
        data, hooks = cfg['train_dataloader']['dataset'], [hook['type'] for hook in cfg['custom_hooks']]
        temporal[name] = (cfg['model'].pop('temporal') or dict(type=None))['type']
        assert data.pop('seq_len') == (8 if temporal[name] else 1) and data['keep_seen_s'] == 6.0
        assert cfg['model']['train_cfg'].pop('grad_frames') == (4 if temporal[name] else None)
        assert ('FitValuesHook' in hooks) == (name == 'copy') and cfg['test_evaluator'][1]['type'] == 'MemoryMetric'
        rest.add(json.dumps({key: value for key, value in cfg.items() if key != 'custom_hooks'}, sort_keys=True, default=repr))
    assert temporal == dict(copy='CopyMemory', stack4='StackFusion', convgru='ConvGRUFusion', plain=None) and len(rest) == 1


def test_hours_steps_and_scores_of_a_run_that_was_resumed(tmp_path):
    log(tmp_path, '20260101_000000/vis_data/scalars.json',
        [train(50, 1.0), train(100, 2.0), {'NuScenes metric/mAP': 0.1, 'step': 2}])
    log(tmp_path, '20260102_000000/vis_data/scalars.json',
        [train(100, 3.0), train(150, 1.0), dict(time=9.0, data_time=1.0, step=3)])
    found = read_work_dir(tmp_path)
    assert found.hours == pytest.approx((50 * 1.0 + 50 * 2.0 + 50 * 3.0 + 50 * 1.0) / 3600) and found.steps == 150
    assert found.scores['NuScenes metric/mAP'] == 0.1 and found.source == 'validation, step 2'
    log(tmp_path, '20260103_000000/20260103_000000.json', [{'NuScenes metric/mAP': 0.5, 'memory/mAP_seen': 0.4}])
    log(tmp_path, '20260103_000000/other.json', [{'NuScenes metric/mAP': 0.9}])
    assert read_work_dir(tmp_path).source == 'test, 20260103_000000'
    assert read_work_dir(tmp_path / 'nothing') is None
    log(tmp_path, '20260104_000000/vis_data/scalars.json', [train(200, 1.0)])
    (tmp_path / '20260104_000000/vis_data/scalars.json').write_text('{broken')
    with pytest.raises(ValueError, match='20260104_000000'):
        read_work_dir(tmp_path)


def test_the_table_holds_what_was_found_in_the_order_of_the_recipe(tmp_path):
    log(tmp_path / RUNS[1].name, '1/vis_data/scalars.json', [train(36000, 1.0)])
    log(tmp_path / RUNS[1].name, '2/2.json', [{'NuScenes metric/mAP': 0.4463, 'NuScenes metric/NDS': 0.5823}])
    lines = runs_table(tmp_path).splitlines()[2:]
    assert [line.split('`')[1] for line in lines] == [run.name for run in RUNS]
    assert '| 0.0 | 36000 | 44.63 | 58.23 | - | - | - | test, 2 |' in lines[1] and '| - | - | - | - |' in lines[0]
    doc = tmp_path / 'runs.md'
    doc.write_text(f'a\n{MARKERS[0]}\n{MARKERS[1]}\nb\n')
    write_runs(tmp_path, doc)
    assert doc.read_text().startswith('a') and doc.read_text().endswith('b\n') and '44.63' in doc.read_text()


def test_the_document_is_the_recipe(repo):
    text = (repo / 'docs/nuscenes_runs.md').read_text()
    assert all(marker in text for marker in MARKERS) and all(run.name in text for run in RUNS)
