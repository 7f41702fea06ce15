"""Every config builds its model and its pipelines, tiny ones compute; ours equal mmdet3d's where they carry its names."""

import copy
import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import mmdet3d
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATA_SAMPLERS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from projects.geometry import BEVGrid
from projects.memfusion.detectors.grid_config import fill_grid
from projects.memfusion.runtime import check_run
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.camera_frame import CameraFrame
from projects.memfusion.structures.image_labels import ImageLabels

REPO = Path(__file__).resolve().parents[2]
ALL_LEAVES = sorted(str(p.relative_to(REPO)) for p in (REPO / 'configs').rglob('*.py') if '_base_' not in p.parts)
LEAVES = [path for path in ALL_LEAVES if not path.startswith(('configs/spatial_mllm/', 'configs/forecasting/'))]
"""Of detectors. Those of the video language model need a checkpoint folder: tests/unit/spatial_mllm/test_training.py. Those
that forecast take clips with agents: tests/integration/test_forecasting.py."""


@functools.cache
def load(path):
    """A config, and its whole content as text, which says whether two are the same. Do not change it."""
    config = Config.fromfile(REPO / path)
    return config, as_text(config.to_dict())


def as_text(value):
    return json.dumps(value, sort_keys=True, default=repr)


@pytest.fixture(scope='module')
def once():
    """Whether a check is still to be made: what many leaves share is built once."""
    done = set()

    def is_new(*key):
        fresh = key not in done
        done.add(key)
        return fresh

    return is_new


@pytest.mark.parametrize('path', LEAVES)
def test_config_builds(path, once, small_clip):
    cfg, _ = load(path)
    assert [check_run(cfg, phase) for phase in ('train', 'val', 'test') if f'{phase}_dataloader' in cfg] in ([[]] * 3, [])
    if once('model', as_text(cfg.model.to_dict())):
        check_model(copy.deepcopy(cfg.model), small_clip if 'tiny' in path else None)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        for step in dataset.pipeline:  # SeededObjectSample reads the GT database when built
            if step['type'] != 'SeededObjectSample' and once('step', as_text(step)):
                TRANSFORMS.build(copy.deepcopy(step))
        assert DATA_SAMPLERS.get(loader.sampler.type) is not None
    for hook in [*cfg.get('custom_hooks', []), *cfg.get('default_hooks', {}).values()]:
        assert HOOKS.get(hook['type']) is not None, hook
    if 'val_evaluator' in cfg:
        evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
        assert all(METRICS.get(evaluator.type) is not None for evaluator in evaluators)


def check_model(model_cfg, small_clip):
    """Builds; a tiny one also looks at a clip, with larger cells and few boxes to suppress: the same modules, less to do."""
    if small_clip is None:
        assert sum(p.numel() for p in without_weights(model_cfg).parameters()) > 1e5
        return
    model_cfg.grid.voxel_size = [0.8, 0.8, 8.0]
    boxes = model_cfg.test_cfg.get('pts') or {}  # heads of our own have none
    boxes.update({key: 20 for key in ('nms_pre', 'pre_max_size') if key in boxes})
    torch.manual_seed(0)
    model = MODELS.build(model_cfg)
    assert sum(p.numel() for p in model.parameters()) > 1e5
    aligned = (model_cfg.get('temporal') or {}).get('align') == 'loader'
    data = model.data_preprocessor(small_clip(model_cfg.get('img_backbone') is not None, aligned), True)
    losses = model(**data, mode='loss')
    values = [value for loss in losses.values() for value in (loss if isinstance(loss, list) else [loss])]
    assert values and all(torch.isfinite(value).all() for value in values), losses
    assert sum(float(value.detach().sum()) for value in values) > 0
    assert any(value.requires_grad for value in values)


def without_weights(model_cfg):
    """A full-size model on the device that holds no numbers, which takes a tenth of the time; its preprocessor needs some."""
    preprocessor = model_cfg.pop('data_preprocessor')
    with torch.device('meta'):
        model = MODELS.build(model_cfg)
    if 'grid' in model_cfg:
        fill_grid(BEVGrid(**model_cfg.grid), data_preprocessor=preprocessor)
    MODELS.build(preprocessor)
    return model


@pytest.fixture(scope='module')
def small_clip():
    """small_clip(cameras, aligned): a collated clip of two frames, 300 points and a labelled box each, two small cameras."""

    def make(cameras, aligned):
        return pseudo_collate([[packed_frame(index, cameras, aligned) for index in range(2)]])

    return make


def packed_frame(index, cameras, aligned):
    generator = torch.Generator().manual_seed(index)
    pose = np.eye(4)
    pose[0, 3] = 2.0 * index
    sample = Det3DDataSample(metainfo=dict(
        sample_idx=index, sample_token=f'{index}', scene_token='scene', frame_index=index, is_scene_start=index == 0,
        is_scene_end=False, timestamp_s=1.5e9 + 0.5 * index, global_from_lidar=pose, bev_aug=np.eye(4), is_keyframe=True,
        frame_valid=True, clip_aligned=aligned, box_type_3d=LiDARInstance3DBoxes))
    boxes = torch.tensor([[8.0 - 2 * index, 4, -1.5, 4.6, 1.9, 1.7, 0.3, 4, 0]])
    sample.gt_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([0]),
                                          num_points=torch.tensor([index]))
    inputs = dict(points=torch.rand(300, 5, generator=generator) * torch.tensor([50.0, 50, 4, 255, 0.5])
                  - torch.tensor([25.0, 25, 3, 0, 0]))
    if cameras:
        inputs['cameras'] = CameraFrame(
            tuple(torch.randint(0, 256, (3, 32, 64), generator=generator, dtype=torch.uint8) for _ in range(2)), rig())
        labels = ImageLabels(torch.tensor([[5.0, 5, 30, 25]]), torch.tensor([0]), torch.tensor([12.0]),
                             torch.randint(0, 3, (32, 64), generator=generator).to(torch.uint8))
        sample.set_field((labels, labels), 'gt_img_labels')
    return dict(inputs=inputs, data_samples=sample)


def rig():
    """A camera that looks along the LiDAR's y and one that looks along its x."""
    ahead = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1], [0, 1, 0, 0], [0, 0, 0, 1]])
    aside = ahead @ np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Calibration.from_info({
        name: dict(cam2img=[[32.0, 0, 32], [0, 32, 16], [0, 0, 1]], lidar2cam=matrix, height=32, width=64)
        for name, matrix in dict(CAM_FRONT=ahead, CAM_FRONT_RIGHT=aside).items()})


def test_every_leaf_says_something_that_its_parent_does_not():
    silent = []
    for path in ALL_LEAVES:
        base = re.search(r"^_base_ = '(.+)'$", (REPO / path).read_text(), re.MULTILINE)
        parent = base and (REPO / path).parent.joinpath(base[1]).resolve().relative_to(REPO)
        if parent and str(parent) in ALL_LEAVES and load(path)[1] == load(str(parent))[1]:
            silent.append(f'{path} equals {parent}')
    assert silent == []


@pytest.mark.parametrize('path', ALL_LEAVES)
def test_leaves_are_short_deltas(path):
    assert len((REPO / path).read_text().splitlines()) <= 40


@pytest.mark.parametrize('path', [p for p in LEAVES if p.startswith('configs/query/') and p.endswith('nus-3d.py')])
def test_query_detectors_train_as_their_names_say(path):
    gpus, samples, epochs = map(int, re.search(r'_(\d+)xb(\d+)-\w+-(\d+)e_', path).groups())
    cfg, _ = load(path)
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (samples, epochs)
    assert cfg.auto_scale_lr.base_batch_size == gpus * samples
    assert cfg.param_scheduler[-1].end == epochs


def test_query_detectors_with_lidar_start_from_the_encoders_that_they_name():
    start = 'configs/fusion/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
    stored = without_weights(copy.deepcopy(load(start)[0].model)).state_dict()
    leaves = [path for path in LEAVES if path.startswith('configs/query/') and Path(start).stem in (REPO / path).read_text()]
    for path in leaves:
        cfg, checkpoint = load(path)[0], dict(state_dict=dict(stored))
        hooks = [HOOKS.build(copy.deepcopy(hook)) for hook in cfg.custom_hooks if hook['type'] == 'FreshSlotsHook']
        for hook in hooks:
            hook.after_load_checkpoint(SimpleNamespace(_may_lack_slots=False), checkpoint)
            assert len(checkpoint['state_dict']) == len(stored)  # testing and resuming
            hook.after_load_checkpoint(SimpleNamespace(_may_lack_slots=True), checkpoint)
        given = checkpoint['state_dict']
        slots = {key.split('.')[0] for key in given}
        own = {key: value.shape for key, value in without_weights(copy.deepcopy(cfg.model)).state_dict().items()
               if key.split('.')[0] in slots}
        assert {'pts_voxel_encoder', 'pts_backbone', 'pts_neck'} <= slots
        assert {key: value.shape for key, value in given.items()} == own, path
    assert len(leaves) == 4


@pytest.mark.parametrize('name', [p for p in LEAVES if p.startswith('configs/lidar/') and p.endswith('nus-3d.py')])
def test_published_baselines_are_mmdet3ds_own(name):
    stem = name.rsplit('/', 1)[1]
    ours, _ = load(name)
    folder = 'centerpoint' if stem.startswith('centerpoint') else 'pointpillars'
    theirs = Config.fromfile(_mmdet3d_config(f'{folder}/{stem}'))
    mine, reference = ours.model.to_dict(), theirs.model.to_dict()
    # Subclasses of mmdet3d's that give the same, on a CPU too or without making a GPU wait.
    ours_for = dict(SparseEncoder='PortableSparseEncoder', PointPillarsScatter='BatchedPillarsScatter')
    published = reference['pts_middle_encoder'].pop('type')
    assert mine['pts_middle_encoder'].pop('type') in (published, ours_for[published])
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
