"""Files that would run a program when pickle reads them go through everything that reads files: nothing is run."""

import importlib.util
import os
import pickle
import shutil
from functools import partial

import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS, TRANSFORMS
from mmengine.config import Config
from mmengine.fileio import dump, load

from projects.common.safe_pickle import TRUST_VARIABLE, UnsafeFileError
from projects.convert.undistort import Plan, _rewrite_infos
from projects.memfusion.data.errors import DataError
from projects.memfusion.runtime import UserError, init_registry, run_cli
from projects.studies.fusion.run import pretrain
from projects.studies.memory.cache import read_cache
from projects.studies.memory.run import train_plain

REFUSED = r'{}: was refused, because reading it would call (posix|nt)\.mkdir.*--trust-files'
INFO, DATABASE = 'nuscenes_infos_val.pkl', 'nuscenes_dbinfos_train.pkl'


class Payload:
    """Pickled as a call that leaves a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def planted(nano_infos_root, tmp_path, monkeypatch):
    """(root, marker): the nano world whose info files and GT database make `marker` when pickle reads them."""
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    root, marker = tmp_path / 'world', tmp_path / 'ran'
    root.mkdir()
    for entry in nano_infos_root.iterdir():
        if entry.suffix == '.pkl':
            content = pickle.loads(entry.read_bytes())
            if 'data_list' in content:
                content['data_list'][3]['lidar_points']['note'] = Payload(marker)
            else:
                next(iter(content.values()))[0]['note'] = Payload(marker)
            (root / entry.name).write_bytes(pickle.dumps(content))
        else:
            (root / entry.name).symlink_to(entry)
    yield root, marker
    assert not marker.exists()


def test_the_payload_works(planted):
    root, marker = planted
    pickle.loads((root / INFO).read_bytes())
    assert marker.is_dir()
    marker.rmdir()


def command(repo, name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', repo / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('name', ['train', 'test'])
def test_training_and_testing(repo, nano_config, planted, tmp_path, capsys, name):
    root, _ = planted
    loader = 'train_dataloader' if name == 'train' else 'test_dataloader'
    checkpoint = [] if name == 'train' else [str(tmp_path / 'no.pth')]
    arguments = [str(nano_config), *checkpoint, '--work-dir', str(tmp_path / 'out'), '--cfg-options',
                 f'{loader}.dataset.data_root={root}/', f'{loader}.num_workers=0',
                 f'{loader}.persistent_workers=False']
    if name == 'test':
        arguments += [f'test_evaluator.data_root={root}/', f'test_evaluator.ann_file={root}/nuscenes_infos_val.pkl']
    with pytest.raises(SystemExit) as stopped:
        run_cli(lambda: command(repo, name).main(arguments))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and 'Traceback' not in said
    assert f'{root}/nuscenes_infos_{"train" if name == "train" else "val"}.pkl: was refused' in said and '--trust-files' in said


@pytest.mark.parametrize('name', ['NuScenesSequenceDataset', 'SeededNuScenesDataset', 'NuScenesDataset'])
def test_data_sets_of_ours_and_of_mmdet3d(planted, name):
    init_registry()
    error, file = (DataError, INFO) if name.startswith(('NuScenesS', 'Seeded')) else (UnsafeFileError, 'a pickle')
    with pytest.raises(error, match=REFUSED.format(f'.*{file}.*' if error is DataError else '.*')):
        DATASETS.build(dict(type=name, data_root=str(planted[0]), ann_file=INFO, pipeline=[], test_mode=True,
                            data_prefix=dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP')))


@pytest.mark.parametrize('name', ['SeededObjectSample', 'ObjectSample'])
def test_gt_databases(repo, planted, name):
    init_registry()
    cfg = Config.fromfile(repo / 'configs/_base_/datasets/nus_frame.py')
    sampler = {**cfg.db_sampler, 'data_root': str(planted[0]), 'info_path': str(planted[0] / DATABASE)}
    with pytest.raises(UnsafeFileError, match=REFUSED.format(DATABASE)):
        TRANSFORMS.build(dict(type=name, db_sampler=sampler))


def test_metrics(planted, nano_infos_root, tmp_path):
    from projects.memfusion.metrics.nuscenes_metric import load_infos
    init_registry()
    root, _ = planted
    with pytest.raises(ValueError, match=REFUSED.format(f'test_evaluator.ann_file=.*{INFO}')):
        load_infos(str(root / INFO), None, 10)
    metric = METRICS.build(dict(type='MemoryMetric', ann_file=str(root / INFO), data_root=str(root)))
    with pytest.raises(ValueError, match=REFUSED.format(f'.*{INFO}')):
        metric.compute_metrics([])
    stock = METRICS.build(dict(type='NuScenesMetric', ann_file=str(root / INFO), data_root=str(root)))
    stock.dataset_meta = dict(classes=['car'], version='v1.0-mini')
    with pytest.raises(UnsafeFileError, match=REFUSED.format('.*')):
        stock.compute_metrics([])
    # Storage and formats other than a local pickle still work.
    infos = load(nano_infos_root / INFO)
    dump(infos, tmp_path / 'infos.json')
    for path, storage in ((tmp_path / 'infos.json', None), (nano_infos_root / INFO, dict(backend='local'))):
        assert load_infos(str(path), storage, 10)['data_list'][9]['token'] == infos['data_list'][9]['token']


def test_doctor_and_undistortion(repo, planted, tmp_path, capsys):
    root, _ = planted
    doctor = command(repo, 'calibration_doctor')
    for data in (root, root / INFO):
        arguments = doctor.parse_args([str(data)])
        with pytest.raises(SystemExit) as stopped:
            run_cli(partial(doctor.main, arguments))
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and '.pkl: was refused' in said and '--trust-files' in said
    with pytest.raises(UserError, match=REFUSED.format(r'.*\.pkl')):
        _rewrite_infos(root, tmp_path, Plan({}, {}, {}))


def test_files_of_the_studies(tmp_path):
    marker, folder = tmp_path / 'ran', tmp_path / 'seed0'
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={'a': torch.ones(1)}, note=Payload(marker)), evil)
    features = dict(bev=torch.zeros(1), observed=torch.zeros(1), samples=[[Payload(marker)]], scenes={})
    torch.save(features, tmp_path / 'features.pt')
    with pytest.raises(UserError, match=REFUSED.format(r'.*features\.pt') + '.*remove it'):
        read_cache(tmp_path / 'features.pt')
    for part in ('pretrain', 'plain_detector'):
        (folder / part).mkdir(parents=True)
        for name in ('done', 'last_checkpoint'):
            (folder / part / name).write_text(f'{evil}\n')
    for resume in (lambda: pretrain([tmp_path], folder, 0), lambda: train_plain(tmp_path, folder, 0)):
        with pytest.raises(UserError, match=REFUSED.format(r'.*evil\.pth')):
            resume()
    assert not marker.exists()


def test_trusted_files_are_read(planted, monkeypatch):
    root, marker = planted
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    init_registry()
    dataset = DATASETS.build(dict(type='SeededNuScenesDataset', data_root=str(root), ann_file=INFO, pipeline=[], test_mode=True,
                                  data_prefix=dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP')))
    assert len(dataset) == 10 and marker.is_dir()
    shutil.rmtree(marker)
