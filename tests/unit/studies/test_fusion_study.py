"""The fusion study: its arithmetic by hand, its stored path against the whole detector, one short row."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.studies.fusion import results, rows, run, train_row
from projects.studies.fusion.faults import result_path
from projects.studies.fusion.frames import FusedFrames, camera_dataset, join, load_or_encode
from projects.studies.fusion.report import write_report
from projects.studies.fusion.train_row import build_row, class_means
from projects.studies.memory import train_row as memory_train_row
from projects.studies.memory.cache import FeatureCache
from projects.studies.memory.report import BEGIN, END
from projects.studies.memory.rows import Budget

NAMES = ('car', 'bus', *rows.LOOKALIKES)


def scores_of(lookalike, other, boxes=10.0):
    """One world's scores: the look-alikes' AP, the others' AP."""
    found = dict(mAP=(lookalike + other) / 2, NDS=50.0)
    found.update({f'AP/{name}': lookalike if name in rows.LOOKALIKES else other for name in NAMES})
    found.update({f'boxes/{name}': boxes for name in NAMES})
    return {**found, **class_means(found)}


def faults_of(clean, worst, lidar_only):
    """One world's conditions: every wrong calibration and every false image scores `worst`."""
    scores = {condition.name: dict(mAP=worst, NDS=worst) for condition in results.CONDITIONS}
    scores['clean'] = dict(mAP=clean, NDS=clean)
    return dict(detector={}, scores=scores, lidar_only=dict(mAP=lidar_only, NDS=lidar_only))


@pytest.fixture
def finished(tmp_path):
    """Two seeds, two worlds: (out, roots). Look-alikes: LiDAR only 10 and 12, FuTr++ 40 and 44."""
    out, roots = tmp_path / 'out', [tmp_path / f'world{i}' for i in range(2)]
    for seed in (0, 1):
        for row, lookalike in ((rows.LIDAR_ONLY, 10 + 2 * seed), (rows.FUSED, 40 + 4 * seed)):
            path = out / f'seed{seed}' / f'{row}.json'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(worlds=[scores_of(lookalike - 1, 30.0), scores_of(lookalike + 1, 30.0)])))
        for root in roots:
            path = result_path(out / f'seed{seed}', rows.FUSED, root)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(faults_of(40.0 + seed, 19.0, 20.0)))
    return out, roots


def test_rows_come_in_table_order_and_unknown_ones_are_named():
    assert [row.name for row in rows.choose_rows([rows.FUSED, rows.LIDAR_ONLY])] == [rows.LIDAR_ONLY, rows.FUSED]
    with pytest.raises(UserError, match='fusion_none'):
        rows.choose_rows(['fusion_none'])


def test_means_of_classes():
    found = scores_of(10.0, 30.0)
    found.update({'AP/truck': 50.0, 'AP/bus': 0.0, 'boxes/bus': 0.0})
    assert class_means(found) == {'look-alikes': 20.0, 'others': 30.0}  # (50 + 3 x 10) / 4; no bus, no mean
    mean = results.average([dict(mAP=1.0, **{'boxes/car': 3.0}), dict(mAP=2.0, **{'boxes/car': 4.0})])
    assert mean == {'mAP': 1.5, 'boxes/car': 7.0}


def test_gains_are_paired_by_seed(finished):
    out, roots = finished
    table = results.read_rows(out, (0, 1))
    assert list(table) == [rows.LIDAR_ONLY, rows.FUSED]
    assert results.gain(table, rows.FUSED, rows.LIDAR_ONLY, 'look-alikes') == [30.0, 32.0]
    assert results.spread(table[rows.FUSED]['look-alikes']) == 4.0
    assert table[rows.FUSED]['boxes/truck'] == [20.0, 20.0]
    faults = results.average_seeds(results.read_faults(out, (0, 1), rows.FUSED, roots))
    assert faults['clean']['mAP'] == 40.5 and results.lowest(faults)[1] == -1.0
    # From 40.5 at 0 to 19 at the first level, 0.25 deg: 20 is reached after 20.5 of 21.5.
    assert results.break_even_of(faults, 'rotation_deg') == pytest.approx(0.25 * 20.5 / 21.5)
    result_path(out / 'seed1', rows.FUSED, roots[1]).unlink()
    assert results.read_faults(out, (0, 1), rows.FUSED, roots) == []


def test_report(finished, tmp_path):
    out, roots = finished
    doc = tmp_path / 'fusion.md'
    doc.write_text('no place')
    with pytest.raises(UserError, match='fusion.md'):
        write_report(out, (0, 1), roots, doc)
    doc.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n')
    write_report(out, (0, 1), roots, doc)
    text = doc.read_text()
    assert text.startswith(f'before\n{BEGIN}\n') and text.endswith(f'{END}\nafter\n') and 'old' not in text
    assert '| FuTr++ | 36.0 ± 1.0 | 50.0 ± 0.0 | 42.0 ± 2.0 |' in text
    assert '- FuTr++ over LiDAR only: +31.0 on the look-alikes (seeds: +30.0, +32.0; the rows themselves' in text
    assert 'differ by up to 4.0 between seeds), +0.0 on the others' in text
    assert '| rotation 2 deg | 19.0 | -1.0 |' in text and 'no worse than allowed' in text
    assert '+21.5 over images of another scene' in text and 'the cameras are used' in text
    assert (tmp_path / 'images' / 'fusion_noise.png').stat().st_size > 10_000
    with pytest.raises(UserError, match=rows.FUSED):
        write_report(out, (0, 1, 2), roots, doc)


def test_rows_train_the_same_parts_on_the_same_noise_but_one(repo):
    cfgs = {row.name: Config.fromfile(repo / row.config) for row in rows.ROWS}
    assert len({tuple(cfg.model.train_cfg.frozen) for cfg in cfgs.values()}) == 1
    noise = {name: [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'CalibrationNoise']
             for name, cfg in cfgs.items()}
    assert [len(steps) for steps in noise.values()] == [0, 1, 1, 1, 1]
    assert [steps[0].rotation_deg for steps in noise.values() if steps] == [0.5, 0.5, 0.5, 2.0]
    boxes = {name: (bool(cfg.model.get('task_heads')), 'ProjectImageBoxes' in [
        step['type'] for step in cfg.train_dataloader.dataset.pipeline]) for name, cfg in cfgs.items()}
    assert boxes.pop('fusion_futrpp_no-boxes') == boxes.pop(rows.LIDAR_ONLY) == (False, False)
    assert set(boxes.values()) == {(True, True)}


def test_worlds_are_joined_one_after_another():
    worlds = [FeatureCache(torch.full((2, n, 1, 1, 1), float(n)), torch.ones(2, n, 1, 1, 1, dtype=torch.bool),
                           [[f'{v}{n}{i}' for i in range(n)] for v in range(2)], {'s': list(range(n))}) for n in (2, 3)]
    joined = join(worlds)
    assert joined.bev[1].flatten().tolist() == [2, 2, 3, 3, 3] and joined.observed.shape[1] == 5
    assert joined.samples[1] == ['120', '121', '130', '131', '132']
    assert joined.scenes == {'0/s': [0, 1], '1/s': [2, 3, 4]}


@pytest.fixture(scope='module')
def study(repo, nano_infos_root, tmp_path_factory):
    """The nano world's features, made by an untrained LiDAR-only detector."""
    init_registry()
    folder = tmp_path_factory.mktemp('study')
    torch.manual_seed(0)
    cfg = run.load_row(repo / 'configs/study/fusion_lidar_only.py', nano_infos_root)
    from mmdet3d.registry import MODELS
    model = MODELS.build(cfg.model).eval()
    caches = [load_or_encode(folder / f'{n}.pt', model, loader.dataset, [nano_infos_root], n, 0)
              for n, loader in ((2, cfg.train_dataloader), (1, cfg.test_dataloader))]
    return run.Study([nano_infos_root], folder, 0, model.state_dict(), *caches)


@pytest.fixture
def fused(repo, study):
    """The row's model with a fusion layer that is no identity, and its config."""
    cfg = run.load_row(repo / 'configs/study/fusion_futrpp.py', study.roots[0])
    cfg.model.fusion_layer.select = dict(kind='all')  # a rounded feature may not choose another cell
    model = build_row(cfg, study.weights, study.folder, 0).eval()
    torch.nn.init.normal_(model.fusion_layer.sample.output.weight, std=0.3)
    return cfg, model


@torch.no_grad()
def test_stored_features_give_what_the_whole_detector_gives(study, fused):
    cfg, model = fused
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    data = model.data_preprocessor(pseudo_collate([dataset[2], dataset[7]]))
    whole = model.encode(data['inputs'])
    cameras = camera_dataset(cfg.test_dataloader.dataset, study.roots)
    clip, samples = FusedFrames(**vars(study.testing), model=model, cameras=cameras, seed=0).batch([0, 0], [2, 7])
    assert [s.sample_idx for s in samples] == [s.sample_idx for s in data['data_samples']]
    assert (clip.bev - whole.bev).abs().max() < 0.02  # half precision
    assert (clip.bev[:, 0] - study.testing.bev[0, [2, 7]].float()).abs().max() > 0.5  # and the images did something
    torch.testing.assert_close(clip.images.calibration.img_from_lidar, whole.images.calibration.img_from_lidar)


def test_the_rig_gets_the_augmentation_of_the_stored_features(study, fused):
    cfg, model = fused
    cameras = camera_dataset(cfg.train_dataloader.dataset, study.roots)
    frames = FusedFrames(**vars(study.training), model=model, cameras=cameras, seed=0)
    clip, samples = frames.batch([0, 1], [3, 3])
    expected = torch.stack([torch.as_tensor(sample.bev_aug) for sample in samples]).float()
    assert torch.equal(clip.images.calibration.bev_aug, expected) and not torch.equal(expected[0], expected[1])
    # The images' boxes come with the images; the stored samples stay as they are.
    assert len(samples[0].gt_img_labels) == 6 and 'gt_img_labels' not in study.training.samples[0][3]
    # Other draws in the next batch: flips, crops, calibration noise.
    again, _ = frames.batch([0, 1], [3, 3])
    assert not torch.equal(again.images.calibration.img_aug, clip.images.calibration.img_aug)


@pytest.mark.parametrize('name, trained', [
    (rows.LIDAR_ONLY, 'pts_bbox_head.shared_conv.conv.weight'), (rows.FUSED, 'fusion_layer.sample.output.weight')])
def test_a_short_row(study, monkeypatch, name, trained):
    monkeypatch.setattr(run, 'BUDGET', Budget(iterations=2, clips=2, variants=2))
    run.run_row(study, next(row for row in rows.ROWS if row.name == name))
    stored = json.loads((study.folder / f'{name}.json').read_text())
    assert {'mAP', 'NDS', 'look-alikes', 'others', 'AP/truck', 'boxes/truck'} <= stored['worlds'][0].keys()
    weights = torch.load(study.folder / f'{name}.pth', weights_only=True)['state_dict']
    key = 'pts_backbone.blocks.0.0.weight'
    assert torch.equal(weights[key], study.weights[key])
    before = study.weights.get(trained, torch.zeros_like(weights[trained]))  # the fusion layer's output starts at zero
    assert not torch.equal(weights[trained], before)


def test_model_and_batches_go_to_the_device(study, repo, monkeypatch):
    """'meta' stands in for a GPU: what stays behind is seen by its device. What is stored stays on the host."""
    cfg = run.load_row(repo / 'configs/study/fusion_lidar_only.py', study.roots[0])
    weights, training = study.weights, study.training
    for module, arguments in ((train_row, (cfg, weights, study.folder, 0)), (memory_train_row, (cfg, weights, 0))):
        monkeypatch.setattr(module, 'get_device', lambda: 'meta')
        model = module.build_row(*arguments)
        assert {value.device.type for value in model.state_dict().values()} == {'meta'}
    device = model.data_preprocessor.device
    assert device.type == 'meta'
    single = replace(training, scenes={key.split('/')[1]: value for key, value in training.scenes.items()})  # of one world
    for frames, length in ((single, 2), (FusedFrames(**vars(training), model=model, cameras=None, seed=0), 1)):
        clip, samples = frames.batch([0, 1], [3, 4], length, device)
        assert {tensor.device.type for tensor in (clip.bev, clip.observed)} == {'meta'}
        assert len(samples) == 2 * length
        for sample in samples:
            assert sample.gt_instances_3d.bboxes_3d.tensor.device.type == 'meta'
            assert sample.gt_instances_3d.labels_3d.device.type == 'meta'
    assert training.bev.device.type == training.samples[0][3].gt_instances_3d.labels_3d.device.type == 'cpu'
