"""Detectors of few weights on the nano world, with random weights that find boxes; one of them exported."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from small_models import CAMERAS, MEMORY, NARROW, SMALL
from tool_mains import main_of

from projects.memfusion.runtime import init_registry, prepare_config

CLASSES = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
           'traffic_cone']
FINDS = dict(
    pts_bbox_head=dict(tasks=[dict(num_class=10, class_names=CLASSES)], bbox_coder=dict(score_threshold=0.1)),
    test_cfg=dict(pts=dict(pre_max_size=100, post_max_size=30)))
"""One task, since a graph takes as long to export as it has nodes."""
QUERIES = dict(
    img_backbone=CAMERAS['img_backbone'], img_neck=CAMERAS['img_neck'],
    pts_bbox_head=dict(inputs=dict(img_channels=16, bev_channels=24), decode_cfg=dict(max_num=40), transformer=dict(
        dim=32, num_queries=30, num_heads=2, ffn_dim=32, branch_dim=8)))


@pytest.fixture(scope='session')
def made(repo: Path, nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory):
    """made(leaf of configs without what all have in common, **changes of the model) -> paths of a config and a checkpoint."""
    folder = tmp_path_factory.mktemp('exported')

    def make(leaf: str, **changes) -> tuple[Path, Path]:
        from mmdet3d.registry import MODELS
        init_registry()
        config = folder / f'{len(list(folder.iterdir()))}.py'
        cfg = prepare_config(repo / f'configs/{leaf}pillar04_second_secfpn_tiny-synthetic.py')
        narrow = [NARROW, QUERIES] if 'query' in leaf else [SMALL, FINDS]
        narrow += [CAMERAS] if 'fusion' in leaf else [MEMORY] if 'xmem' in leaf else []
        for part in (*narrow, changes):
            cfg.merge_from_dict(dict(model=part))
        cfg.test_dataloader.dataset.data_root = f'{nano_infos_root}/'
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for evaluator in evaluators:  # whose files are looked for where the demo's data are there, too
            evaluator.update(data_root=f'{nano_infos_root}/', ann_file=f'{nano_infos_root}/nuscenes_infos_val.pkl')
        cfg.dump(config)
        torch.manual_seed(0)
        detector = MODELS.build(cfg.model)
        generator = torch.Generator().manual_seed(1)
        for name, value in sorted(detector.state_dict().items()):  # also what starts at zero
            if value.dtype.is_floating_point and 'log_' not in name and 'reference_points' not in name:
                noise = torch.rand(value.shape, generator=generator) * 0.2
                value.add_(noise if 'var' in name else noise - 0.1)
        if 'query' not in leaf:
            for task in detector.pts_bbox_head.task_heads:
                task.heatmap[-1].bias.data.fill_(-2.0)
        checkpoint = config.with_suffix('.pth')
        torch.save(dict(state_dict=detector.state_dict()), checkpoint)
        return config, checkpoint

    return make


@pytest.fixture(scope='session')
def copying(made, tmp_path_factory) -> tuple[Path, dict]:
    """The copying memory with all that the full configs give it, exported: folder and what export.json says."""
    config, checkpoint = made('temporal/copy_', pts_bbox_head=dict(seen_weight=1.0), temporal=dict(
        in_channels=24, value_dim=8, mix_dim=8, num_slots=2, long_term=True))
    folder = tmp_path_factory.mktemp('graphs')
    with contextlib.redirect_stdout(io.StringIO()):
        main_of('export')([config, checkpoint, '--out', folder, '--save-frames'])
    return folder, json.loads((folder / 'export.json').read_text())
