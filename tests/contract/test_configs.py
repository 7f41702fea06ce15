"""Every config builds its model and its pipelines; ours equal mmdet3d's where they carry its names."""

from pathlib import Path

import mmdet3d
import pytest
from mmdet3d.registry import DATA_SAMPLERS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.memfusion.runtime import check_run

REPO = Path(__file__).resolve().parents[2]
LEAVES = sorted(str(p.relative_to(REPO)) for p in (REPO / 'configs').rglob('*.py') if '_base_' not in p.parts)


@pytest.mark.parametrize('path', LEAVES)
def test_config_builds(path):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(REPO / path)
    assert [check_run(cfg, phase) for phase in ('train', 'val', 'test') if f'{phase}_dataloader' in cfg] in ([[]] * 3, [])
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        for step in dataset.pipeline:
            if step['type'] == 'SeededObjectSample':  # reads the GT database when built
                continue
            TRANSFORMS.build(step)
        assert DATA_SAMPLERS.get(loader.sampler.type) is not None
    for hook in [*cfg.get('custom_hooks', []), *cfg.get('default_hooks', {}).values()]:
        assert HOOKS.get(hook['type']) is not None, hook
    if 'val_evaluator' in cfg:
        evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
        assert all(METRICS.get(evaluator.type) is not None for evaluator in evaluators)


@pytest.mark.parametrize('path', LEAVES)
def test_leaves_are_short_deltas(path):
    assert len((REPO / path).read_text().splitlines()) <= 40


@pytest.mark.parametrize('name', [p for p in LEAVES if p.startswith('configs/lidar/') and p.endswith('nus-3d.py')])
def test_published_baselines_are_mmdet3ds_own(name):
    stem = name.rsplit('/', 1)[1]
    ours = Config.fromfile(REPO / name)
    folder = 'centerpoint' if stem.startswith('centerpoint') else 'pointpillars'
    theirs = Config.fromfile(_mmdet3d_config(f'{folder}/{stem}'))
    mine, reference = ours.model.to_dict(), theirs.model.to_dict()
    # Subclasses of mmdet3d's that give the same, on a CPU too or without making a GPU wait.
    ours_for = dict(SparseEncoder='PortableSparseEncoder', PointPillarsScatter='BatchedPillarsScatter')
    assert mine['pts_middle_encoder'].pop('type') == ours_for[reference['pts_middle_encoder'].pop('type')]
    assert _plain(mine) == _plain(reference)
    for key in ('optim_wrapper', 'param_scheduler', 'auto_scale_lr'):
        assert _plain(ours[key]) == _plain(theirs[key]), key
    assert ours.train_cfg.max_epochs == theirs.train_cfg.max_epochs
    assert ours.class_names == theirs.class_names
    # The pipelines are theirs but for our loaders.
    renamed = {'LoadLidarPoints': 'LoadPointsFromFile', 'LoadLidarSweeps': 'LoadPointsFromMultiSweeps',
               'SeededObjectSample': 'ObjectSample'}
    for mine, reference in zip(ours.train_pipeline, theirs.train_pipeline, strict=True):
        mine, reference = mine.to_dict(), reference.to_dict()
        mine['type'] = renamed.get(mine['type'], mine['type'])
        assert _plain(mine) == _plain(reference)


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in ('backend_args', '_scope_')}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _mmdet3d_config(name):
    return Path(mmdet3d.__file__).parent / '.mim' / 'configs' / name
