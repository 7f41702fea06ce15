"""Small temporal modules and time steps made by hand: 8 x 12 BEV cells of 1 x 1 m, 2 x 2 of them to a memory cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.memfusion.structures import FrameBatch, FrameMeta, HeadOutputs, SceneFeatures, SceneTruth

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)


@pytest.fixture(scope='session', autouse=True)
def registered():
    """The registries know the project's modules."""
    from mmengine.registry import init_default_scope

    import projects.memfusion.register  # noqa: F401
    init_default_scope('mmdet3d')


@pytest.fixture(scope='session')
def pose():
    """pose(x, y, yaw): (4, 4) float64."""

    def make(x=0.0, y=0.0, yaw=0.0):
        matrix = np.eye(4)
        matrix[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        matrix[:2, 3] = [x, y]
        return matrix

    return make


@pytest.fixture(scope='session')
def frame():
    """frame(index, poses, ...): a time step; one pose for each of B scenes."""

    def make(index, poses, starts=None, valid=True, aug=None, gap_s=0.5, labelled=True):
        poses = [poses] if isinstance(poses, np.ndarray) else poses
        starts = [index == 0] * len(poses) if starts is None else starts
        metas = [FrameMeta(
            sample_token=f'{b}-{index}', scene_token=f'scene{b}', frame_index=index, is_scene_start=start,
            is_scene_end=False, timestamp_s=1.5e9 + gap_s * index, global_from_lidar=one,
            bev_aug=np.eye(4) if aug is None else aug, frame_valid=valid, is_keyframe=labelled)
            for b, (one, start) in enumerate(zip(poses, starts))]
        return FrameBatch.from_metas(metas, torch.device('cpu'))

    return make


@pytest.fixture(scope='session')
def build():
    """build(type, **settings): a temporal module with reproducible weights, none of which is zero, in eval mode."""
    from mmdet3d.registry import MODELS

    def make(kind='TemporalMemory', readout='ResidualReadout', network=None, random_weights=True, seed=0, **settings):
        cfg: dict = dict(type=kind, point_cloud_range=RANGE)
        if kind == 'TemporalMemory':
            cfg.update(network=dict(type='BEVMemoryNetwork', in_channels=3, key_dim=4, value_dim=5, hidden_dim=6,
                                    feature_dim=8, memory_stride=2, **(network or {})),
                       readout=dict(type=readout), loss_occ=dict(type='OccupancyLoss'))
        else:
            cfg.update(in_channels=3, hidden_dim=8)
        torch.manual_seed(seed)
        module = MODELS.build({**cfg, **settings})
        if random_weights:
            for name, parameter in module.named_parameters():
                if name != 'log_locality':
                    parameter.data.add_(0.1 * torch.randn_like(parameter))
        return module.eval()

    return make


@pytest.fixture(scope='session')
def bev():
    """bev(seed, batch): (B, 3, 8, 12)."""

    def make(seed=0, batch=1, shape=(8, 12)):
        return torch.randn(batch, 3, *shape, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(scope='session')
def outputs():
    """outputs(boxes): what a head would say that is sure of B x (n, 7+) boxes."""
    from mmdet3d.structures import LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    def make(boxes):
        return HeadOutputs(None, lambda: [InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(one, box_dim=one.shape[1]), scores_3d=torch.ones(len(one)),
            labels_3d=torch.zeros(len(one), dtype=torch.long)) for one in boxes])

    return make


@pytest.fixture(scope='session')
def advance(outputs):
    """advance(module, bev, memory, frames, ...): one step as the detector takes it -> (readout, aligned, next memory)."""

    def run(module, bev, memory, frames, found=None, truth=None, observed=None):
        aligned = module.align(memory, frames)
        readout = module.read(aligned, SceneFeatures(bev, observed=observed), frames)
        after = module.write(aligned, readout, None if found is None else outputs(found), frames,
                             None if truth is None else SceneTruth(tuple(truth), ()))
        return readout, aligned, after.where(frames.there, memory)

    return run


@pytest.fixture(scope='session')
def play(advance):
    """play(module, bevs, steps, ...): steps through lists from an empty memory -> (list of readouts, last memory)."""

    @torch.no_grad()
    def run(module, bevs, steps, found=None, observed=None):
        memory, readouts = module.init_state(SceneFeatures(bevs[0])), []
        for t, (bev, frames) in enumerate(zip(bevs, steps)):
            readout, _, memory = advance(module, bev, memory, frames, None if found is None else found[t],
                                         observed=None if observed is None else observed[t])
            readouts.append(readout)
        return readouts, memory

    return run
