"""Forecasting on the nano forecast world: configs, training, resuming, two processes, the tool that tests and draws."""

from __future__ import annotations

import copy
import json
import multiprocessing
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forecast_agents import permuted
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from projects.geometry import Surroundings
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.forecasting import AgentPooling, bev_masks, image_masks
from projects.memfusion.metrics.forecast_baselines import read_submission
from projects.memfusion.runtime.run_checks import check_run
from projects.memfusion.runtime.runner import MemFusionRunner

from .conftest import largest_difference, load

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'forecasting'
LEAVES = sorted(path.name for path in CONFIGS.glob('*.py'))
LIGHT, SHARED = 'xmem-bev_masked-m5_tiny-synthetic.py', 'shared-all_pillar04_tiny-synthetic.py'


def nano(leaf: str, root: Path, folder: Path) -> Config:
    """The leaf, smaller, on the nano world: two epochs in batches of two clips."""
    cfg = Config.fromfile(CONFIGS / leaf)
    for phase in ('train', 'val', 'test'):
        loader = cfg[f'{phase}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{root}/'
        for step in loader.dataset.pipeline:
            if step.type == 'RasterizePoints':
                step.shape = (64, 64)
            if step.type == 'ResizeImages':
                step.width = 64
    for evaluator in (one for phase in ('val', 'test') for one in (
            cfg[f'{phase}_evaluator'] if isinstance(cfg[f'{phase}_evaluator'], list) else [cfg[f'{phase}_evaluator']])):
        evaluator.update(data_root=f'{root}/', off_road=False, split='val')
        if 'strata' in evaluator:
            evaluator.strata = f'{root}/maps/prediction/maneuvers.json'
    cfg.val_dataloader.dataset.update(split='val', ann_file='nuscenes_infos_val.pkl')
    cfg.train_dataloader.batch_size = 2
    if leaf == LIGHT:
        cfg.model.features.stream.network.update(feature_dim=8, key_dim=4, value_dim=8, hidden_dim=8)
    for model in (cfg.model, (cfg.model.get('features') or {}).get('detector', {})):
        if 'grid' in model:
            model.grid.voxel_size = [1.6, 1.6, 8.0]
    cfg.train_cfg.update(max_epochs=2, val_interval=99)
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True)]
    cfg.default_hooks.checkpoint.update(save_best=None, max_keep_ckpts=-1)
    cfg.default_hooks.logger.interval = 1
    cfg.work_dir, cfg.log_level = str(folder), 'ERROR'
    return cfg


@pytest.mark.parametrize('leaf', LEAVES)
def test_configs_build_and_their_parts_agree(leaf: str) -> None:
    cfg = Config.fromfile(CONFIGS / leaf)
    assert [check_run(cfg, phase) for phase in ('train', 'val', 'test')] == [[]] * 3
    preprocessor = cfg.model.pop('data_preprocessor')
    init_default_scope('mmdet3d')
    if 'grid' not in cfg.model:
        MODELS.build(preprocessor)
        with torch.device('meta'):
            assert sum(parameter.numel() for parameter in MODELS.build(cfg.model).parameters()) > 1e5


@pytest.fixture(scope='module')
def trained(forecast_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the light forecaster's checkpoints."""
    folder = tmp_path_factory.mktemp('light')
    cfg = nano(LIGHT, forecast_root, folder)
    MemFusionRunner.from_cfg(cfg).train()
    cfg.dump(folder / 'config.py')
    return folder


def test_it_learns_and_a_resumed_run_is_the_run_that_was_not_interrupted(forecast_root, trained, tmp_path) -> None:
    cfg = nano(LIGHT, forecast_root, tmp_path)
    cfg.update(resume=True, load_from=str(trained / 'epoch_1.pth'), experiment_name='resumed_forecast')
    MemFusionRunner.from_cfg(cfg).train()
    first, whole, resumed = load(trained / 'epoch_1.pth'), load(trained / 'epoch_2.pth'), load(tmp_path / 'epoch_2.pth')
    assert largest_difference(whole, resumed) == 0
    learned = ('head.embed.weight', 'features.stream.network.value_encoder.shortcut.weight')
    assert all(not torch.equal(first[name], whole[name]) for name in learned)


def test_the_tool_scores_draws_and_writes_a_submission(run, forecast_root, trained, tmp_path) -> None:
    pictures = tmp_path / 'pictures'
    run('tools/test.py', trained / 'config.py', trained / 'epoch_2.pth', '--work-dir', tmp_path, '--show-dir', pictures,
        '--cfg-options', f'test_evaluator.submission={tmp_path}/submission.json', 'default_hooks.visualization.max_samples=1')
    scores = json.loads(next(tmp_path.glob('2*/2*.json')).read_text())
    assert 0 < scores['forecast/minADE_5'] < scores['forecast/ConstantVelocityHeading/minADE_5'] * 1.5
    assert scores['forecast/PhysicsOracle/minADE_5'] <= scores['forecast/ConstantVelocityHeading/minADE_5']
    assert 'forecast/brake/minFDE_1' in scores or 'forecast/keep/minFDE_1' in scores
    read = read_submission(tmp_path / 'submission.json')
    assert len(read) > 10 and read[0].prediction.shape == (5, 12, 2)
    assert len(list(pictures.glob('*_futures.png'))) == len(list(pictures.glob('*_futures_camera.png'))) == 1


def gradients(model, clips, wrapped=None):
    """{parameter: gradient} of a batch of clips."""
    data = model.data_preprocessor(pseudo_collate(clips), True)
    loss, _ = model.parse_losses((wrapped or model)(**data, mode='loss'))
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def run_rank(rank, port, models, clips, folder):
    """One of two processes, with one clip of each batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    found = {}
    for name, model in models.items():
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=False)
        found[name] = gradients(model, clips[name][rank:rank + 1], wrapped)
    torch.save(found, folder / f'{rank}.pth')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_with_one_clip_have_the_gradients_of_one_with_both(forecast_root, tmp_path) -> None:
    """Of a forecaster, and of a detector that forecasts beside; the clips have different counts of agents."""
    init_default_scope('mmdet3d')
    models, clips = {}, {}
    for leaf in (LIGHT, SHARED):
        cfg = nano(leaf, forecast_root, tmp_path)
        torch.manual_seed(0)
        if leaf == SHARED:
            cfg.model.task_heads.forecast.unknown_past = 0.0  # each process would draw its own
        model = MODELS.build(cfg.model).train()
        head = model.head if leaf == LIGHT else model.task_heads['forecast'].head
        torch.nn.init.normal_(head.decode[2].weight, std=0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        models[leaf], clips[leaf] = model, [dataset[0], dataset[len(dataset) - 1]]
        few = clips[leaf][1][-1]['inputs']
        few['agents'] = permuted(few['agents'], [2, 0])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')
    ranks = [context.Process(target=run_rank, args=(rank, port, models, clips, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(600)
        assert rank.exitcode == 0
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    for leaf, model in models.items():
        one = gradients(copy.deepcopy(model), clips[leaf])
        assert largest_difference(first[leaf], second[leaf]) == 0
        largest = max(value.abs().max() for value in one.values())
        for name, value in one.items():
            assert (value - first[leaf][name]).abs().max() < 1e-3 * value.abs().max() + 1e-6 * largest, (leaf, name)


def of_a_detector(leaf: str, root: Path, folder: Path):
    """A forecaster from a detector's features, and inputs and agents of one clip."""
    init_default_scope('mmdet3d')
    cfg = nano(leaf, root, folder)
    del cfg.model.features.detector['init_cfg']
    cfg.model.data_preprocessor.voxel_layer.voxel_size = [1.6, 1.6, 8.0]
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(pseudo_collate([DATASETS.build(cfg.test_dataloader.dataset)[0]]))
    return model, {**data['inputs'], 'data_samples': data['data_samples']}, data['inputs']['agents']


@torch.no_grad()
def test_xmem_follows_agents_through_a_camera(forecast_root, tmp_path) -> None:
    init_default_scope('mmdet3d')
    cfg = nano('xmem-camera_masked-m5_tiny-synthetic.py', forecast_root, tmp_path)
    cfg.model.features.stream.network.update(bev_shape=(64, 64), key_dim=8, value_dim=16, hidden_dim=8)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    data = model.data_preprocessor(pseudo_collate([dataset[len(dataset) - 1]]))  # the first has no past
    inputs, agents = data['inputs'], data['inputs']['agents']
    features, flags = model.features(inputs, agents)
    where = image_masks(agents, inputs['calibration'], 0, (64, 64))
    # by the raw calibration, a frame and agent at a time: the middle of a box that the camera sees lies in its mask
    middles = agents.boxes[0].transpose(0, 1).float()[..., :3]
    middles[..., 2] += agents.boxes[0].transpose(0, 1)[..., 5].float() / 2
    pixels, _, seen = inputs['calibration'].project(middles)
    seen = seen[:, 0] & where.there[0]
    assert seen.any() and not seen.all()
    for t, agent in seen.nonzero().tolist():
        column, row = pixels[t, 0, agent].floor().long().tolist()
        assert where.masks[0, t, agent, row, column] == 1 and flags[0, agent, t] == 1
    sizes = where.masks[0].sum(dim=(-2, -1))
    assert not sizes[~where.there[0]].any() and sizes.max() < 64 * 64 / 2
    assert features.isfinite().all() and torch.equal(flags[0].T > 0, sizes > 0)


@torch.no_grad()
def test_a_detectors_own_memory_is_looked_at_under_each_agent(forecast_root, tmp_path) -> None:
    model, inputs, agents = of_a_detector('detector-memory_masked-m5_tiny-synthetic.py', forecast_root, tmp_path)
    source, detector = model.eval().features, model.features.detector
    features, flags = source(inputs, agents)
    clip = detector.encode(inputs)
    state = detector.temporal.init_state(clip.at(0))
    for t, frames in enumerate(detector.steps_of(clip, inputs['data_samples'])):
        state = detector.step(clip.at(t), state, frames).state
    where = bev_masks(agents, detector.grid.point_cloud_range, tuple(clip.bev.shape[-2:]))
    agent = int(where.masks[0, -1].sum(dim=(-2, -1)).argmax())
    share = torch.nn.functional.adaptive_avg_pool2d(where.masks[0, -1, agent][None], state.sensory.shape[-2:])
    expected = (state.sensory[0, 0] * share).sum(dim=(-2, -1)) / share.sum()
    assert torch.allclose(features[0, agent, -1], expected, atol=1e-5) and flags[0, agent, -1] == 1
    assert not torch.allclose(features[0, agent, -1], features[0, agent, -2], atol=1e-5)

    pooling, width = source.pooling, features.shape[-1]
    source.pooling = AgentPooling('around', width, Surroundings((6.0,), (0.0,)))
    both, _ = source(inputs, agents)
    x, y, *_, yaw = agents.boxes[0, agent, -1]
    ahead = torch.stack([x + 6 * yaw.cos(), y + 6 * yaw.sin()]).float() / 51.2
    there = torch.nn.functional.grid_sample(state.sensory[0, :1], ahead.view(1, 1, 1, 2), align_corners=False)
    assert torch.equal(both[..., :width], features) and torch.allclose(both[0, agent, -1, width:], there.flatten(), atol=1e-5)
    source.pooling = pooling

    calls = []

    def head(found):
        def answer(seen, readout, truth):
            calls.append(len(calls))
            boxes = agents.boxes[0, :, calls[-1] % 5].float()
            there = agents.history_valid[0, :, calls[-1] % 5] if found else torch.zeros(boxes.shape[0], dtype=torch.bool)
            boxes = torch.nn.functional.pad(boxes[there], (0, 2))
            one = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), scores_3d=torch.rand(len(boxes)))
            return SimpleNamespace(found=[one])
        return answer

    source.agents_from = 'detections'
    detector.head = head(found=True)
    assert torch.allclose(source(inputs, agents)[0], features, atol=1e-5)
    detector.head = head(found=False)
    assert not source(inputs, agents)[1].any()


@torch.no_grad()
def test_an_agent_has_the_query_that_lies_nearest(forecast_root, tmp_path) -> None:
    model, inputs, agents = of_a_detector('queries_m5_tiny-synthetic.py', forecast_root, tmp_path)
    source = model.eval().features
    source.pooling.match_m = 12.0  # untrained queries lie anywhere
    features, flags = source(inputs, agents)
    detector, memory = source.detector, source.detector.temporal
    clip, offered = detector.encode(inputs), []
    state = memory.init_state(clip.at(0))
    for t, frames in enumerate(detector.steps_of(clip, inputs['data_samples'])):
        out = detector.step(clip.at(t), state, frames)
        state = out.state
        offered.append(out.outputs.raw.carried)
    some = 0
    for agent, t in agents.history_valid[0].nonzero().tolist():  # one after the other, by what the head itself offered
        best = offered[t].scores[0].topk(memory.num_kept).indices
        far = (offered[t].references_m[0, best, :2].double() - agents.boxes[0, agent, t, :2]).norm(dim=-1)
        near = float(far.min()) <= source.pooling.match_m
        some += near
        expected = offered[t].embeddings[0, best[far.argmin()]] * near
        assert flags[0, agent, t] == near and torch.allclose(features[0, agent, t], expected, atol=1e-6)
    assert 0 < some < int(agents.history_valid.sum()) and not flags[~agents.history_valid].any()
    other = dict(Config.fromfile(CONFIGS / 'detector-memory_masked-m5_tiny-synthetic.py').model.features.detector)
    del other['init_cfg']
    with pytest.raises(ValueError, match=r'detector\.temporal must hand on queries'):
        MODELS.build(dict(type='QueryAgentFeatures', detector=other))


def test_a_detector_of_another_memory_is_refused(forecast_root, tmp_path) -> None:
    model, _, _ = of_a_detector('detector-memory_masked-m5_tiny-synthetic.py', forecast_root, tmp_path)
    detector = model.features.detector
    state = {name.replace('temporal.network.', 'temporal.value.'): value for name, value in detector.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'other.pth')
    detector.init_cfg, detector._is_init = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth')), False
    with pytest.raises(ValueError, match='another temporal module than this config builds'):
        model.features.init_weights()


def test_a_memory_of_the_agents_streams_over_a_detectors_features(forecast_root, tmp_path) -> None:
    model, inputs, agents = of_a_detector('detector-bev_masked-m5_tiny-synthetic.py', forecast_root, tmp_path)
    model.train()
    assert not model.features.detector.training and model.features.stream.training
    samples = inputs.pop('data_samples')
    torch.nn.init.normal_(model.head.decode[2].weight, std=0.05)
    sum(model(inputs, samples, mode='loss').values()).backward()
    assert all(parameter.grad is None for parameter in model.features.detector.parameters())
    assert all(parameter.grad is not None for parameter in model.features.stream.parameters())


@torch.no_grad()
def test_a_detector_forecasts_what_it_found(forecast_root, tmp_path) -> None:
    init_default_scope('mmdet3d')
    cfg = nano(SHARED, forecast_root, tmp_path)
    model = MODELS.build(cfg.model).eval()
    clip = DATASETS.build(cfg.test_dataloader.dataset)[0]
    agents = clip[-1]['inputs']['agents']
    sample, = model(**model.data_preprocessor(pseudo_collate([clip])), mode='predict')
    assert sample.pred_futures.tokens == agents.tokens[0] and sample.pred_futures.global_xy.isfinite().all()
    assert set(sample.get('pred_detected_futures').tokens) <= set(agents.tokens[0])
