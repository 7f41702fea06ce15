"""A detector small enough to step through whole scenes: 32 x 32 BEV cells of 1.6 m, 16 x 16 memory cells."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from small_models import NARROW, SMALL

CONFIG = 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
ANCHOR_CONFIG = 'configs/temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
SMALL_ANCHORS = dict(
    **NARROW, pts_bbox_head=dict(in_channels=24, feat_channels=24),
    test_cfg=dict(pts=dict(score_thr=0.0, nms_pre=40, max_num=10)))
MEMORY = dict(network=dict(in_channels=24, key_dim=8, value_dim=8, hidden_dim=8, feature_dim=16), alpha=1.0)


def read_model(path, changes):
    """The model of a config with small widths."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet3d')
    config = Config.fromfile(path)
    config.merge_from_dict(dict(model=changes))
    return config.model


@pytest.fixture(scope='session')
def demo_model(repo):
    """The demo's model config with small widths."""
    return read_model(repo / CONFIG, SMALL)


@pytest.fixture(scope='session')
def anchor_model(repo):
    """The same with mmdet3d's Anchor3DHead."""
    return read_model(repo / ANCHOR_CONFIG, SMALL_ANCHORS)


@pytest.fixture(scope='session')
def small_detector(demo_model):
    """small_detector(temporal, train_cfg, test_cfg): reproducible weights, none of which is zero; in eval mode.

    `temporal` are settings of TemporalMemory, or a whole config with its type; None is the plain detector.
    """
    return functools.partial(make_detector, demo_model)


@pytest.fixture(scope='session')
def anchor_detector(anchor_model):
    """anchor_detector(temporal, train_cfg, test_cfg): as small_detector, with anchors."""
    return functools.partial(make_detector, anchor_model)


def make_detector(model_config, temporal=(), train_cfg=(), test_cfg=(), random_memory=True):
    from mmdet3d.registry import MODELS
    from mmengine.config import ConfigDict
    cfg = copy.deepcopy(model_config)
    if temporal is None:
        cfg.pop('temporal')
    elif 'type' in dict(temporal):
        cfg.temporal = ConfigDict(temporal)
    else:
        merged = ConfigDict(copy.deepcopy(MEMORY))
        for key, value in dict(temporal).items():
            if key == 'network':
                merged.network.update(value)
            else:
                merged[key] = value
        base = cfg.temporal
        network = {**base.network, **merged.pop('network')}
        readout = merged.pop('readout', dict(type='ResidualReadout'))
        cfg.temporal = ConfigDict({**base, **merged, 'network': network, 'readout': readout})
    cfg.train_cfg.update(dict(train_cfg))
    cfg.test_cfg.update(dict(test_cfg))
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(model.state_dict().items()):  # also BatchNorm statistics and zero biases
        if value.dtype.is_floating_point and 'log_locality' not in name and ('temporal' not in name or random_memory):
            noise = torch.rand(value.shape, generator=generator) * 0.2
            value.add_(noise if 'var' in name else noise - 0.1)
    return model.eval()


@pytest.fixture(scope='session')
def collated():
    """collated(model, clips, training): what the model takes; clips are B lists of T packed frames."""
    from mmengine.dataset import pseudo_collate

    def run(model, clips, training=False):
        return model.data_preprocessor(pseudo_collate(copy.deepcopy(clips)), training)

    return run


@pytest.fixture(scope='session')
def predicted(collated):
    """predicted(model, clips): one call in testing -> (features that the head saw for the answer, samples)."""

    @torch.no_grad()
    def run(model, clips):
        seen = []
        hook = model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].clone()))
        samples = model(**collated(model, clips), mode='predict')
        hook.remove()
        return seen[-1], samples

    return run
